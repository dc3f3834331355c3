"""Pictures made to harm: each costs its frame, little time and little memory."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from orchestrator.types.frames import Encoding
from orchestrator.types.pictures import Pixels
from tests.unit.coded_media import HEIGHT, WIDTH, as_file, picture, png_chunk, png_header
from tests.unit.guarded_decoding import PICTURE, detail, one, peak_bytes, pixels


def with_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """Put a metadata segment behind the start of a JPEG file."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + jpeg[2:]


def with_chunk(png: bytes, kind: bytes, payload: bytes) -> bytes:
    """Put a chunk behind the header of a PNG file."""
    return png[:33] + png_chunk(kind, payload) + png[33:]


JPEG = as_file(picture(), "JPEG", quality=95)
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
    outcome = one(guarded(Encoding.JPEG), with_segment(JPEG, 0xE1, segment))
    assert np.abs(pixels(outcome).astype(int) - picture()).mean() < 4


@pytest.mark.parametrize("payload", [b"", b"ICC_PROFILE\x00\x09\x01junk", b"\x00" * 65_000])
def test_colour_profiles_that_make_no_sense_cost_no_picture(guarded, payload):
    outcome = one(guarded(Encoding.JPEG), with_segment(JPEG, 0xE2, payload))
    assert np.abs(pixels(outcome).astype(int) - picture()).mean() < 4


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
    assert np.array_equal(pixels(one(guarded(Encoding.JPEG), data)), expected)


@pytest.mark.parametrize("size", [(65500, 65500), (1, 65500), (513, 512)])
def test_a_huge_jpeg_is_refused_by_its_header(guarded, size):
    header = struct.pack(">BHHB", 8, size[1], size[0], 3) + bytes.fromhex("012200 021101 031101")
    data = b"\xff\xd8" + struct.pack(">BBH", 0xFF, 0xC0, 17) + header + JPEG[-600:]
    source = guarded(Encoding.JPEG)
    one(source, JPEG)
    before = peak_bytes(source)
    assert detail(one(source, data))
    assert peak_bytes(source) - before < 4 << 20


def test_a_jpeg_of_many_scans_costs_bounded_cpu_time(guarded):
    noise = np.random.default_rng(0).integers(0, 64, (512, 512, 3), dtype=np.uint8)
    data = as_file(noise, "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    source = guarded(Encoding.JPEG, cpu_limit_s=0.02)  # of 54 scans it takes four times as much
    reasons = {detail(one(source, data[:-2] + scan * count + data[-2:])) for count in (54, 70)}
    assert reasons == {
        "JPEG data ended its decoder: it needs more than 0.02 s of CPU time",
        "JPEG has more than 64 scans",
    }


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt", b"iTXt"])
def test_a_compressed_bomb_in_a_chunk_costs_little_memory(guarded, kind):
    prefix = {b"iTXt": b"Comment\x00\x01\x00\x00\x00"}.get(kind, b"name\x00\x00")
    source = guarded(Encoding.PNG)
    one(source)
    before = peak_bytes(source)
    one(source, with_chunk(PICTURE, kind, prefix + ZEROS))
    assert peak_bytes(source) - before < 24 << 20


def test_pixels_without_end_cost_little_memory(guarded):
    source = guarded(Encoding.PNG)
    one(source)
    before = peak_bytes(source)
    data = png_header(WIDTH, HEIGHT) + png_chunk(b"IDAT", ZEROS) + png_chunk(b"IEND", b"")
    assert not pixels(one(source, data)).any()
    assert peak_bytes(source) - before < 24 << 20


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
    assert np.array_equal(pixels(one(guarded(Encoding.PNG), adam7(picture()))), picture())


@pytest.mark.parametrize("depth_and_colour", [(16, 2), (16, 6), (16, 4), (4, 3), (1, 0), (3, 2)])
def test_png_headers_that_do_not_fit_their_pixels_never_harm(guarded, depth_and_colour):
    header = struct.pack(">IIBBBBB", 400, 400, *depth_and_colour, 0, 0, 0)
    data = PICTURE[:8] + png_chunk(b"IHDR", header) + PICTURE[33:]
    source = guarded(Encoding.PNG)
    assert detail(one(source, data))
    assert np.array_equal(pixels(one(source)), picture())


def test_a_picture_that_needs_more_memory_than_allowed_is_lost(guarded):
    source = guarded(Encoding.PNG, max_pixels=1 << 26, memory_bytes=64 << 20)
    rows = zlib.compress(bytes((3 * 6000 + 1) * 6000), 1)
    data = png_header(6000, 6000) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    assert detail(one(source, data))
    assert np.array_equal(pixels(one(source)), picture())
