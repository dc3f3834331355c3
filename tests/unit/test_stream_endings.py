"""How calls end: clients that vanish or never read, and servers that drain."""

import asyncio
import contextlib
import os
import signal
import sys
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.drain import Drain
from orchestrator.errors import ConnectionLostError, DrainingError
from orchestrator.replies import AnswerLog, Replies
from orchestrator.security.audit import Call
from orchestrator.stream_call import StreamCall
from orchestrator.types.frames import Encoding, FrameHeader, GapReason, LostFrame
from orchestrator.types.streams import StreamConfig
from tests.patience import until
from tests.stream.streams import coded_stream
from tests.unit.relay import Relay
from tests.unit.scripted_server import scripted_server
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.stream_calls import call, end_of, finish, frame, is_free, send

pytestmark = pytest.mark.asyncio(loop_scope="session")
SMALL_WINDOWS = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]


async def test_a_client_that_never_reads_is_broken_off_and_harms_nobody():
    crowd = [(0.1 * i, 0.5, 0.05, 0.4, 0, 3.0) for i in range(1, 9)]
    triton = ScriptedTriton(scene=lambda call: crowd)
    async with scripted_server(triton=triton, client_stall_s=0.5) as running:
        async with (
            call(running.target, SMALL_WINDOWS) as (deaf, started),
            call(running.target) as (other, _),
        ):
            flooding = asyncio.create_task(flood(deaf))
            heard = await send(other, range(4))
            await until(lambda: running.servicer._places_taken == 1)
            heard += await send(other, range(4, 8))
            assert {len(h.recognition.players) for h in heard} == {8}
            token = started.resume_token
            async with call(running.target, resume_token=token) as (_, again):
                assert again.is_resumed
        await flooding


async def flood(stream):
    """Send frames, credit or not, until the call is over."""
    with contextlib.suppress(asyncio.InvalidStateError, asyncio.CancelledError):
        for index in range(100_000):
            await stream.write(frame(index))


async def test_a_half_open_connection_is_found_and_its_stream_resumed():
    async with (
        scripted_server(keepalive_s=1) as running,
        Relay(running.target) as relay,
        call(relay.target) as (stream, started),
    ):
        await send(stream, range(3))
        relay.fall_silent()
        await is_free(running)
        token = started.resume_token
        async with call(running.target, resume_token=token) as (again, resumed):
            assert resumed.is_resumed
            await send(again, range(3, 5))
            assert (await finish(again)).recognized_frame_count == 5


FROZEN_CLIENT = """
import sys, grpc
from soccer.v1 import player_recognition_pb2 as pb, player_recognition_pb2_grpc as pb_grpc
request = pb.RecognizeStreamRequest()
def requests():
    yield pb.RecognizeStreamRequest(config=pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG))
    sys.stdin.readline()
stub = pb_grpc.PlayerRecognitionServiceStub(grpc.insecure_channel(sys.argv[1]))
for response in stub.RecognizeStream(requests()):
    print(response.started.resume_token, flush=True)
"""


async def test_a_stopped_client_gives_its_place_back():
    async with scripted_server(keepalive_s=1, max_streams=1) as running:
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", FROZEN_CLIENT, running.target),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            token = (await asyncio.wait_for(client.stdout.readline(), 60)).decode().strip()
            os.kill(client.pid, signal.SIGSTOP)
            await is_free(running)
            async with call(running.target, resume_token=token) as (_, again):
                assert again.is_resumed
        finally:
            client.kill()
            await client.wait()


async def test_at_the_end_of_a_drain_streams_move_and_what_was_received_is_answered():
    async with scripted_server() as running, contextlib.AsyncExitStack() as stack:
        watching, _ = await stack.enter_async_context(watch(running.target))
        stream, _ = await stack.enter_async_context(call(running.target))
        await send(stream, range(3))
        draining = asyncio.create_task(running.drain(2.0))
        notice = await asyncio.wait_for(stream.read(), 20)
        assert 0 < notice.drain_notice.remaining.ToNanoseconds() <= 2e9
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        answered = await send(stream, range(3, 6))
        assert [a.recognition.frame_index for a in answered] == [3, 4, 5]
        code, details = await end_of(stream)
        assert (code, details) == ("UNAVAILABLE", "the server is stopping; connect again")
        await asyncio.wait_for(draining, 20)


async def test_a_client_that_vanishes_as_it_is_warned_is_no_error_of_its_own():
    async def vanish(response):
        raise grpc.aio.UsageError("the call has ended")

    context, drain = SimpleNamespace(write=vanish), Drain()
    drain.begin(600.0)
    stream = StreamConfig("m", Encoding.JPEG)
    replies = Replies(context, stream, AnswerLog(8), credit=8, stall_s=60.0)
    with pytest.raises(ConnectionLostError):
        await replies.drain(600.0)
    serving, principal = SimpleNamespace(drain=drain), SimpleNamespace(tenant=None)
    warned = StreamCall(serving, Call("1", "RecognizeStream", "", ""), None, context, principal)
    await warned._warn(replies)


async def test_a_drain_ends_with_the_last_stream_whoever_watches_the_health():
    async with scripted_server() as running, contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(watch(running.target))
        stream, _ = await stack.enter_async_context(call(running.target))
        draining = asyncio.create_task(running.drain(600.0))
        assert (await asyncio.wait_for(stream.read(), 20)).HasField("drain_notice")
        await send(stream, range(2))
        assert (await finish(stream)).recognized_frame_count == 2
        await asyncio.wait_for(draining, 60)


async def test_a_drain_without_streams_ends_at_once():
    async with scripted_server() as running:
        await asyncio.wait_for(running.drain(600.0), 60)


async def test_once_reading_is_over_that_holds_for_streams_that_were_busy_then_too():
    async def requests():
        yield "a frame"

    drain = Drain()
    drain.begin(0.0)
    await asyncio.sleep(0.01)
    with pytest.raises(DrainingError):
        await drain.next(requests())


@contextlib.asynccontextmanager
async def watch(target):
    async with grpc.aio.insecure_channel(target) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        yield watching, await watching.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_waits_for_its_models_still_obeys_signals(number):
    nobody = {"TOUCHLINE_TRITON__URL": "127.0.0.1:9", "TOUCHLINE_TRITON__CONNECT_TIMEOUT_S": "600"}
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "orchestrator"),
        env={**os.environ, **nobody, "TOUCHLINE_SERVER__PORT": "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            while b"waiting for" not in await server.stderr.readline():
                pass
            server.send_signal(number)
            said, _ = await server.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
    assert (said, server.returncode) == (b"", 0)


VIDEO = StreamConfig("m", Encoding.H264)


def replies_over(write, log):
    context = SimpleNamespace(write=write)
    return Replies(context, VIDEO, log, credit=8, stall_s=60.0)


async def test_what_is_counted_is_known_as_answered_though_earlier_answers_do_not_get_through():
    async def vanish(response):
        raise grpc.aio.UsageError("the call has ended")

    log, answers = AnswerLog(8), [LostFrame(FrameHeader(i), GapReason.INTERNAL, "") for i in (0, 1)]
    log.add(answers[0], pb.RecognizeStreamResponse())
    replies = replies_over(vanish, log)
    await replies.repeat(answers[0].header)  # held until it is clear that none comes before it
    with pytest.raises(ConnectionLostError):
        await replies.send(answers[1])
    assert not replies.is_repeated(answers[1].header)
    assert log.newest_index == 1


async def test_a_server_that_drains_answers_units_again_that_it_has_read():
    images = [np.full((96, 160, 3), 60 + 5 * index, np.uint8) for index in range(12)]
    stream_config, units = coded_stream(images, "h264")
    video = {"encoding": stream_config.encoding}
    requests = [pb.RecognizeStreamRequest(frame=unit) for unit in units]
    async with scripted_server() as running:
        async with call(running.target, **video) as (stream, started):
            for request in requests:
                await stream.write(request)
            while (await stream.read()).recognition.frame_index != 3:
                pass
        await is_free(running)
        token = started.resume_token
        async with call(running.target, **video, resume_token=token) as (stream, _):
            for request in requests[:4]:  # in decoding order
                await stream.write(request)
            assert (await stream.read()).HasField("credit_grant")  # all four are read
            draining = asyncio.create_task(running.drain(2.0))
            told = []
            with contextlib.suppress(grpc.aio.AioRpcError):
                while (response := await stream.read()) is not grpc.aio.EOF:
                    told += [response.recognition.frame_index] * response.HasField("recognition")
        assert told == [0, 1, 2, 3]
        await draining
