import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sam2_streaming.pictures import decode_jpeg, jpeg_size
from sam2_streaming.requests import InvalidRequestError

CPU = torch.device("cpu")
PICTURE = (Path(__file__).parents[1] / "data" / "frame.jpg").read_bytes()


def jpeg(height, width, *options):
    pixels = np.full((height, width, 3), (200, 30, 60), np.uint8)
    return cv2.imencode(".jpg", pixels, list(options))[1].tobytes()


def claiming(height, width):
    """A tiny JPEG whose header claims another size."""
    data = jpeg(16, 16)
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
def test_pixels_are_rgb_and_as_many_as_the_header_says(options):
    data = jpeg(40, 56, *options)
    assert jpeg_size(data) == (40, 56)
    pixels = decode_jpeg(data, CPU)
    assert pixels.shape == (40, 56, 3)
    assert pixels.dtype == torch.uint8
    np.testing.assert_allclose(pixels.float().mean((0, 1)), [60, 30, 200], atol=3)


def test_a_camera_s_picture_is_read_as_it_is_stored():
    height, width = jpeg_size(PICTURE)
    assert decode_jpeg(PICTURE, CPU).shape == (height, width, 3)
    # Exif: orientation 6, a quarter turn.
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x112, 3, 1, 6, 0) + b"\0\0\0\0"
    exif = b"Exif\0\0" + tiff
    turned = jpeg(40, 56)
    turned = turned[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + turned[2:]
    assert decode_jpeg(turned, CPU).shape == (40, 56, 3)


@pytest.mark.parametrize("size", [(8193, 100), (100, 8193), (65535, 65535), (15, 100), (0, 100)])
def test_a_size_out_of_bounds_is_refused_by_its_header(size, monkeypatch):
    decoded = []
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: decoded.append(arguments))
    with pytest.raises(InvalidRequestError, match="frame_jpeg: expected 16 to 8192 px a side"):
        decode_jpeg(claiming(*size), CPU)
    assert not decoded


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no picture",
        PICTURE[:20],
        cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes(),
        b"\xff\xd8" + b"\xff\xe0\x00\x02" * 100_000,
        b"\xff\xd8" + b"\xff" * 100_000,
        jpeg(32, 32)[:-200],
    ],
    ids=["empty", "text", "cut header", "png", "many segments", "padding", "cut scan"],
)
def test_what_is_no_jpeg_is_refused(data):
    with pytest.raises(InvalidRequestError, match="frame_jpeg: expected a JPEG picture"):
        decode_jpeg(data, CPU)


@given(st.binary(max_size=200), st.booleans())
@settings(max_examples=200, deadline=None)
def test_no_header_is_read_beyond_its_end(data, begins_well):
    try:
        height, width = jpeg_size(b"\xff\xd8\xff" * begins_well + data)
    except InvalidRequestError:
        return
    assert 0 <= height < 65536
    assert 0 <= width < 65536


@pytest.fixture
def refusing_gpu(monkeypatch):
    """A GPU whose decoder takes none of these pictures; returns what it was asked."""
    asked = []

    def refuse(data, mode, device):
        asked.append(device)
        raise RuntimeError("nvjpegDecode failed: NVJPEG_STATUS_JPEG_NOT_SUPPORTED")

    monkeypatch.setattr("torchvision.io.decode_jpeg", refuse)
    return asked


def test_what_the_gpu_cannot_decode_the_cpu_does(refusing_gpu):
    pixels = decode_jpeg(PICTURE, torch.device("cuda:0"))
    assert refusing_gpu == [torch.device("cuda:0")]
    assert torch.equal(pixels, decode_jpeg(PICTURE, CPU))
    with pytest.raises(InvalidRequestError, match="not damaged"):
        decode_jpeg(PICTURE[: len(PICTURE) // 2], torch.device("cuda:0"))


@pytest.mark.parametrize(("mode", "colour"), [("L", 90), ("CMYK", (10, 200, 30, 0))])
def test_pictures_of_other_colours_become_rgb(mode, colour):
    picture, file = Image.new(mode, (56, 40), colour), io.BytesIO()
    picture.save(file, "JPEG")
    expected = np.array(Image.open(file).convert("RGB"), np.int16)
    pixels = decode_jpeg(file.getvalue(), CPU)
    assert np.abs(pixels.numpy() - expected).max() <= 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_the_gpu_reads_the_picture_that_the_cpu_reads():
    on_gpu = decode_jpeg(PICTURE, torch.device("cuda"))
    assert on_gpu.is_cuda
    difference = on_gpu.cpu().int() - decode_jpeg(PICTURE, CPU).int()
    assert difference.abs().float().mean() < 2
    with pytest.raises(InvalidRequestError, match="not damaged"):
        decode_jpeg(PICTURE[: len(PICTURE) // 20], torch.device("cuda"))
