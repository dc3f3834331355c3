"""What one caller may cost before it is even heard: headers, silence, malformed messages."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.server import SERVICE
from tests.unit.scripted_server import scripted_server

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
    monkeypatch.setattr("orchestrator.stream_call._CONFIG_S", 0.05)
    async with (
        scripted_server() as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        call = channel.stream_stream(f"/{SERVICE}/RecognizeStream")()
        assert await refusal(call) == ("INVALID_ARGUMENT", "config: expected within 0.05 s")


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
