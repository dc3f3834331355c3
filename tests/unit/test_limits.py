"""What one caller may cost before it is even heard: headers, silence, malformed messages."""

import asyncio
import itertools
from contextlib import AsyncExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.errors import InvalidRequestError, OverloadedError
from orchestrator.security.hearing import Hearing
from orchestrator.server import SERVICE
from tests.patience import until
from tests.unit.scripted_server import scripted_server
from tests.unit.test_session import GOOD

CONFIG = pb.RecognizeStreamRequest(config=pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG))


async def refusal(call) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        assert [response async for response in call]
    return caught.value.code().name, str(caught.value.details())


async def test_headers_beyond_their_limit_end_the_call_and_no_other():
    async with (
        scripted_server() as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(request, metadata=[("x-other", "x" * (17 << 10))])
        assert caught.value.code().name == "RESOURCE_EXHAUSTED"
        await stub.Check(request, metadata=[("x-other", "x" * (12 << 10))])


async def test_a_caller_that_never_sends_its_config_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("orchestrator.security.hearing._MESSAGE_S", 0.05)
    async with (
        scripted_server() as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        call = channel.stream_stream(f"/{SERVICE}/RecognizeStream")()
        expected = "request: expected the first message within 0.05 s"
        assert await refusal(call) == ("INVALID_ARGUMENT", expected)


def stub_of(channel):
    return pb_grpc.PlayerRecognitionServiceStub(channel)


def still():
    return pb.RecognizeFrameRequest(encoding=pb.FRAME_ENCODING_JPEG, data=GOOD)


async def test_calls_are_heard_a_few_at_a_time_over_all_connections(monkeypatch):
    """Nothing of the others is read: messages of 100 MiB on 12 connections took 3 GB."""
    monkeypatch.setattr("orchestrator.security.hearing._AT_ONCE", 2)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(scripted_server())
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(
                    running.target, options=[("grpc.use_local_subchannel_pool", 1)]
                )
            )
            for _ in range(4)
        ]
        silent = [stub_of(channel).RecognizeStream() for channel in channels[:2]]
        for call in silent:
            await call.wait_for_connection()
        tenant = running.servicer._guard._authenticator.authenticate(()).tenant
        await until(tenant.hearing._turns.locked)
        waiting = [
            asyncio.ensure_future(stub_of(channels[2]).RecognizeFrame(still())),
            asyncio.ensure_future(
                anext(aiter(stub_of(channels[3]).RecognizeStream(iter([CONFIG]))))
            ),
        ]
        await until(lambda: tenant.hearing._waiting == 2)
        await health_pb2_grpc.HealthStub(channels[3]).Check(health_pb2.HealthCheckRequest())
        silent[0].cancel()
        answer, started = await asyncio.gather(*waiting)
        assert answer.HasField("recognition")
        assert started.HasField("started")


async def test_no_more_calls_wait_to_be_heard_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr("orchestrator.security.hearing._MOST_WAITING", 0)
    async with (
        scripted_server() as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="calls wait to send") as caught:
            await stub_of(channel).RecognizeFrame(still())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_calls_that_wait_in_vain_to_be_heard_leave_no_trace(monkeypatch):
    monkeypatch.setattr("orchestrator.security.hearing._AT_ONCE", 1)
    monkeypatch.setattr("orchestrator.security.hearing._MOST_WAITING", 4)
    monkeypatch.setattr("orchestrator.security.hearing._MESSAGE_S", 0.05)
    hearing, heard = Hearing(), []

    async def silence():
        heard.append(+1)
        try:
            yield await asyncio.Event().wait()
        finally:
            heard.append(-1)

    async def speech():
        yield "a config"

    for _ in range(3):
        calls = [hearing.first(silence()) for _ in range(4)]
        endings = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(endings[0], InvalidRequestError)
        assert isinstance(endings[3], OverloadedError)
    assert max(itertools.accumulate(heard)) == 1
    assert await hearing.first(speech()) == "a config"


async def test_a_call_without_any_message_is_no_single_image():
    async with (
        scripted_server() as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        empty = channel.stream_stream(f"/{SERVICE}/RecognizeFrame")(iter(()))
        assert await refusal(empty) == ("INVALID_ARGUMENT", "request: expected one message")


@pytest.mark.parametrize("parts", [[b"\xff"], [CONFIG.SerializeToString(), b"\xff"]])
async def test_bytes_that_are_no_message_end_their_stream_as_the_clients_mistake(parts):
    async with (
        scripted_server() as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        code, details = await refusal(
            channel.stream_stream(f"/{SERVICE}/RecognizeStream")(iter(parts))
        )
    assert (code, details.split(":")[0]) == ("INVALID_ARGUMENT", "request")


async def test_bytes_that_are_no_message_end_a_single_image_as_the_clients_mistake():
    async with (
        scripted_server() as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{SERVICE}/RecognizeFrame")(b"\xff")
        assert caught.value.code().name == "INVALID_ARGUMENT"
        assert caught.value.details().startswith("request: expected")
