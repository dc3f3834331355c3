"""Calls at their edges: a server that ends while it relays, a fault of ours in a single image."""

import asyncio

import grpc
import pytest
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.stages.detect import Detector
from tests.unit.scripted_server import scripted_server
from tests.unit.stream_calls import call, is_free, send, two_workers
from tests.unit.test_session import GOOD

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_worker_that_drains_relays_until_the_stream_has_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.server._LAST_WORDS_S", 0.1)
    async with two_workers(tmp_path) as (first, second):
        async with call(first.target) as (stream, started):
            await send(stream, range(2))
        await is_free(first)
        async with call(second.target, resume_token=started.resume_token) as (stream, again):
            assert again.is_resumed
            draining = asyncio.create_task(second.drain(60.0))
            ended, _ = await asyncio.wait({draining}, timeout=1.0)
            assert not ended
            await send(stream, range(2, 5))
            await stream.done_writing()
            while not (response := await asyncio.wait_for(stream.read(), 20)).HasField("summary"):
                pass
            assert response.summary.recognized_frame_count == 5
        await asyncio.wait_for(draining, 60)


async def test_a_fault_of_ours_in_a_single_image_is_not_laid_to_the_caller(monkeypatch):
    async def fail(self, frame):
        raise ZeroDivisionError

    monkeypatch.setattr(Detector, "detect", fail)
    async with (
        scripted_server() as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        stub = pb_grpc.PlayerRecognitionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.RecognizeFrame(
                pb.RecognizeFrameRequest(encoding=pb.FRAME_ENCODING_JPEG, data=GOOD)
            )
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert caught.value.details() == "the server failed on this frame"
