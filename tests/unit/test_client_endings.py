"""How streams of `RecognitionClient` end before their time, and what its user then sees."""

import asyncio
from contextlib import aclosing

import grpc
import numpy as np
import pytest
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.client import RecognitionClient
from orchestrator.outbox import Outbox
from tests.stream.streams import coded_stream
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


async def test_no_more_frames_are_sent_than_there_is_credit_for():
    outbox = Outbox(endless(*[GOOD] * 4), pb.FRAME_ENCODING_JPEG)
    outbox.restart(pb.StreamStarted(credit_frame_count=2))
    assert [(await outbox.next()).frame_index for _ in range(2)] == [0, 1]
    third = asyncio.create_task(outbox.next())
    ended, _ = await asyncio.wait({third}, timeout=0.05)
    assert not ended
    outbox.note(pb.RecognizeStreamResponse(credit_grant=pb.CreditGrant(frame_count=1)))
    assert (await third).frame_index == 2


async def test_video_whose_stream_starts_anew_is_not_answered_twice():
    units = coded_stream([np.full((96, 160, 3), 9 * i, np.uint8) for i in range(4)], "h264")[1]
    outbox = Outbox(endless(*(unit.data for unit in units)), pb.FRAME_ENCODING_H264)
    outbox.restart(pb.StreamStarted(credit_frame_count=9))
    for _ in units:
        await outbox.next()
    for index in range(3):
        outbox.note(pb.RecognizeStreamResponse(recognition=pb.FrameRecognition(frame_index=index)))
    outbox.restart(pb.StreamStarted(credit_frame_count=9))
    assert (await outbox.next()).frame_index == 3
