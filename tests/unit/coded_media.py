"""Small pictures and clips, coded as clients code them."""

import io
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import cache

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from PIL import Image

from orchestrator.types.frames import EncodedFrame, FrameHeader
from orchestrator.types.pictures import Pixels

WIDTH, HEIGHT = 64, 48
MAX_PIXELS = WIDTH * HEIGHT
COUNT = 24


def picture(width: int = WIDTH, height: int = HEIGHT, shade: int = 0) -> Pixels:
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack((columns * 3, rows * 4, np.full_like(rows, shade)), axis=2)
    return pixels.astype(np.uint8)


def scrolled(width: int = WIDTH, height: int = HEIGHT, shade: int = 0) -> Pixels:
    """Return a view of a textured scene, which moves as the shade rises."""
    scene = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    x, y = shade // 2, shade // 3
    return scene.repeat(8, 0).repeat(8, 1)[y : y + height, x : x + width]


def as_file(image: Image.Image | Pixels, kind: str, **options: object) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)


@cache
def clip(
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: tuple[tuple[str, str], ...] = (("bf", "2"), ("g", "8")),
    size: tuple[int, int] = (WIDTH, HEIGHT),
    count: int = COUNT,
    paint: Callable[[int, int, int], Pixels] = picture,
) -> tuple[EncodedFrame, ...]:
    """Return access units in decoding order; frame i is painted with shade 10 i."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=25, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.thread_count = 1
        for index in range(count):
            image = av.VideoFrame.from_ndarray(paint(*size, 10 * index), format="rgb24")
            image.pts, image.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    file.seek(0)
    kind = "hevc" if codec == "libx265" else "h264"
    with av.open(file) as container:
        annex_b = BitStreamFilterContext(f"{kind}_mp4toannexb,dump_extra", container.streams[0])
        packets = [
            part
            for packet in container.demux(video=0)
            if packet.size
            for part in annex_b.filter(packet)
        ]
    return tuple(
        EncodedFrame(FrameHeader(round(packet.pts / 40), packet.pts), bytes(packet))
        for packet in packets
    )
