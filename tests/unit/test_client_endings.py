"""How streams of `RecognitionClient` end before their time, and what its user then sees."""

import asyncio
from contextlib import aclosing

import grpc
import pytest
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.client import RecognitionClient
from tests.unit.scripted_server import scripted_server
from tests.unit.stream_calls import call, config, is_free
from tests.unit.test_session import GOOD

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def endless(*first):
    """Yield frames, then nothing any more."""
    for index, data in enumerate(first):
        yield pb.Frame(frame_index=index, data=data)
    await asyncio.Event().wait()


def noted_calls(client, monkeypatch):
    """Return a list that the client's calls are added to."""
    calls, begin = [], client._stub.RecognizeStream

    def begin_noted(**options):
        calls.append(begin(**options))
        return calls[-1]

    monkeypatch.setattr(client._stub, "RecognizeStream", begin_noted)
    return calls


async def test_whoever_stops_listening_ends_the_call_there_and_then(monkeypatch):
    async with scripted_server() as running, RecognitionClient(running.target) as client:
        calls = noted_calls(client, monkeypatch)
        async with aclosing(client.recognize_stream(config().config, endless(GOOD))) as responses:
            async for response in responses:
                if response.HasField("recognition"):
                    break
        assert [each.cancelled() for each in calls] == [True]
        await is_free(running)


async def test_a_frame_larger_than_any_message_ends_its_stream_at_once_in_words(monkeypatch):
    async with scripted_server() as running, RecognitionClient(running.target) as client:
        calls = noted_calls(client, monkeypatch)
        with pytest.raises(grpc.aio.AioRpcError, match="message larger than max") as caught:
            async for _ in client.recognize_stream(config().config, endless(bytes(129 << 20))):
                pass
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(calls) == 1


async def test_a_client_whose_stream_goes_on_elsewhere_does_not_fight_for_it(monkeypatch):
    async with scripted_server() as running, RecognitionClient(running.target) as client:
        calls = noted_calls(client, monkeypatch)
        responses = client.recognize_stream(config().config, endless(GOOD))
        token = (await anext(responses)).started.resume_token
        async with call(running.target, resume_token=token) as (_, newer):
            assert newer.is_resumed
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in responses:
                    pass
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert len(calls) == 1
