"""Pictures, coded or raw, become frames; what is none, or another, is lost alone."""

import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from orchestrator.decoding import open_decoder
from orchestrator.types.frames import (
    EncodedFrame,
    Encoding,
    Frame,
    FrameHeader,
    GapReason,
    LostFrame,
)
from orchestrator.types.pictures import Pixels
from orchestrator.types.streams import StreamConfig
from tests.unit.coded_media import (
    HEIGHT,
    MAX_PIXELS,
    WIDTH,
    as_file,
    picture,
    png_chunk,
    png_header,
)


def decode_one(data: bytes, encoding: Encoding, **config: object) -> Frame | LostFrame:
    decoder = open_decoder(StreamConfig("test", encoding, **config), max_pixels=MAX_PIXELS)
    (outcome,) = decoder.decode(EncodedFrame(FrameHeader(7), data))
    assert outcome.header == FrameHeader(7)
    assert decoder.flush() == []
    decoder.close()
    return outcome


def decoded(data: bytes, encoding: Encoding, **config: object) -> Pixels:
    outcome = decode_one(data, encoding, **config)
    assert isinstance(outcome, Frame), outcome.detail
    assert outcome.pixels.dtype == np.uint8
    assert outcome.pixels.flags.c_contiguous
    return outcome.pixels


def lost_detail(data: bytes, encoding: Encoding, **config: object) -> str:
    outcome = decode_one(data, encoding, **config)
    assert isinstance(outcome, LostFrame)
    assert outcome.reason is GapReason.DECODE_ERROR
    return outcome.detail


def test_png_comes_back_exactly():
    assert np.array_equal(decoded(as_file(picture(), "PNG"), Encoding.PNG), picture())


def test_jpeg_comes_back_as_rgb():
    pixels = decoded(as_file(picture(), "JPEG", quality=95, subsampling=0), Encoding.JPEG)
    assert np.abs(pixels.astype(int) - picture()).max() < 16


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "1"])
def test_other_png_modes_become_rgb(mode):
    image = Image.fromarray(picture()).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decoded(as_file(image, "PNG"), Encoding.PNG), expected)


def test_palette_with_transparency_becomes_rgb():
    image = Image.fromarray(picture()).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    data = as_file(image, "PNG", transparency=bytes(16))
    assert np.array_equal(decoded(data, Encoding.PNG), expected)


def test_16_bit_grey_is_scaled_to_8():
    grey = np.linspace(0, 65535, MAX_PIXELS).reshape(HEIGHT, WIDTH).astype(np.uint16)
    pixels = decoded(cv2.imencode(".png", grey)[1].tobytes(), Encoding.PNG)
    assert np.array_equal(pixels[:, :, 1], grey >> 8)


def test_16_bit_colour_is_scaled_to_8():
    colour = picture().astype(np.uint16) * 257
    data = cv2.imencode(".png", colour[:, :, ::-1])[1].tobytes()
    assert np.array_equal(decoded(data, Encoding.PNG), picture())


def test_cmyk_jpeg_becomes_rgb():
    image = Image.fromarray(picture()).convert("CMYK")
    pixels = decoded(as_file(image, "JPEG", quality=95), Encoding.JPEG)
    assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).mean() < 4


def test_grey_jpeg_becomes_rgb():
    image = Image.fromarray(picture()).convert("L")
    pixels = decoded(as_file(image, "JPEG", quality=95), Encoding.JPEG)
    assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB"))).mean() < 4


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = decoded(as_file(picture(), "JPEG", exif=exif, quality=95), Encoding.JPEG)
    assert np.abs(pixels.astype(int) - np.rot90(picture(), -1)).mean() < 4


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_is_clockwise(turns):
    data = as_file(picture(), "PNG")
    pixels = decoded(data, Encoding.PNG, rotation_degrees=90 * turns)
    assert np.array_equal(pixels, np.rot90(picture(), -turns))


def test_raw_pixels_come_back_exactly():
    data = picture().tobytes()
    pixels = decoded(data, Encoding.RGB24, width=WIDTH, height=HEIGHT)
    assert np.array_equal(pixels, picture())


@pytest.mark.parametrize("surplus", [-1, 1])
def test_raw_pixels_of_other_length_are_lost(surplus):
    data = bytes(MAX_PIXELS * 3 + surplus)
    detail = lost_detail(data, Encoding.RGB24, width=WIDTH, height=HEIGHT)
    assert detail == f"expected {MAX_PIXELS * 3} bytes of RGB24 for 64x48, got {len(data)}"


def test_raw_pixels_without_size_are_lost():
    assert "width and height" in lost_detail(bytes(30), Encoding.RGB24)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_empty_data_is_lost(encoding):
    assert lost_detail_anyhow(b"", encoding)


def lost_detail_anyhow(data: bytes, encoding: Encoding) -> str:
    config = StreamConfig("test", encoding, width=WIDTH, height=HEIGHT)
    decoder = open_decoder(config, max_pixels=MAX_PIXELS)
    (outcome,) = decoder.decode(EncodedFrame(FrameHeader(0), data)) + decoder.flush()
    assert isinstance(outcome, LostFrame)
    return outcome.detail


def test_another_format_is_refused():
    assert "expected JPEG" in lost_detail(as_file(picture(), "PNG"), Encoding.JPEG)
    assert "expected PNG" in lost_detail(as_file(picture(), "JPEG"), Encoding.PNG)


@pytest.mark.parametrize(("kind", "encoding"), [("PNG", Encoding.PNG), ("JPEG", Encoding.JPEG)])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.98])
def test_truncated_picture_is_lost(kind, encoding, share):
    noise = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    data = as_file(noise, kind)
    assert lost_detail(data[: int(len(data) * share)], encoding)


def test_bomb_is_refused_by_its_header_alone():
    data = png_header(8000, 4000) + png_chunk(b"IDAT", zlib.compress(b""))
    assert lost_detail(data, Encoding.PNG) == (
        "expected sides of 16 pixels or more and at most 3072 pixels in all, got 8000x4000"
    )


def test_bomb_beyond_the_limit_of_the_library_is_lost():
    assert lost_detail(png_header(60000, 60000), Encoding.PNG)


def test_picture_without_area_is_lost():
    assert lost_detail(png_header(0, 10) + png_chunk(b"IEND", b""), Encoding.PNG)


def test_jpeg_of_many_scans_is_refused():
    data = as_file(picture(), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert "scans" in lost_detail(data[:-2] + scan * 100 + data[-2:], Encoding.JPEG)


def test_size_other_than_the_first_frame_is_lost():
    decoder = open_decoder(StreamConfig("test", Encoding.PNG), max_pixels=MAX_PIXELS)
    sizes = [(WIDTH, HEIGHT), (32, 32), (WIDTH, HEIGHT)]
    first, second, third = (
        decoder.decode(EncodedFrame(FrameHeader(index), as_file(picture(*size), "PNG")))[0]
        for index, size in enumerate(sizes)
    )
    assert isinstance(first, Frame)
    assert second == LostFrame(
        FrameHeader(1), GapReason.RESOLUTION_CHANGED, "expected 64x48, got 32x32"
    )
    assert isinstance(third, Frame)


def test_size_other_than_the_config_is_lost():
    data = as_file(picture(), "PNG")
    outcome = decode_one(data, Encoding.PNG, width=32, height=32)
    assert isinstance(outcome, LostFrame)
    assert outcome.reason is GapReason.RESOLUTION_CHANGED


@given(data=st.binary(max_size=200), encoding=st.sampled_from(list(Encoding)))
def test_garbage_is_lost(data, encoding):
    assert lost_detail_anyhow(data, encoding)


@settings(deadline=None, max_examples=150)
@given(
    kind=st.sampled_from([("PNG", Encoding.PNG), ("JPEG", Encoding.JPEG)]),
    position=st.floats(0, 0.999),
    patch=st.binary(min_size=1, max_size=8),
)
def test_damaged_picture_is_answered_once(kind, position, patch):
    data = bytearray(as_file(picture(), kind[0]))
    start = int(position * len(data))
    data[start : start + len(patch)] = patch
    decode_one(bytes(data), kind[1])  # holds itself to one outcome, under the frame's own header
