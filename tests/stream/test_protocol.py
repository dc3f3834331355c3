"""The API's promises over a real channel: refusals, gaps, credits, health, vanished clients."""

import asyncio
import io
import urllib.request

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.client import RecognitionClient
from orchestrator.server import SERVICE
from tests.stream.streams import (
    answered,
    coded_stream,
    encode,
    gaps,
    kinds,
    picture_stream,
    pictures,
    play,
    recognitions,
    send_raw,
    stored_stream,
    until,
)

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

CONFIG = pb.RecognizeStreamRequest(config=pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG))
FRAME = pb.RecognizeStreamRequest(frame=pb.Frame(frame_index=0, data=b""))


async def refusal(target: str, *requests: pb.RecognizeStreamRequest) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send_raw(target, requests)
    return caught.value.code().name, str(caught.value.details())


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "config:"),
        ([FRAME], "config:"),
        ([pb.RecognizeStreamRequest()], "config:"),
        ([CONFIG, CONFIG], "frame:"),
        ([CONFIG, FRAME, pb.RecognizeStreamRequest()], "frame:"),
        ([pb.RecognizeStreamRequest(config=pb.StreamConfig())], "config.encoding:"),
        ([pb.RecognizeStreamRequest(config=pb.StreamConfig(encoding=42))], "config.encoding:"),
    ],
)
async def test_a_stream_that_breaks_the_protocol_is_refused_naming_the_field(
    served, requests, field
):
    code, details = await refusal(served.target, *requests)
    assert code == "INVALID_ARGUMENT"
    assert details.startswith(field)
    assert "expected" in details


async def test_a_stream_without_frames_has_an_empty_summary(served):
    responses = await send_raw(served.target, [CONFIG])
    assert kinds(responses) == ["started", "summary"]
    assert responses[-1].summary.received_frame_count == 0


def saved(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def image(clip) -> np.ndarray:
    return pictures(clip, 1)[0]


async def test_bad_pictures_become_gaps_and_the_stream_goes_on(served, image):
    good = encode(image, pb.FRAME_ENCODING_JPEG)
    bad = {
        1: (b"", "DECODE_ERROR"),
        2: (good[: len(good) // 3], "DECODE_ERROR"),
        3: (encode(image, pb.FRAME_ENCODING_PNG), "DECODE_ERROR"),
        4: (bytes(33 << 20), "DECODE_ERROR"),
        5: (saved(Image.new("L", (40_000, 900)), "JPEG", quality=1), "DECODE_ERROR"),
        6: (encode(image[:360], pb.FRAME_ENCODING_JPEG), "RESOLUTION_CHANGED"),
    }
    config = pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG)
    messages = [pb.Frame(frame_index=i, data=bad.get(i, (good,))[0]) for i in range(8)]
    responses = await play(served.target, config, messages)
    assert gaps(responses) == [(i, reason) for i, (_, reason) in bad.items()]
    assert answered(responses) == list(range(8))
    details = [r.gap.detail for r in responses if r.HasField("gap")]
    assert all(details)
    people = [len(r.players) for r in recognitions(responses)]
    assert len(people) == 2
    assert min(people) > 5


@pytest.mark.parametrize("mode", ["CMYK", "L", "RGBA", "I;16", "P"])
async def test_unusual_pixel_formats_are_converted(served, image, mode):
    picture = Image.fromarray(image)
    encoding = pb.FRAME_ENCODING_JPEG if mode in {"CMYK", "L"} else pb.FRAME_ENCODING_PNG
    if mode == "I;16":
        grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        data = saved(Image.fromarray(grey), "PNG")
    else:
        data = saved(picture.convert(mode), pb.FrameEncoding.Name(encoding).split("_")[-1])
    responses = await play(
        served.target, pb.StreamConfig(encoding=encoding), [pb.Frame(frame_index=0, data=data)]
    )
    assert gaps(responses) == []
    assert len(recognitions(responses)) == 1


async def test_zero_size_raw_pictures_are_refused(served):
    request = pb.RecognizeStreamRequest(config=pb.StreamConfig(encoding=pb.FRAME_ENCODING_RGB24))
    code, details = await refusal(served.target, request)
    assert (code, details.split(":")[0]) == ("INVALID_ARGUMENT", "config.width_px")


async def test_raw_pictures_of_the_wrong_length_become_gaps(served, image):
    config, messages = picture_stream([image, image, image], pb.FRAME_ENCODING_RGB24)
    messages[1].data = messages[1].data[:-3]
    responses = await play(served.target, config, messages)
    assert gaps(responses) == [(1, "DECODE_ERROR")]
    assert len(recognitions(responses)) == 2


async def test_video_without_its_key_frame_waits_for_the_next(served, clip):
    images = pictures(clip, 6)
    config, first = coded_stream(images[:3], "h264")
    _, second = coded_stream(images[3:], "h264")
    for message in second:
        message.frame_index += 3
        message.pts += 3
    responses = await play(served.target, config, [*first[1:], *second])
    assert sorted(index for index, _ in gaps(responses)) == [1, 2]
    assert {reason for _, reason in gaps(responses)} == {"DECODE_ERROR"}
    assert [r.frame_index for r in recognitions(responses)] == [3, 4, 5]


async def test_missing_and_backward_pts_are_harmless_for_pictures(served, image):
    config, messages = picture_stream([image] * 3, pb.FRAME_ENCODING_JPEG)
    messages[1].pts, messages[2].pts = 50, 10
    responses = await play(served.target, config, messages)
    assert [r.HasField("pts") for r in recognitions(responses)] == [False, True, True]
    assert [r.pts for r in recognitions(responses)][1:] == [50, 10]


async def test_repeated_frame_indices_are_gaps(served, image):
    config, messages = picture_stream([image] * 3, pb.FRAME_ENCODING_JPEG)
    messages[1].frame_index = 0
    responses = await play(served.target, config, messages)
    assert gaps(responses) == [(0, "INVALID_FRAME")]
    assert [r.frame_index for r in recognitions(responses)] == [0, 2]


async def test_a_bad_single_image_is_refused(served):
    async with RecognitionClient(served.target) as client:
        for request, code in (
            (pb.RecognizeFrameRequest(), "INVALID_ARGUMENT"),
            (
                pb.RecognizeFrameRequest(encoding=pb.FRAME_ENCODING_JPEG, data=b"no"),
                "INVALID_ARGUMENT",
            ),
            (pb.RecognizeFrameRequest(encoding=pb.FRAME_ENCODING_H264), "INVALID_ARGUMENT"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.recognize_frame(request)
            assert caught.value.code().name == code


async def test_health_and_reflection_are_on(served):
    async with grpc.aio.insecure_channel(served.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        async for reply in stub.ServerReflectionInfo(iter([request])):
            assert SERVICE in {s.name for s in reply.list_services_response.service}


async def open_stream(channel):
    """Open a stream and wait until it is accepted; None if it is refused."""
    call = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream()
    await call.write(CONFIG)
    response = await call.read()
    return call if response is not grpc.aio.EOF else None


async def test_one_stream_too_many_is_refused_and_fits_later(served):
    async with grpc.aio.insecure_channel(served.target) as channel:
        calls = [await open_stream(channel) for _ in range(8)]
        code, details = await refusal(served.target, CONFIG)
        assert code == "RESOURCE_EXHAUSTED"
        assert "8" in details
        for call in calls:
            await call.done_writing()
        for call in calls:
            assert (await call.read()).WhichOneof("response") == "summary"
            assert await call.read() is grpc.aio.EOF
    assert kinds(await send_raw(served.target, [CONFIG])) == ["started", "summary"]


def gauge(served, name: str) -> float:
    url = f"http://{served.cluster.metrics_endpoints['sam2_tracker']}/metrics"
    lines = urllib.request.urlopen(url).read().decode().splitlines()
    values = [line.rsplit(" ", 1)[1] for line in lines if line.startswith(name)]
    return float(values[0])


async def test_a_vanished_client_frees_its_tracker_slot_long_before_its_time_to_live(served, clip):
    async def active():
        return await asyncio.to_thread(gauge, served, "sam2_active_sequences")

    assert await until(lambda: _is(active(), 0), seconds=2)
    config, messages = stored_stream(clip, 8)
    channel = grpc.aio.insecure_channel(served.target)
    call = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream()
    await call.write(pb.RecognizeStreamRequest(config=config))
    for message in messages:
        await call.write(pb.RecognizeStreamRequest(frame=message))
    while not (await call.read()).HasField("recognition"):
        pass
    assert await active() == 1
    await channel.close()
    assert await until(lambda: _is(active(), 0), seconds=10)  # of 60; mostly well under one


async def _is(value, expected) -> bool:
    return (await value) == expected
