"""Bytes of one still picture to RGB pixels, for hostile bytes: nothing is decoded on trust.

The header is judged first, so that a decompression bomb costs no more than its header.
"""

import io

import numpy as np
from PIL import Image, ImageOps

from orchestrator.errors import DecodeError
from orchestrator.types import Encoding, Pixels

MAX_JPEG_SCANS = 64
"""Each scan of a progressive JPEG walks the whole picture, however few its bytes; honest ones have
about ten."""

_SIGNATURES = {Encoding.JPEG: b"\xff\xd8\xff", Encoding.PNG: b"\x89PNG\r\n\x1a\n"}


def decode_compressed(data: bytes, encoding: Encoding, *, max_pixels: int) -> Pixels:
    """Decode a JPEG or PNG file.

    Grey, palette and CMYK pictures become RGB, 16 bits become 8, alpha is dropped, and the EXIF
    orientation is applied.

    Args:
        data: The whole file.
        encoding: `JPEG` or `PNG`; data of another kind is refused.
        max_pixels: Largest width x height.

    Returns:
        Pixels, contiguous.

    Raises:
        DecodeError: The data is empty, of another kind, too large, truncated or damaged.
    """
    signature = _SIGNATURES[encoding]
    if not data.startswith(signature):
        start = data[: len(signature)].hex(" ") or "nothing"
        raise DecodeError(
            f"expected {encoding.name} data, which starts {signature.hex(' ')}; got {start}"
        )
    if encoding is Encoding.JPEG and data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise DecodeError(f"JPEG has more than {MAX_JPEG_SCANS} scans")
    try:
        with Image.open(io.BytesIO(data), formats=[encoding.name]) as image:
            check_size(*image.size, max_pixels=max_pixels)
            return _to_rgb(image)
    except DecodeError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything at damaged bytes
        raise DecodeError(f"{encoding.name} cannot be decoded: {error}") from error


def decode_raw(data: bytes, width: int, height: int) -> Pixels:
    """View raw RGB rows as a picture, without copying them.

    Returns:
        Pixels, contiguous and read-only.

    Raises:
        DecodeError: The length is not `width * height * 3` bytes.
    """
    if len(data) != width * height * 3:
        raise DecodeError(
            f"expected {width * height * 3} bytes of RGB24 for {width}x{height}, got {len(data)}"
        )
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def check_size(width: int, height: int, *, max_pixels: int) -> None:
    """Refuse pictures without area and those larger than `max_pixels`.

    Raises:
        DecodeError: The size is out of range.
    """
    if width < 1 or height < 1 or width * height > max_pixels:
        raise DecodeError(f"expected a picture of 1 to {max_pixels} pixels, got {width}x{height}")


def _to_rgb(image: Image.Image) -> Pixels:
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I;16"):  # `convert` would clip to 255 instead of scaling
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, np.newaxis], 3, axis=2)
    image.info.pop("transparency", None)  # else `convert` warns that it is dropped
    return np.array(image.convert("RGB"))
