"""Streams that are resumed: what goes on, by whom, and what is refused."""

import contextlib
import socket

import grpc
import numpy as np
import pytest
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.client import RecognitionClient
from orchestrator.contracts import SAM2_TRACKER
from orchestrator.triton.snapshot import PoolSnapshot, ReplicaSnapshot, ReplicaState
from orchestrator.types.people import Identity, Role
from orchestrator.types.results import IdentityUpdate
from tests.patience import until
from tests.stream.streams import coded_stream
from tests.unit.relay import Relay
from tests.unit.scripted_server import PERSON, scripted_server
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.stream_calls import call, config, end_of, finish, frame, is_free, send
from tests.unit.test_session import GOOD, jpeg

pytestmark = pytest.mark.asyncio(loop_scope="session")


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


@pytest.mark.parametrize("further", [[], [3], [2, 3], [0, 1, 2, 3]])
async def test_a_revision_that_was_cut_off_behind_its_answer_is_told_again(further):
    revision = IdentityUpdate(77, 2, Identity(Role.REFEREE), ("role",))
    async with scripted_server() as running:
        async with call(running.target) as (stream, started):
            await send(stream, range(2))
            served = running.servicer._serving.streams.find(started.resume_token, "default")
            served.state.untold.append(revision)
            await send(stream, [2])
        await is_free(running)
        async with call(running.target, resume_token=started.resume_token) as (stream, _):
            for index in further:
                await stream.write(frame(index))
            await stream.done_writing()
            told = []
            while not (response := await stream.read()).HasField("summary"):
                if response.identity_update.track_id == 77:
                    told.append("revision")
                elif response.HasField("recognition"):
                    told.append(response.recognition.frame_index)
    earlier = [index for index in further if index <= 2]
    assert told == [*earlier, "revision", *further[len(earlier) :]]


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
        ("resume_token", "1" * 5000 + ".x"),
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


async def test_a_stream_that_had_a_slot_is_resumed_though_all_are_taken_since():
    triton = ScriptedTriton(scene=lambda call: [PERSON])
    async with scripted_server(triton=triton) as running:
        async with call(running.target) as (stream, started):
            await send(stream, range(2))
        await is_free(running)
        replica = ReplicaSnapshot("host:1", ReplicaState.READY, 0, 1, 1)
        full = PoolSnapshot(SAM2_TRACKER.name, 0, 0, 0.0, None, True, (replica,))
        triton.snapshot = lambda: (full,)
        async with grpc.aio.insecure_channel(running.target) as channel:
            new = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream()
            await new.write(config())
            assert (await end_of(new))[0] == "RESOURCE_EXHAUSTED"
        async with call(running.target, resume_token=started.resume_token) as (stream, again):
            assert again.is_resumed
            await finish(stream)


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
async def test_video_that_is_sent_again_is_answered_in_presentation_order(codec):
    images = [np.full((96, 160, 3), 60 + 5 * index, np.uint8) for index in range(12)]
    stream_config, units = coded_stream(images, codec)
    assert [unit.frame_index for unit in units] != list(range(12))
    answered = []
    async with scripted_server() as running:
        async with call(running.target, encoding=stream_config.encoding) as (stream, started):
            for unit in units:
                await stream.write(pb.RecognizeStreamRequest(frame=unit))
            while (await stream.read()).recognition.frame_index != 7:
                pass
        await is_free(running)
        again = {"encoding": stream_config.encoding, "resume_token": started.resume_token}
        async with call(running.target, **again) as (stream, _):
            for unit in units:
                await stream.write(pb.RecognizeStreamRequest(frame=unit))
            await stream.done_writing()
            while not (response := await stream.read()).HasField("summary"):
                if response.HasField("recognition"):
                    answered.append(response.recognition.frame_index)
    assert answered == list(range(12))


async def test_the_client_waits_for_room_where_it_had_a_place_before(caplog):
    """As on a server that was just started, to which all streams of another come at once."""
    async with scripted_server(max_streams=1) as running, Relay(running.target) as relay:

        async def source():
            for index in range(6):
                if index == 3:
                    relay.cut()
                    await is_free(running)
                    async with call(running.target):
                        await until(lambda: "all 1 places" in caplog.text)
                yield pb.Frame(frame_index=index, data=GOOD)

        async with RecognitionClient(relay.target) as client:
            stream = pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG)
            responses = [r async for r in client.recognize_stream(stream, source())]
    assert responses[-1].summary.recognized_frame_count == 6
    said = [record.getMessage() for record in caplog.records if "again in" in record.getMessage()]
    assert said[0].startswith("stream broke off (")
    assert all(each.startswith("stream did not start (all 1 places") for each in said[1:])


async def test_a_server_that_is_not_there_is_no_lost_connection(caplog):
    with socket.create_server(("127.0.0.1", 0)) as free:
        target = f"127.0.0.1:{free.getsockname()[1]}"
    async with RecognitionClient(target, max_reconnects=1) as client:
        stream = client.recognize_stream(config().config, aiter_of())
        with pytest.raises(grpc.aio.AioRpcError, match="failed to connect"):
            await anext(stream)
    (said,) = [each.getMessage() for each in caplog.records if each.name == "orchestrator.client"]
    assert said.startswith("stream did not start (failed to connect")


async def test_an_error_of_the_source_of_frames_reaches_the_caller():
    async def broken():
        yield pb.Frame(frame_index=0, data=GOOD)
        raise ValueError("the camera is gone")

    async with scripted_server() as running, RecognitionClient(running.target) as client:
        with pytest.raises(ValueError, match="the camera is gone"):
            _ = [r async for r in client.recognize_stream(config().config, broken())]


async def test_the_client_is_told_at_once_that_a_new_stream_has_no_room():
    async with (
        scripted_server(max_streams=1) as running,
        call(running.target),
        RecognitionClient(running.target) as client,
    ):
        stream = client.recognize_stream(config().config, aiter_of())
        with pytest.raises(grpc.aio.AioRpcError, match="all 1 places"):
            await anext(stream)


async def aiter_of(*frames):
    for each in frames:
        yield each


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
