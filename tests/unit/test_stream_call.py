"""Calls over real sockets, with scripted models: what is resumed, by whom, and how calls end."""

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
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.client import RecognitionClient
from orchestrator.drain import Drain
from orchestrator.errors import ConnectionLostError
from orchestrator.replies import AnswerLog, Replies
from orchestrator.security.audit import Call
from orchestrator.stream_call import StreamCall
from orchestrator.types.frames import Encoding
from orchestrator.types.streams import StreamConfig
from tests.patience import until
from tests.stream.streams import coded_stream
from tests.unit.relay import Relay
from tests.unit.scripted_server import PERSON, scripted_server
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.test_session import GOOD, jpeg

pytestmark = pytest.mark.asyncio(loop_scope="session")

SMALL_WINDOWS = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]


def config(**fields) -> pb.RecognizeStreamRequest:
    fields = {"encoding": pb.FRAME_ENCODING_JPEG, **fields}
    return pb.RecognizeStreamRequest(config=pb.StreamConfig(**fields))


def frame(index: int, data: bytes = GOOD) -> pb.RecognizeStreamRequest:
    return pb.RecognizeStreamRequest(frame=pb.Frame(frame_index=index, data=data))


@contextlib.asynccontextmanager
async def call(target, options=(), **fields):
    """Open a stream on a connection of its own; at the end the client vanishes."""
    async with grpc.aio.insecure_channel(target, options) as channel:
        stream = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream()
        await stream.write(config(**fields))
        yield stream, (await stream.read()).started


async def send(stream, indices):
    """Send frames and return their answers."""
    for index in indices:
        await stream.write(frame(index))
    answers = []
    while len(answers) < len(indices):
        response = await asyncio.wait_for(stream.read(), 20)
        if response.HasField("recognition") or response.HasField("gap"):
            answers.append(response)
    return answers


async def finish(stream):
    """End a stream and return its summary."""
    await stream.done_writing()
    while not (response := await asyncio.wait_for(stream.read(), 20)).HasField("summary"):
        pass
    assert await stream.read() is grpc.aio.EOF
    return response.summary


async def end_of(stream):
    """Read a call to its end, which is an error, and return its code and details."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await asyncio.wait_for(stream.read(), 20) is not grpc.aio.EOF:
            pass
    return (await stream.code()).name, await stream.details()


async def is_free(running):
    """Wait until no place is taken."""
    await asyncio.wait_for(running.servicer._drain.until_free(), 20)


async def test_a_resumed_stream_goes_on_and_what_was_answered_is_answered_as_before():
    triton = ScriptedTriton(scene=lambda call: [PERSON], labels="player,referee")
    async with scripted_server(triton=triton) as running:
        async with call(running.target) as (stream, started):
            before = await send(stream, range(6))
        await is_free(running)
        assert triton.seen("sam2_tracker")[-1][1].is_end
        async with call(running.target, resume_token=started.resume_token) as (stream, again):
            assert again.is_resumed
            assert (again.stream_id, again.resume_token) == (
                started.stream_id,
                started.resume_token,
            )
            after = await send(stream, range(3, 9))
            summary = await finish(stream)
    assert after[:3] == before[3:]
    assert [a.recognition.frame_index for a in after] == list(range(3, 9))
    assert {p.track_id for a in after for p in a.recognition.players} == {1}
    assert len(triton.seen("rfdetr_detector")) == 9
    assert (summary.received_frame_count, summary.recognized_frame_count) == (9, 9)
    assert [(t.track_id, t.frame_count) for t in summary.tracks] == [(1, 9)]


async def test_frames_answered_long_before_lie_in_a_gap():
    async with scripted_server() as running:
        async with call(running.target) as (stream, started):
            await send(stream, range(started.credit_frame_count + 2))
        token = started.resume_token
        async with call(running.target, resume_token=token) as (stream, _):
            first, third = await send(stream, [0, 2])
    assert first.gap.reason == pb.GAP_REASON_INVALID_FRAME
    assert "resumed" in first.gap.detail
    assert third.recognition.frame_index == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoding", pb.FRAME_ENCODING_PNG),
        ("width_px", 320),
        ("height_px", 192),
        ("rotation_degrees", 90),
        ("resume_token", "x" * 129),
    ],
)
async def test_other_pictures_than_before_are_refused_and_the_stream_stays(field, value):
    size = {"width_px": 160, "height_px": 96}
    async with scripted_server() as running:
        async with call(running.target, **size) as (stream, started):
            await send(stream, [0])
        again = {**size, "resume_token": started.resume_token}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with call(running.target, **again | {field: value}):
                pass
        assert caught.value.code().name == "INVALID_ARGUMENT"
        assert str(caught.value.details()).startswith(f"config.{field}: expected")
        async with call(running.target, **again) as (_, resumed):
            assert resumed.is_resumed


async def test_the_newest_call_has_the_stream_and_the_older_one_is_told():
    async with scripted_server(max_streams=1) as running, contextlib.AsyncExitStack() as stack:
        older, started = await stack.enter_async_context(call(running.target))
        await send(older, range(3))
        token = started.resume_token
        newer, again = await stack.enter_async_context(call(running.target, resume_token=token))
        assert again.is_resumed
        code, details = await end_of(older)
        assert (code, details.split(":")[0]) == ("ABORTED", "config.resume_token")
        await send(newer, range(3, 5))
        assert (await finish(newer)).recognized_frame_count == 5


async def test_a_stream_that_ended_or_broke_the_protocol_is_forgotten():
    async with scripted_server() as running:
        async with call(running.target) as (stream, ended):
            await send(stream, [0])
            await finish(stream)
        async with call(running.target) as (stream, broken):
            await stream.write(config())
            assert (await end_of(stream))[0] == "INVALID_ARGUMENT"
        for token in (ended.resume_token, broken.resume_token, "unheard of"):
            async with call(running.target, resume_token=token) as (_, again):
                assert not again.is_resumed
                assert again.resume_token not in {token, ""}


async def test_nothing_is_kept_where_resuming_is_off():
    async with scripted_server(resume_s=0) as running:
        async with call(running.target) as (stream, started):
            await send(stream, [0])
        assert started.resume_token == ""


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


@contextlib.asynccontextmanager
async def two_workers(directory):
    common = {"workers": 2, "worker_directory": directory}
    async with (
        scripted_server(worker=0, **common) as first,
        scripted_server(worker=1, **common) as second,
    ):
        yield first, second


async def test_a_stream_of_another_worker_is_resumed_there(tmp_path):
    async with two_workers(tmp_path) as (first, second):
        async with call(first.target) as (stream, started):
            before = await send(stream, range(4))
        await is_free(first)
        async with call(second.target, resume_token=started.resume_token) as (stream, again):
            assert (again.is_resumed, again.stream_id) == (True, started.stream_id)
            after = await send(stream, range(2, 7))
            summary = await finish(stream)
    assert after[:2] == before[2:]
    assert summary.recognized_frame_count == 7


async def test_a_handed_over_call_that_breaks_leaves_the_stream_to_be_resumed(tmp_path):
    async with two_workers(tmp_path) as (first, second), Relay(second.target) as relay:
        async with call(first.target) as (older, started):
            await send(older, range(2))
            token = started.resume_token
            async with call(relay.target, resume_token=token) as (newer, again):
                assert again.is_resumed
                assert (await end_of(older))[0] == "ABORTED"
                await send(newer, range(2, 4))
                relay.cut()
                await is_free(first)
        async with call(second.target, resume_token=token) as (stream, again):
            assert again.is_resumed
            await stream.write(config())
            assert await end_of(stream) == (
                "INVALID_ARGUMENT",
                "frame: expected in every message after the first",
            )


async def test_a_stream_whose_worker_is_gone_starts_afresh(tmp_path):
    async with (
        scripted_server(workers=2, worker=1, worker_directory=tmp_path) as second,
        call(second.target, resume_token="0.gone") as (stream, started),
    ):
        assert not started.is_resumed
        await send(stream, range(2))
        assert (await finish(stream)).recognized_frame_count == 2


@contextlib.asynccontextmanager
async def watch(target):
    async with grpc.aio.insecure_channel(target) as channel:
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        yield watching, await watching.read()


async def test_the_client_resumes_by_itself_over_a_connection_that_breaks():
    triton = ScriptedTriton(scene=lambda call: [PERSON], labels="player,referee")
    shades = [jpeg(shade=90 + index) for index in range(24)]
    async with scripted_server(triton=triton) as running, Relay(running.target) as relay:

        async def source():
            for index, data in enumerate(shades):
                if index in {9, 17}:
                    relay.cut()
                yield pb.Frame(frame_index=index, data=data)

        stream = pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG)
        async with RecognitionClient(relay.target) as client:
            responses = [r async for r in client.recognize_stream(stream, source())]
    started = [r.started for r in responses if r.HasField("started")]
    assert [s.is_resumed for s in started] == [False, True, True]
    found = [r.recognition for r in responses if r.HasField("recognition")]
    assert [f.frame_index for f in found] == list(range(24))
    assert {p.track_id for f in found for p in f.players} == {1}
    summary = responses[-1].summary
    assert (summary.received_frame_count, summary.recognized_frame_count) == (24, 24)
    assert len(triton.seen("rfdetr_detector")) <= 24 + 2 * 8  # only what was under way, again


@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_video_goes_on_in_the_middle_of_its_group_of_pictures(codec):
    images = [np.full((96, 160, 3), 60 + 5 * index, np.uint8) for index in range(30)]
    stream, units = coded_stream(images, codec)
    triton = ScriptedTriton(scene=lambda call: [PERSON], labels="player,referee")
    async with scripted_server(triton=triton) as running, Relay(running.target) as relay:
        seen = []

        async def source():
            for count, unit in enumerate(units):
                if count == 20:
                    await until(lambda: len(seen) > 8)
                    relay.cut()
                yield unit

        async with RecognitionClient(relay.target) as client:
            async for response in client.recognize_stream(stream, source()):
                seen.append(response)  # noqa: PERF401  the source looks at it
    assert [r.started.is_resumed for r in seen if r.HasField("started")] == [False, True]
    assert not [r.gap for r in seen if r.HasField("gap")]
    assert [r.recognition.frame_index for r in seen if r.HasField("recognition")] == [*range(30)]
    assert seen[-1].summary.recognized_frame_count == 30
