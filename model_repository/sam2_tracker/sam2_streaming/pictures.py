"""Frames become tensors: pixels as they are, JPEG pictures on the GPU where the network is."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam2_streaming.requests import MAX_FRAME_SIDE_PX, MIN_FRAME_SIDE_PX, InvalidRequestError

_START, _SCAN = b"\xff\xd8", 0xDA
_SIZES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Start-of-frame markers, which hold the size of the picture. Source: ITU T.81, table B.1."""

_MOST_SEGMENTS = 1000
"""Before the size; a colour profile takes some dozens."""


def as_tensor(frame: NDArray[np.uint8] | Tensor) -> Tensor:
    """Return a request's frame where it lies, uint8 `(height, width, 3)`.

    Raises:
        InvalidRequestError: It is no picture, or too small or large for one.
    """
    if not isinstance(frame, Tensor):
        # A tensor must not lie on memory that refuses to be written.
        frame = torch.from_numpy(np.require(frame, requirements=("C", "W")))
    is_picture = frame.dtype == torch.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    if not is_picture or not all(
        MIN_FRAME_SIDE_PX <= side <= MAX_FRAME_SIDE_PX for side in frame.shape[:2]
    ):
        raise InvalidRequestError(
            f"frame: expected uint8 (height, width, 3) of {MIN_FRAME_SIDE_PX} to "
            f"{MAX_FRAME_SIDE_PX} px a side, got {frame.dtype} {tuple(frame.shape)}"
        )
    return frame


def decode_jpeg(data: bytes, device: torch.device) -> Tensor:
    """Return the pixels of a JPEG as they are stored, RGB uint8 `(height, width, 3)`.

    A picture that claims to be too large is refused before any memory is spent on it. What a CUDA
    device decodes stays there; the rest is in the memory of the CPU.

    Raises:
        InvalidRequestError: This is no JPEG, a damaged one, or too small or large for a frame.
    """
    height, width = jpeg_size(data)
    if min(height, width) < MIN_FRAME_SIDE_PX or max(height, width) > MAX_FRAME_SIDE_PX:
        raise InvalidRequestError(
            f"frame_jpeg: expected {MIN_FRAME_SIDE_PX} to {MAX_FRAME_SIDE_PX} px a side, "
            f"got {width}x{height}"
        )
    encoded = np.frombuffer(data, np.uint8).copy()
    pixels = _on_gpu(encoded, device) if device.type == "cuda" else _on_cpu(encoded)
    if tuple(pixels.shape[:2]) != (height, width):
        raise InvalidRequestError(f"frame_jpeg: expected {width}x{height} px as its header says")
    return pixels


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Read height and width in pixels from the header of a JPEG, and nothing else.

    Raises:
        InvalidRequestError: There is no such header.
    """
    at = 2 if data[:2] == _START else len(data)
    for _ in range(_MOST_SEGMENTS):
        if at + 9 > len(data) or data[at] != 0xFF or data[at + 1] == _SCAN:
            break
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in _SIZES:
            return int.from_bytes(data[at + 5 : at + 7]), int.from_bytes(data[at + 7 : at + 9])
        at += 1 if marker == 0xFF else 2 + length
    raise InvalidRequestError("frame_jpeg: expected a JPEG picture")


def _on_cpu(encoded: NDArray[np.uint8]) -> Tensor:
    how = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    picture = cv2.imdecode(encoded, how)
    if picture is None:
        raise InvalidRequestError("frame_jpeg: expected a JPEG picture that is not damaged")
    return torch.from_numpy(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def _on_gpu(encoded: NDArray[np.uint8], device: torch.device) -> Tensor:
    from torchvision.io import ImageReadMode  # slow to import, and of use on a GPU only
    from torchvision.io import decode_jpeg as decode

    try:
        planes = decode(torch.from_numpy(encoded), ImageReadMode.RGB, device=device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # not only damage: nvJPEG knows fewer kinds of JPEG, such as no CMYK
        return _on_cpu(encoded)
    pixels: Tensor = planes.permute(1, 2, 0)
    return pixels
