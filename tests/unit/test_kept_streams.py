"""Broken streams are kept: bounded in number, memory and time, each for one taker."""

import asyncio
import time
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orchestrator.errors import SupersededError
from orchestrator.resume import KeptStreams, StreamRegistry, new_token


@dataclass(eq=False)
class Stream:
    token: str
    owner: str = "tenant"
    size_bytes: int = 1


KEEP_S, MAX_STREAMS, MAX_BYTES = 10.0, 4, 100


class Keeping(RuleBasedStateMachine):
    """Any order of keep, find, take and time against a plain list as the model."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.model: list[tuple[float, Stream]] = []
        self.kept = KeptStreams(
            keep_s=KEEP_S, max_streams=MAX_STREAMS, max_bytes=MAX_BYTES, clock=lambda: self.now
        )

    @rule(token=st.sampled_from("abcdef"), size=st.integers(0, 2 * MAX_BYTES))
    def keep(self, token, size):
        stream = Stream(token, size_bytes=size)
        self.kept.keep(stream)
        self.model = [entry for entry in self.alive() if entry[1].token != token]
        if size <= MAX_BYTES:
            self.model.append((self.now + KEEP_S, stream))
        while len(self.model) > MAX_STREAMS or self.model_bytes() > MAX_BYTES:
            self.model.pop(0)

    @rule(token=st.sampled_from("abcdef"), owner=st.sampled_from(["tenant", "other"]))
    def take(self, token, owner):
        expected = [s for _, s in self.alive() if (s.token, s.owner) == (token, owner)]
        assert self.kept.find(token, owner) is (expected[0] if expected else None)
        assert self.kept.take(token, owner) is (expected[0] if expected else None)
        assert self.kept.take(token, owner) is None
        self.model = [entry for entry in self.alive() if entry[1] not in expected]

    @rule(seconds=st.floats(0, KEEP_S))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def expire(self):
        self.kept.drop_expired()
        assert len(self.kept) == len(self.alive())

    @invariant()
    def is_bounded(self):
        assert len(self.kept) <= MAX_STREAMS
        assert 0 <= self.kept.size_bytes <= MAX_BYTES

    def alive(self):
        return [entry for entry in self.model if entry[0] > self.now]

    def model_bytes(self):
        return sum(stream.size_bytes for _, stream in self.model)


test_any_order_of_keeping_and_taking_stays_bounded_and_gives_once = Keeping.TestCase


def test_nothing_is_kept_when_switched_off():
    kept = KeptStreams(keep_s=0, max_streams=4, max_bytes=100)
    kept.keep(Stream("a"))
    assert (len(kept), kept.size_bytes) == (0, 0)


@given(st.integers(0, 63))
def test_tokens_name_their_worker_and_never_repeat(worker):
    tokens = {new_token(worker) for _ in range(20)}
    assert len(tokens) == 20
    assert {token.split(".")[0] for token in tokens} == {str(worker)}
    assert min(len(token.split(".")[1]) for token in tokens) >= 32


@pytest.mark.parametrize("early_s", [0.0, 0.01])
async def test_memory_is_freed_on_time_though_nobody_asks(early_s):
    """Timers of uvloop go by whole milliseconds, so that some come before their time."""
    behind = {"s": 0.0}
    kept = KeptStreams(
        keep_s=0.02, max_streams=4, max_bytes=100, clock=lambda: time.monotonic() - behind["s"]
    )
    StreamRegistry(kept).keep(Stream("a"))
    behind["s"] = early_s
    assert len(kept) == 1
    async with asyncio.timeout(10):
        while len(kept):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert kept.size_bytes == 0


def registry(keep_s=60.0):
    return StreamRegistry(KeptStreams(keep_s=keep_s, max_streams=8, max_bytes=100))


async def serve(streams, stream, served):
    """Hold a stream until somebody else wants it, as a call does."""
    with streams.served(stream):
        served.append(stream)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # ending takes a moment
            streams.keep(stream)


async def test_a_served_stream_goes_to_whoever_shows_its_token_last():
    streams, served = registry(), []
    stream = Stream("a")
    older = asyncio.create_task(serve(streams, stream, served))
    await asyncio.sleep(0)
    assert streams.find("a", "tenant") is stream
    assert await streams.take("a", "tenant") is stream
    with pytest.raises(SupersededError):
        await older
    assert await streams.take("a", "tenant") is None


@pytest.mark.parametrize("is_served", [True, False])
async def test_a_token_is_worth_nothing_to_anybody_else(is_served):
    streams = registry()
    stream = Stream("a")
    calls = [asyncio.create_task(serve(streams, stream, []))] if is_served else []
    await asyncio.sleep(0)
    if not is_served:
        streams.keep(stream)
    assert streams.find("a", "other") is None
    assert await streams.take("a", "other") is None
    assert not any(call.done() for call in calls)
    assert await streams.take("a", "tenant") is stream
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(end) for end in ends] == [SupersededError] * is_served


async def test_of_many_takers_at_once_each_gets_the_stream_after_the_other():
    streams, served = registry(), []
    stream = Stream("a")

    async def resume():
        taken = await streams.take("a", "tenant")
        assert taken is stream
        await serve(streams, taken, served)

    calls = [asyncio.create_task(serve(streams, stream, served))]
    calls += [asyncio.create_task(resume()) for _ in range(5)]
    async with asyncio.timeout(10):
        done, last = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        while len(last) > 1:
            more, last = await asyncio.wait(last, return_when=asyncio.FIRST_COMPLETED)
            done |= more
    assert {type(call.exception()) for call in done} == {SupersededError}
    assert served == [stream] * 6
    (holder,) = last
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
