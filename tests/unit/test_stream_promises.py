"""What the API promises of a stream, as its client sees it."""

import time

import grpc
import numpy as np
import pytest
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.video_decoding import AccessUnitDecoder
from tests.stream.streams import coded_stream, encode, gaps, play, recognitions
from tests.unit.scripted_server import PERSON, scripted_server
from tests.unit.scripted_triton import ScriptedTriton
from tests.unit.stream_calls import call, config, end_of, finish, frame, is_free, send
from tests.unit.test_session import GOOD

pytestmark = pytest.mark.asyncio(loop_scope="session")

GREY = [np.full((96, 160, 3), 60 + 5 * index, np.uint8) for index in range(12)]


async def test_answers_may_be_larger_than_frames():
    large = b"0" * 8192
    triton = ScriptedTriton(scene=lambda call: [PERSON], mask=large)
    async with scripted_server(triton=triton, max_frame_bytes=2048) as running:
        options = pb.ResultOptions(include_masks=True)
        async with call(running.target, result_options=options) as (stream, started):
            assert started.max_frame_bytes == 2048
            (answer,) = await send(stream, [0])
            assert answer.recognition.players[0].mask.rle_counts == large.decode()
            assert (await finish(stream)).recognized_frame_count == 1


@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_frames_that_a_codec_holds_back_have_stage_times_of_their_own(monkeypatch, isolation):
    decode = AccessUnitDecoder.decode

    def decode_slowly(self, encoded):
        time.sleep(0.2 * (encoded.header.frame_index == 3))
        return decode(self, encoded)

    if isolation == "thread":
        monkeypatch.setattr(AccessUnitDecoder, "decode", decode_slowly)
    stream, units = coded_stream(GREY, "h264")
    assert units[1].frame_index == 3  # which comes before 1 and 2 and is shown after them
    stream.result_options.include_stage_timings = True
    async with scripted_server(isolation=isolation) as running:
        responses = await play(running.target, stream, units)
    timings = {r.frame_index: r.stage_timings for r in recognitions(responses)}
    assert sorted(timings) == list(range(12))
    told = {tuple(field.name for field, _ in each.ListFields()) for each in timings.values()}
    assert told == {tuple(field.name for field in pb.StageTimings.DESCRIPTOR.fields)}
    if isolation == "thread":
        assert timings[3].decode.ToNanoseconds() >= 0.2e9


@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_video_that_returns_to_its_size_is_recognised_again(codec):
    stream, units = coded_stream(GREY[:6], codec)
    _, other = coded_stream([image[:64, :128] for image in GREY[:6]], codec)
    _, again = coded_stream(GREY[6:], codec)
    for later, messages in ((6, other), (12, again)):
        for message in messages:
            message.frame_index += later
            message.pts += later
    async with scripted_server() as running:
        responses = await play(running.target, stream, [*units, *other, *again])
    assert gaps(responses) == [(index, "RESOLUTION_CHANGED") for index in range(6, 12)]
    assert [r.frame_index for r in recognitions(responses)] == [*range(6), *range(12, 18)]


async def test_results_refer_to_the_upright_picture():
    (response,) = (
        answer
        for answer in await rotated(90)
        if answer.HasField("recognition") and answer.recognition.players
    )
    found = response.recognition
    assert (found.width_px, found.height_px) == (96, 160)
    box = found.players[0].box
    edges = (box.x_min, box.y_min, box.x_max, box.y_max)  # of PERSON, in shares of the picture
    assert edges == pytest.approx((0.2 * 96, 0.3 * 160, 0.3 * 96, 0.7 * 160), abs=0.01)
    mask = found.players[0].mask
    assert (mask.width, mask.height) == (96, 160)


async def rotated(degrees: int) -> list[pb.RecognizeStreamResponse]:
    """Play one picture, 160 wide and 96 high before it is turned."""
    stream = config(rotation_degrees=degrees, width_px=160, height_px=96).config
    stream.result_options.include_masks = True
    async with scripted_server() as running:
        return await play(running.target, stream, [pb.Frame(data=GOOD)])


async def test_the_time_base_comes_back_in_the_summary_and_only_if_it_was_sent():
    time_base = pb.Rational(numerator=1001, denominator=30000)
    async with scripted_server() as running:
        for fields in ({"time_base": time_base}, {}):
            async with call(running.target, **fields) as (stream, _):
                summary = await finish(stream)
            assert summary.HasField("time_base") == bool(fields)
            assert summary.time_base == fields.get("time_base", pb.Rational())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"width_px": 320, "height_px": 200}, "at most 40000 pixels in all, got 64000"),
        (
            {"width_px": 160, "height_px": 100, "encoding": pb.FRAME_ENCODING_RGB24},
            "at most 32768 bytes a frame, got 48000",
        ),
    ],
)
async def test_a_size_that_could_never_be_served_is_refused(fields, expected):
    limits = {"max_frame_pixels": 40_000, "max_frame_bytes": 32_768}
    async with scripted_server(**limits) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with call(running.target, **fields):
                pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == f"config.width_px: expected {expected}"


async def test_the_largest_raw_pictures_are_served():
    image = np.full((96, 160, 3), 90, np.uint8)
    raw = {"encoding": pb.FRAME_ENCODING_RGB24, "width_px": 160, "height_px": 96}
    limits = {"max_frame_pixels": 160 * 96, "max_frame_bytes": image.nbytes}
    async with scripted_server(**limits) as running:
        data = encode(image, pb.FRAME_ENCODING_RGB24)
        responses = await play(running.target, config(**raw).config, [pb.Frame(data=data)])
    assert len(recognitions(responses)) == 1


async def test_a_deadline_of_the_client_breaks_its_stream_off_to_be_resumed():
    async with scripted_server() as running, grpc.aio.insecure_channel(running.target) as channel:
        stub = pb_grpc.PlayerRecognitionServiceStub(channel)
        stream = stub.RecognizeStream(timeout=3.0)
        await stream.write(config())
        started = (await stream.read()).started
        await stream.write(frame(0))
        assert (await end_of(stream))[0] == "DEADLINE_EXCEEDED"
        await is_free(running)
        async with call(running.target, resume_token=started.resume_token) as (again, resumed):
            assert resumed.is_resumed
            await send(again, [1])
            assert (await finish(again)).recognized_frame_count == 2


async def test_indices_are_told_apart_to_the_ends_of_their_range():
    last = (1 << 63) - 1
    indices = [-last - 1, 0, last - 1, last, last]
    messages = [pb.Frame(frame_index=index, pts=-index - 1, data=GOOD) for index in indices]
    async with scripted_server() as running:
        responses = await play(running.target, config().config, messages)
    assert gaps(responses) == [(-last - 1, "INVALID_FRAME"), (last, "INVALID_FRAME")]
    told = [(r.frame_index, r.pts) for r in recognitions(responses)]
    assert told == [(0, -1), (last - 1, -last), (last, -last - 1)]
