"""Pictures and video made to harm: each costs its frame, little time and little memory."""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.decode_guard.nursery import Nursery
from orchestrator.decode_guard.source import GuardedSource
from orchestrator.settings import DecodeSettings
from orchestrator.types.frames import EncodedFrame, Encoding, Frame, FrameHeader, LostFrame
from orchestrator.types.pictures import Pixels
from tests.unit.coded_media import (
    COUNT,
    HEIGHT,
    WIDTH,
    as_file,
    clip,
    picture,
    png_chunk,
    png_header,
)

MAX_PIXELS = 512 * 512
MEMORY = 96 << 20
START = b"\x00\x00\x01"


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with closing(Nursery()) as made:
        yield made


class Guarded:
    """A guarded source, and the most memory that its worker ever held."""

    def __init__(self, nursery: Nursery, encoding: Encoding, **limits: object) -> None:
        settings = DecodeSettings(**{"memory_bytes": MEMORY, **limits})
        self.source = GuardedSource(
            encoding, max_pixels=MAX_PIXELS, settings=settings, nursery=nursery
        )

    def decode(self, *data: bytes) -> list[Frame | LostFrame]:
        units = [EncodedFrame(FrameHeader(index), part) for index, part in enumerate(data)]
        return [outcome for unit in units for outcome in self.source.decode(unit)]

    def one(self, data: bytes) -> Frame | LostFrame:
        (outcome,) = self.decode(data)
        return outcome

    def peak_bytes(self) -> int:
        """Peak of the worker's own memory so far."""
        status = Path("/proc", str(self.source.worker_pid), "status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) << 10


@pytest.fixture
def guarded(nursery):
    made = []

    def make(encoding: Encoding, **limits: object) -> Guarded:
        made.append(Guarded(nursery, encoding, **limits))
        return made[-1]

    yield make
    for one in made:
        one.source.close()


def detail(outcome: Frame | LostFrame) -> str:
    assert isinstance(outcome, LostFrame)
    return outcome.detail


def pixels(outcome: Frame | LostFrame) -> Pixels:
    assert isinstance(outcome, Frame), outcome.detail
    return outcome.pixels


# ------------------------------------------------------------------------------------- pictures


def with_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """Put a metadata segment behind the start of a JPEG file."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + jpeg[2:]


def with_chunk(png: bytes, kind: bytes, payload: bytes) -> bytes:
    """Put a chunk behind the header of a PNG file."""
    return png[:33] + png_chunk(kind, payload) + png[33:]


JPEG = as_file(picture(), "JPEG", quality=95)
PNG = as_file(picture(), "PNG")
ZEROS = zlib.compress(bytes(200 << 20), 9)
"""200 MB in 200 kB."""


@pytest.mark.parametrize(
    "segment",
    [
        b"Exif\x00\x00garbage",
        b"Exif\x00\x00MM\x00\x2a\xff\xff\xff\xff",
        b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\xff\xff" + b"\xff" * 400,
        b"Exif\x00\x00II\x2a\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\xc8\x00",
        b"http://ns.adobe.com/xap/1.0/\x00<tiff:Orientation>9</tiff:Orientation>",
        b"Exif\x00\x00" + bytes(60_000),
    ],
)
def test_metadata_that_makes_no_sense_costs_no_picture(guarded, segment):
    outcome = guarded(Encoding.JPEG).one(with_segment(JPEG, 0xE1, segment))
    assert np.abs(pixels(outcome).astype(int) - picture()).mean() < 4


@pytest.mark.parametrize("payload", [b"", b"ICC_PROFILE\x00\x09\x01junk", b"\x00" * 65_000])
def test_colour_profiles_that_make_no_sense_cost_no_picture(guarded, payload):
    assert pixels(guarded(Encoding.JPEG).one(with_segment(JPEG, 0xE2, payload))).any()


@pytest.mark.parametrize("quality", [20, 90])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_kind_of_jpeg_decodes_as_pillow_does(
    guarded, mode, progressive, subsampling, quality
):
    image = Image.fromarray(picture(99, 61, shade=80)).convert(mode)
    options = {"progressive": progressive, "quality": quality}
    if mode != "L":
        options["subsampling"] = subsampling
    data = as_file(image, "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(pixels(guarded(Encoding.JPEG).one(data)), expected)


@pytest.mark.parametrize("size", [(65500, 65500), (1, 65500), (513, 512)])
def test_a_huge_jpeg_is_refused_by_its_header(guarded, size):
    header = struct.pack(">BHHB", 8, size[1], size[0], 3) + bytes.fromhex("012200 021101 031101")
    data = b"\xff\xd8" + struct.pack(">BBH", 0xFF, 0xC0, 17) + header + JPEG[-600:]
    source = guarded(Encoding.JPEG)
    source.one(JPEG)
    before = source.peak_bytes()
    assert detail(source.one(data))
    assert source.peak_bytes() - before < 4 << 20


def test_a_jpeg_of_many_scans_costs_bounded_cpu_time(guarded):
    data = as_file(picture(512, 512), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    source = guarded(Encoding.JPEG, cpu_limit_s=0.02)
    reasons = {detail(source.one(data[:-2] + scan * count + data[-2:])) for count in (54, 1000)}
    assert reasons == {
        "JPEG data ended its decoder: it needs more than 0.02 s of CPU time",
        "JPEG has more than 64 scans",
    }


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt"])
def test_a_compressed_bomb_in_a_chunk_costs_little_memory(guarded, kind):
    prefix = {b"iTXt": b"Comment\x00\x01\x00\x00\x00"}.get(kind, b"name\x00\x00")
    source = guarded(Encoding.PNG)
    source.one(PNG)
    before = source.peak_bytes()
    source.one(with_chunk(PNG, kind, prefix + ZEROS))
    assert source.peak_bytes() - before < 24 << 20


def test_pixels_without_end_cost_little_memory(guarded):
    source = guarded(Encoding.PNG)
    source.one(PNG)
    before = source.peak_bytes()
    data = png_header(WIDTH, HEIGHT) + png_chunk(b"IDAT", ZEROS) + png_chunk(b"IEND", b"")
    assert not pixels(source.one(data)).any()
    assert source.peak_bytes() - before < 24 << 20


def adam7(image: Pixels) -> bytes:
    """Write an interlaced PNG. Source: PNG specification, 8.2 (interlace methods)."""
    height, width = image.shape[:2]
    steps = [
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]  # fmt: skip
    rows = [row for y, x, dy, dx in steps for row in image[y::dy, x::dx] if row.size]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b"".join(b"\x00" + row.tobytes() for row in rows)))
        + png_chunk(b"IEND", b"")
    )


def test_an_interlaced_png_comes_back_exactly(guarded):
    assert np.array_equal(pixels(guarded(Encoding.PNG).one(adam7(picture()))), picture())


@pytest.mark.parametrize("depth_and_colour", [(16, 2), (16, 6), (16, 4), (4, 3), (1, 0), (3, 2)])
def test_png_headers_that_do_not_fit_their_pixels_never_harm(guarded, depth_and_colour):
    header = struct.pack(">IIBBBBB", 400, 400, *depth_and_colour, 0, 0, 0)
    data = PNG[:8] + png_chunk(b"IHDR", header) + PNG[33:]
    source = guarded(Encoding.PNG)
    assert detail(source.one(data))
    assert pixels(source.one(PNG)).any()


def test_a_picture_that_needs_more_memory_than_allowed_is_lost(nursery):
    settings = DecodeSettings(memory_bytes=64 << 20)
    with closing(
        GuardedSource(Encoding.PNG, max_pixels=1 << 26, settings=settings, nursery=nursery)
    ) as source:
        rows = zlib.compress(bytes((3 * 6000 + 1) * 6000), 1)
        data = png_header(6000, 6000) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
        outcomes = [
            *source.decode(EncodedFrame(FrameHeader(0), data)),
            *source.decode(EncodedFrame(FrameHeader(1), PNG)),
        ]
    assert detail(outcomes[0])
    assert np.array_equal(pixels(outcomes[1]), picture())


# ---------------------------------------------------------------------------------------- video


def bits(*fields: tuple[int, int] | int) -> bytes:
    """Write fields `(value, width)` and Exp-Golomb numbers, then the stop bit."""
    text = ""
    for field in fields:
        if isinstance(field, tuple):
            text += f"{field[0]:0{field[1]}b}"
        else:
            code = f"{field + 1:b}"
            text += "0" * (len(code) - 1) + code
    text += "1"
    text += "0" * (-len(text) % 8)
    raw = int(text, 2).to_bytes(len(text) // 8, "big")
    escaped, zeros = bytearray(), 0
    for byte in raw:
        if zeros >= 2 and byte <= 3:
            escaped.append(3)
            zeros = 0
        escaped.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(escaped)


def h264_sps(*, columns: int, rows: int, references: int = 1) -> bytes:
    """Write a sequence parameter set, sizes in macroblocks. Source: ITU-T H.264 7.3.2.1.1."""
    return START + bits(
        (0x67, 8), (66, 8), (0xC0, 8), (51, 8), 0, 0, 2, references, (0, 1), columns - 1, rows - 1,
        (1, 1), (1, 1), (0, 1), (0, 1),
    )  # fmt: skip


def hevc_sps(*, width: int, height: int, pictures: int = 4) -> bytes:
    """Write a sequence parameter set. Source: ITU-T H.265 7.3.2.2.1."""
    profile = ((1, 8), (0x60000000, 32), (0x900000000000, 48), (186, 8))
    return START + bits(
        (0x4201, 16), (0, 4), (0, 3), (1, 1), *profile, 0, 1, width, height, (0, 1), 0, 0, 4,
        (1, 1), pictures, 0, 0, 0, 3, 0, 3, 0, 0, (0, 1), (0, 1), (0, 1), (0, 1), 0, (0, 1),
        (0, 1), (0, 1), (0, 1), (0, 1),
    )  # fmt: skip


def without_kind(unit: bytes, encoding: Encoding, kind: int) -> bytes:
    """Drop the NAL units of one type."""
    nals = [nal.strip(b"\x00") for nal in unit.split(START)[1:]]
    kind_of = (lambda n: n[0] & 31) if encoding is Encoding.H264 else (lambda n: n[0] >> 1 & 63)
    return b"".join(START + nal for nal in nals if nal and kind_of(nal) != kind)


H264 = clip(options=(("tune", "zerolatency"), ("g", "8")))
HEVC = clip("libx265", options=(("x265-params", "log-level=none:keyint=8:bframes=0"),))


@pytest.mark.parametrize("size", [(1000, 1000), (60_000, 60_000), (33, 32), (1, 65_536)])
def test_huge_h264_is_refused_before_its_pictures_exist(guarded, size):
    source = guarded(Encoding.H264)
    source.decode(START + b"\x09\x10")
    before = source.peak_bytes()
    sps = h264_sps(columns=size[0], rows=size[1])
    outcomes = source.decode(sps + without_kind(H264[0].data, Encoding.H264, 7))
    outcomes += source.source.flush()
    assert [detail(outcome) for outcome in outcomes]
    # FFmpeg makes its tables of 16x16 blocks before it looks at the limit: 80 of 384 MB.
    assert source.peak_bytes() - before < 88 << 20


@pytest.mark.parametrize("size", [(16_384, 16_384), (65_528, 65_528), (8, 1 << 20), (0, 0)])
def test_huge_hevc_is_refused_before_its_pictures_exist(guarded, size):
    source = guarded(Encoding.HEVC)
    source.decode(HEVC[0].data)
    before = source.peak_bytes()
    vps = HEVC[0].data.split(START)[1].strip(b"\x00")
    sps = hevc_sps(width=size[0], height=size[1])
    rest = without_kind(without_kind(HEVC[0].data, Encoding.HEVC, 33), Encoding.HEVC, 32)
    outcomes = source.decode(START + vps + sps + rest) + source.source.flush()
    assert [detail(outcome) for outcome in outcomes]
    assert source.peak_bytes() - before < 8 << 20


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_real_bomb_costs_no_picture(guarded, codec):
    is_hevc = codec == "libx265"
    options = (("x265-params", "log-level=none"),) if is_hevc else (("tune", "zerolatency"),)
    bomb = clip(codec, options=options, size=(2048, 2048), count=1)[0].data
    encoding = Encoding.HEVC if is_hevc else Encoding.H264
    source = guarded(encoding)
    source.decode((HEVC if is_hevc else H264)[0].data)
    before = source.peak_bytes()
    outcomes = source.decode(bomb) + source.source.flush()
    assert "far larger" in detail(outcomes[-1])
    assert source.peak_bytes() - before < 5 << 20  # its planes would be 6 MB


@pytest.mark.parametrize("references", [16, 33, 4000])
def test_absurd_numbers_of_references_cost_bounded_memory(guarded, references):
    source = guarded(Encoding.H264)
    sps = h264_sps(columns=WIDTH // 16, rows=HEIGHT // 16, references=references)
    units = [without_kind(unit.data, Encoding.H264, 7) for unit in H264]
    outcomes = source.decode(sps + units[0], *units[1:]) + source.source.flush()
    assert len(outcomes) == COUNT
    assert source.source.worker_pid is not None


def test_a_size_that_flips_to_and_fro_loses_nothing_but_time(guarded):
    small = clip(options=(("tune", "zerolatency"), ("g", "8")), size=(WIDTH - 16, HEIGHT))
    source = guarded(Encoding.H264)
    data = [(small if group % 2 else H264)[i].data for group in range(20) for i in range(8)]
    outcomes = source.decode(*data) + source.source.flush()
    assert len(outcomes) == len(data)
    assert {pixels(outcome).shape[1] for outcome in outcomes} == {WIDTH, WIDTH - 16}


def test_thousands_of_slices_cost_bounded_cpu_time(guarded):
    slices = START + H264[0].data.split(START)[-1]
    source = guarded(Encoding.H264, cpu_limit_s=0.5)
    outcomes = source.decode(H264[0].data + slices * 20_000, H264[8].data)
    assert len(outcomes + source.source.flush()) == 2


def test_units_of_start_codes_alone_are_lost_at_once(guarded):
    source = guarded(Encoding.HEVC)
    outcomes = source.decode(START * 300_000) + source.source.flush()
    assert detail(outcomes[0])


def test_bits_that_flip_in_every_unit_never_end_the_decoder(guarded):
    generator = np.random.default_rng(7)
    for encoding, units in ((Encoding.H264, H264), (Encoding.HEVC, HEVC)):
        source = guarded(encoding)
        damaged = []
        for unit in units * 8:
            data = bytearray(unit.data)
            for position in generator.integers(4, len(data), 3):
                data[position] ^= 1 << int(generator.integers(8))
            damaged.append(replace(unit, data=bytes(data)))
        outcomes = source.decode(*(unit.data for unit in damaged)) + source.source.flush()
        assert len(outcomes) == len(damaged)
        assert "ended" not in "".join(o.detail for o in outcomes if isinstance(o, LostFrame))
