"""A small part of the API's fuzzing, and that it would notice."""

import asyncio
import random
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.stream_call import StreamCall
from tests.fuzz.api import Assault, assaulted, fuzz
from tests.fuzz.api_inputs import Attack, attack, message_of


@pytest.fixture(scope="module")
def field() -> Iterator[SimpleNamespace]:
    """A loop with a server under attack."""
    with asyncio.Runner() as runner:
        server = assaulted()
        yield SimpleNamespace(run=runner.run, assault=runner.run(server.__aenter__()))
        runner.run(server.__aexit__(None, None, None))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(st.lists(st.randoms(use_true_random=False), min_size=1, max_size=3))
def test_whatever_messages_and_bytes_come_each_call_ends_as_promised(field, chances):
    attacks = [attack(chance) for chance in chances]
    field.run(field.assault.send(enumerate(attacks)))
    assert field.assault.tally.violations == []


def test_nothing_is_left_when_the_attackers_are_gone(field):
    field.run(field.assault.send((n, attack(random.Random(n))) for n in range(8)))
    field.run(field.assault.end())
    assert field.assault.tally.violations == []


async def test_a_seeded_run_accounts_for_every_frame():
    report = await fuzz(400, seed=7)
    assert report["violations"] == []
    assert report["inputs"] >= 400
    assert report["statuses"]["OK"] > 10
    assert report["statuses"]["INVALID_ARGUMENT"] > 5
    assert report["frames"]["RECOGNIZED"] > 10


def _fields(descriptor: Descriptor) -> set[str]:
    """Full names of all fields below a message type."""
    names = {field.full_name for field in descriptor.fields}
    for field in descriptor.fields:
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            names |= _fields(field.message_type)
    return names


def _set_fields(message) -> set[str]:
    names = set()
    for field, value in message.ListFields():
        names.add(field.full_name)
        if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            for part in value if field.is_repeated else [value]:
                names |= _set_fields(part)
    return names


@pytest.mark.parametrize("kind", [pb.RecognizeStreamRequest, pb.RecognizeFrameRequest])
def test_drawn_messages_reach_every_field_of_the_api(kind):
    drawn = (message_of(kind.DESCRIPTOR, random.Random(n)) for n in range(400))
    assert set().union(*map(_set_fields, drawn)) == _fields(kind.DESCRIPTOR)


GOOD = pb.RecognizeStreamRequest(config=pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG))
FRAME = pb.RecognizeStreamRequest(frame=pb.Frame(frame_index=3, data=b"no picture"))
STREAM = Attack("RecognizeStream", (GOOD.SerializeToString(), FRAME.SerializeToString()))


async def _violations(assault: Assault) -> str:
    await assault.send([(1, STREAM)])
    await assault.end()
    return "\n".join(assault.tally.violations)


async def test_a_fault_of_the_server_is_noticed(monkeypatch):
    async def flawed(self):
        raise ZeroDivisionError

    monkeypatch.setattr(StreamCall, "serve", flawed)
    async with assaulted() as assault:
        found = await _violations(assault)
    # The status itself may stay unseen: grpc.aio drops it where a call ends while it still writes.
    assert "logged: " in found


async def test_a_frame_without_an_answer_is_noticed(monkeypatch):
    async def deaf(self, config, replies):
        async for _ in self._requests:
            pass
        for frame in ():
            yield frame

    monkeypatch.setattr(StreamCall, "_frames", deaf)
    async with assaulted() as assault:
        found = await _violations(assault)
    assert "1: sent frames Counter({3: 1}), answered Counter()" in found


async def test_a_task_that_is_left_is_noticed(monkeypatch):
    monkeypatch.setattr("tests.fuzz.api.LONGEST_S", 0.5)
    async with assaulted() as assault:
        left = asyncio.create_task(asyncio.sleep(60))
        assert "tasks are left: sleep" in await _violations(assault)
        left.cancel()
