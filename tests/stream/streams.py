"""Playing streams against a real orchestrator, and what tests look at in the answers."""

import asyncio
import io
import itertools
from collections.abc import AsyncIterator, Iterable
from fractions import Fraction
from pathlib import Path

import av
import grpc
import numpy as np
from PIL import Image
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.cli.recognize import frame_message, stream_config
from orchestrator.cli.video import access_units, frames, probe
from orchestrator.client import RecognitionClient


def stored_stream(path: Path, count: int) -> tuple[pb.StreamConfig, list[pb.Frame]]:
    """The first access units of a file, as stored."""
    video = probe(path)
    units = itertools.islice(access_units(video), count)
    return stream_config(video, is_live=False), [frame_message(unit) for unit in units]


def pictures(path: Path, count: int) -> list[np.ndarray]:
    return [pixels for _, _, pixels in itertools.islice(frames(probe(path)), count)]


def picture_stream(
    images: Iterable[np.ndarray], encoding: "pb.FrameEncoding.ValueType"
) -> tuple[pb.StreamConfig, list[pb.Frame]]:
    images = list(images)
    height, width = images[0].shape[:2]
    config = pb.StreamConfig(
        stream_name="pictures",
        encoding=encoding,
        width_px=width,
        height_px=height,
        result_options=pb.ResultOptions(include_masks=True, include_stage_timings=True),
    )
    data = [encode(image, encoding) for image in images]
    return config, [pb.Frame(frame_index=i, data=d) for i, d in enumerate(data)]


def encode(image: np.ndarray, encoding: "pb.FrameEncoding.ValueType") -> bytes:
    if encoding == pb.FRAME_ENCODING_RGB24:
        return image.tobytes()
    out = io.BytesIO()
    name = {pb.FRAME_ENCODING_JPEG: "JPEG", pb.FRAME_ENCODING_PNG: "PNG"}[encoding]
    options = {"quality": 95, "subsampling": 0} if name == "JPEG" else {"compress_level": 1}
    Image.fromarray(image).save(out, name, **options)
    return out.getvalue()


def coded_stream(
    images: Iterable[np.ndarray], codec: str
) -> tuple[pb.StreamConfig, list[pb.Frame]]:
    """Encode pictures as H.264 or HEVC with B-frames; units in decoding order, Annex B."""
    images = list(images)
    height, width = images[0].shape[:2]
    encoder = av.CodecContext.create({"h264": "libx264", "hevc": "libx265"}[codec], "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.options = {"crf": "16", "preset": "ultrafast", "bf": "2"}
    if codec == "hevc":
        encoder.options |= {"x265-params": "log-level=none:repeat-headers=1"}
    packets = []
    for index, image in enumerate(images):
        picture = av.VideoFrame.from_ndarray(image, format="rgb24")
        picture.pts = index
        packets += encoder.encode(picture)
    packets += encoder.encode(None)
    config = pb.StreamConfig(
        stream_name=codec, encoding=pb.FrameEncoding.Value(f"FRAME_ENCODING_{codec.upper()}")
    )
    return config, [pb.Frame(frame_index=p.pts, pts=p.pts, data=bytes(p)) for p in packets]


async def play(
    target: str, config: pb.StreamConfig, messages: Iterable[pb.Frame]
) -> list[pb.RecognizeStreamResponse]:
    """Send a whole stream through the client; return all responses but credits."""

    async def source() -> AsyncIterator[pb.Frame]:
        for message in messages:
            yield message

    async with RecognitionClient(target, max_reconnects=0) as client:
        return [r async for r in client.recognize_stream(config, source())]


async def send_raw(
    target: str, requests: Iterable[pb.RecognizeStreamRequest]
) -> list[pb.RecognizeStreamResponse]:
    """Send requests as they are, without the client's manners."""
    async with grpc.aio.insecure_channel(target) as channel:
        call = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream(iter(requests))
        return [response async for response in call]


def kinds(responses: Iterable[pb.RecognizeStreamResponse]) -> list[str]:
    return [str(response.WhichOneof("response")) for response in responses]


def recognitions(responses: Iterable[pb.RecognizeStreamResponse]) -> list[pb.FrameRecognition]:
    return [r.recognition for r in responses if r.HasField("recognition")]


def gaps(responses: Iterable[pb.RecognizeStreamResponse]) -> list[tuple[int, str]]:
    return [
        (r.gap.first_frame_index, pb.GapReason.Name(r.gap.reason).removeprefix("GAP_REASON_"))
        for r in responses
        if r.HasField("gap")
    ]


def answered(responses: Iterable[pb.RecognizeStreamResponse]) -> list[int]:
    """Frame indices in the order of their answers."""
    order = []
    for response in responses:
        if response.HasField("recognition"):
            order.append(response.recognition.frame_index)
        if response.HasField("gap"):
            order += range(response.gap.first_frame_index, response.gap.last_frame_index + 1)
    return order


def boxes(recognition: pb.FrameRecognition) -> np.ndarray:
    return np.array(
        [(p.box.x_min, p.box.y_min, p.box.x_max, p.box.y_max) for p in recognition.players],
        np.float32,
    ).reshape(-1, 4)


async def until(condition, *, seconds: float) -> bool:
    """Wait until an async condition holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline:
        if await condition():
            return True
        await asyncio.sleep(0.05)
    return False
