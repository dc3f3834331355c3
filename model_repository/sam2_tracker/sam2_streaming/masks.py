"""From mask logits of windows to masks in the frame; never a picture of the whole frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sam2_streaming import rle
from sam2_streaming.windows import Window

MIN_AREA_PX = 6
"""A smaller component is noise, not a person."""

_Region = tuple[int, int, int, int]
"""Pixels of the frame, xyxy, `max` exclusive."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameMask:
    """The pixels of one object, as large as its box.

    Attributes:
        pixels: bool `(h, w)`; `(0, 0)` if the mask is empty.
        x: Column of the frame at which they begin; may lie beyond the frame once moved.
        y: Row of the frame at which they begin.
    """

    pixels: NDArray[np.bool_]
    x: int = 0
    y: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether there is no pixel in the mask."""
        return not self.pixels.size

    @property
    def box(self) -> NDArray[np.float32]:
        """Tight xyxy in frame pixels, float32 `(4,)`, `max` exclusive; zeros if empty."""
        height, width = self.pixels.shape
        return np.array([self.x, self.y, self.x + width, self.y + height], np.float32)

    @property
    def nbytes(self) -> int:
        """Size of the pixels in bytes."""
        return self.pixels.nbytes

    def moved(self, dx: int, dy: int, frame_shape: tuple[int, int]) -> "FrameMask":
        """Shift the mask by whole pixels; what then lies beyond the frame is cut off."""
        x, y = self.x + dx, self.y + dy
        inside = self.pixels[
            max(-y, 0) : max(frame_shape[0] - y, 0), max(-x, 0) : max(frame_shape[1] - x, 0)
        ]
        return _tight(inside, max(x, 0), max(y, 0))

    def rle_counts(self, frame_shape: tuple[int, int]) -> str:
        """COCO compressed run lengths; the mask must lie in the frame."""
        return rle.encode(self.pixels, self.x, self.y, frame_shape)


NO_MASK = FrameMask(np.zeros((0, 0), np.bool_))


def place(
    logits: Tensor, windows: Sequence[Window], frame_shape: tuple[int, int]
) -> list[FrameMask]:
    """Return the largest component of each mask in the frame.

    Resizes where the logits are; what reaches the CPU are pixels near the masks.

    Args:
        logits: Mask logits fp32 `(n, size, size)`, above 0 inside.
        windows: Where in the frame each of them lies.
        frame_shape: Height and width of the frame in pixels.
    """
    regions = {
        k: region
        for k, extent in enumerate(_extents(logits > 0).tolist())
        if (region := _region(extent, windows[k], logits.shape[-1], frame_shape))
    }
    masks = [NO_MASK] * len(windows)
    resized = [_resized(logits[k], windows[k], region) for k, region in regions.items()]
    for (k, region), pixels in zip(regions.items(), _to_cpu(resized), strict=True):
        masks[k] = _largest_component(pixels, *region[:2])
    return masks


def _extents(inside: Tensor) -> Tensor:
    """First and last column and row of masks `(n, size, size)` as `(n, 4)` xyxy, on the CPU."""
    size = inside.shape[-1]
    index = torch.arange(size, device=inside.device)
    columns, rows = inside.any(1), inside.any(2)
    first = [torch.where(line, index, size).amin(1) for line in (columns, rows)]
    last = [torch.where(line, index, -1).amax(1) for line in (columns, rows)]
    return torch.stack([*first, *last], 1).cpu()


def _region(
    extent: Sequence[int], window: Window, size: int, frame_shape: tuple[int, int]
) -> _Region | None:
    first_x, first_y, last_x, last_y = extent
    step_x, step_y = window.width / size, window.height / size
    x0 = max(window.x0 + int((first_x - 1) * step_x), window.x0, 0)
    y0 = max(window.y0 + int((first_y - 1) * step_y), window.y0, 0)
    x1 = window.x0 + min(int(np.ceil((last_x + 2) * step_x)), window.width)
    y1 = window.y0 + min(int(np.ceil((last_y + 2) * step_y)), window.height)
    x1, y1 = min(x1, frame_shape[1]), min(y1, frame_shape[0])
    return (x0, y0, x1, y1) if last_x >= 0 and x1 > x0 and y1 > y0 else None


def _resized(logits: Tensor, window: Window, region: _Region) -> Tensor:
    """The mask in the pixels of a region, bool, as if its whole window were resized."""
    x0, y0, x1, y1 = region
    share_x, share_y = (x1 - x0) / window.width, (y1 - y0) / window.height
    shift_x = 2 * (x0 - window.x0) / window.width + share_x - 1
    shift_y = 2 * (y0 - window.y0) / window.height + share_y - 1
    mapping = torch.tensor([[[share_x, 0, shift_x], [0, share_y, shift_y]]], device=logits.device)
    grid = functional.affine_grid(mapping, [1, 1, y1 - y0, x1 - x0], align_corners=False)
    found = functional.grid_sample(
        logits[None, None], grid, padding_mode="border", align_corners=False
    )
    return found[0, 0] > 0


def _to_cpu(pictures: Sequence[Tensor]) -> list[NDArray[np.bool_]]:
    """Bring pictures of all sizes over in one transfer."""
    if not pictures:
        return []
    flat = torch.cat([picture.flatten() for picture in pictures]).cpu().numpy()
    parts = np.split(flat, np.cumsum([picture.numel() for picture in pictures])[:-1])
    return [part.reshape(p.shape) for part, p in zip(parts, pictures, strict=True)]


def _largest_component(pixels: NDArray[np.bool_], x0: int, y0: int) -> FrameMask:
    """The largest 8-connected component of pixels that begin at `x0`, `y0`."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas) or areas.max() < MIN_AREA_PX:
        return NO_MASK
    largest = 1 + int(areas.argmax())
    x, y, width, height, _ = (int(v) for v in stats[largest])
    return FrameMask(labels[y : y + height, x : x + width] == largest, x0 + x, y0 + y)


def _tight(pixels: NDArray[np.bool_], x: int, y: int) -> FrameMask:
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    if not len(rows):
        return NO_MASK
    tight = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return FrameMask(tight, x + int(columns[0]), y + int(rows[0]))
