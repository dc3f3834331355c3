"""Calls at their edges: a server that ends while it relays, a fault of ours in a single image."""

import asyncio

import grpc
import pytest
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.ledger import Ledger
from orchestrator.security.audit import Call
from orchestrator.security.tenants import Tenant
from orchestrator.settings import ServerSettings
from orchestrator.stages.detect import Detector
from orchestrator.stages.track import Tracker
from tests.unit.scripted_server import scripted_server
from tests.unit.stream_calls import call, config, end_of, is_free, send, two_workers
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


async def test_what_is_no_message_ends_a_relayed_call_as_any_other(tmp_path):
    method = "/soccer.v1.PlayerRecognitionService/RecognizeStream"
    async with two_workers(tmp_path) as (first, second):
        async with call(first.target) as (stream, started):
            await send(stream, range(2))
        await is_free(first)
        async with grpc.aio.insecure_channel(second.target) as channel:
            stream = channel.stream_stream(method)()
            await stream.write(config(resume_token=started.resume_token).SerializeToString())
            assert await stream.read()
            await stream.write(b"\xff")
            code, details = await end_of(stream)
        assert code == "INVALID_ARGUMENT"
        assert "expected a message of the method's request type" in details
        await is_free(first)
        await is_free(second)


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


async def test_a_single_image_whose_caller_is_gone_has_its_place_until_it_is_done_with(monkeypatch):
    begun, gate, track = asyncio.Event(), asyncio.Event(), Tracker.track

    async def wait_and_track(*args, **options):
        begun.set()
        await gate.wait()
        return await track(*args, **options)

    monkeypatch.setattr(Tracker, "track", wait_and_track)
    image = pb.RecognizeFrameRequest(encoding=pb.FRAME_ENCODING_JPEG, data=GOOD)
    call = Call("1", "RecognizeFrame", "", "")
    async with scripted_server() as running:
        servicer = running.servicer
        tenant = Tenant("default", Ledger(ServerSettings()).account("default"))
        recognizing = asyncio.create_task(servicer._recognize_still(call, image, tenant))
        await asyncio.wait_for(begun.wait(), 20)
        for _ in range(2):  # the client vanishes, and the server stops
            recognizing.cancel()
            ended, _ = await asyncio.wait({recognizing}, timeout=0.3)
            assert not ended
        assert servicer._places_taken == 1
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await recognizing
        assert servicer._places_taken == 0
