"""Sound pictures and video from `tests/data`, and what a network or an attacker makes of them."""

import io
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext
from PIL import Image

from orchestrator.types.frames import EncodedFrame, Encoding, FrameHeader

DATA = Path(__file__).parents[1] / "data"
_SIDES = ((320, 180), (160, 90))
_EDGES = bytes((0, 1, 2, 3, 0x7F, 0x80, 0xD8, 0xDA, 0xFE, 0xFF))


def damaged(units: list[bytes], seed: int, numbers: range) -> Iterator[EncodedFrame]:
    """Damage units in their order; each depends on nothing but seed and number."""
    for number in numbers:
        chance = random.Random(f"{seed}/{number}")
        data = bytearray(units[number % len(units)])
        for _ in range(chance.choice((0, 1, 1, 2, 4, 8))):
            chance.choice(_DAMAGES)(data, chance)
        yield EncodedFrame(FrameHeader(number), bytes(data))


def _flip(data: bytearray, chance: random.Random) -> None:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _overwrite(data: bytearray, chance: random.Random) -> None:
    start = _place(data, chance)
    patch = chance.choice((chance.randbytes(4), bytes([chance.choice(_EDGES)]) * 4))
    data[start : start + len(patch)] = patch


def _cut_out(data: bytearray, chance: random.Random) -> None:
    start = _place(data, chance)
    del data[start : start + chance.randrange(1, 400)]


def _repeat(data: bytearray, chance: random.Random) -> None:
    start = _place(data, chance)
    part = data[start : start + chance.randrange(1, 400)]
    data[start:start] = part * chance.choice((1, 2, 50))


def _move(data: bytearray, chance: random.Random) -> None:
    start, target = _place(data, chance), _place(data, chance)
    data[target:target] = data[start : start + chance.randrange(1, 400)]


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[_place(data, chance) :]


def _place(data: bytearray, chance: random.Random) -> int:
    """Choose a position; as often in the header as in all the rest."""
    return chance.randrange(1 + (min(len(data), 700) if chance.random() < 0.5 else len(data)))


_DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _flip, _overwrite, _overwrite, _cut_out, _repeat, _move, _truncate,
)  # fmt: skip


def originals(encoding: Encoding) -> list[bytes]:
    """Return sound units: frames of the clip in `tests/data`, coded in several ways."""
    if encoding is Encoding.H264:
        groups, keys = {"bf": "2", "g": "12"}, {"g": "1"}
        return [*_coded("libx264", groups), *_coded("libx264", keys), *_clip_units(24)]
    if encoding is Encoding.HEVC:
        return _coded("libx265", {"x265-params": "log-level=none:keyint=12:bframes=3"})
    frame = Image.open(DATA / "frame.jpg")
    exif = Image.Exif()
    exif[0x0112] = 8
    ways: dict[Encoding, list[tuple[str, dict[str, object]]]] = {
        Encoding.JPEG: [
            ("RGB", {"quality": 85}), ("RGB", {"progressive": True}), ("L", {}), ("CMYK", {}),
            ("RGB", {"exif": exif, "subsampling": 0}),
        ],
        Encoding.PNG: [
            ("RGB", {}), ("RGBA", {}), ("P", {"transparency": 3}), ("1", {}), ("LA", {}),
        ],
    }  # fmt: skip
    return [
        _as_file(frame.resize(size).convert(mode), encoding.name, options)
        for size in _SIDES
        for mode, options in ways[encoding]
    ]


def _as_file(image: Image.Image, kind: str, options: dict[str, object]) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _coded(codec: str, options: dict[str, str]) -> list[bytes]:
    """Encode the first second of the clip, in small."""
    file, (width, height) = io.BytesIO(), _SIDES[0]
    with av.open(DATA / "demo_01.mp4") as clip, av.open(file, "w", format="matroska") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, frame in zip(range(25), clip.decode(video=0), strict=False):
            small = frame.reformat(width, height, format="yuv420p")
            small.pts, small.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(small))
        container.mux(stream.encode(None))
    file.seek(0)
    return _units(file, "hevc" if codec == "libx265" else "h264")


def _clip_units(count: int) -> list[bytes]:
    return _units(DATA / "demo_01.mp4", "h264")[:count]


def _units(file: Path | io.BytesIO, kind: str) -> list[bytes]:
    with av.open(file) as container:
        annex_b = BitStreamFilterContext(f"{kind}_mp4toannexb,dump_extra", container.streams[0])
        return [
            bytes(part)
            for packet in container.demux(video=0)
            if packet.size
            for part in annex_b.filter(packet)
        ]
