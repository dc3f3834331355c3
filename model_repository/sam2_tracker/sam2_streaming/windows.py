"""Square windows that follow objects through the frame, and peace between neighbours.

Giving the network a window around each player instead of the whole frame costs a fraction and
shows the player larger. The constants were measured on rendered matches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

COVER = 2.5
"""Side of a window in heights of its object."""
MIN_SIDE_PX = 32
MAX_SIZE_CHANGE = 0.004
"""Most a window grows or shrinks per frame: a mask that loses its feet must not shrink it."""
MASK_SHORTFALL = 1.02
"""Height of an object in heights of its mask, which misses a little of head and feet."""
SPEED_SHARE = 0.8
"""Share of the last speed that the next window moves by."""
SUPPRESSED_LOGIT = -5.0


@dataclass(frozen=True, slots=True)
class Window:
    """A region of the frame in whole pixels; may reach beyond the frame."""

    x0: int
    y0: int
    width: int
    height: int

    def cut(self, frame: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """Return the region as RGB `(size, size, 3)`, black where there is no frame."""
        shrinks = min(self.width, self.height) > size
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        picture = cv2.resize(self._padded(frame), (size, size), interpolation=how)
        return np.asarray(picture, np.uint8)

    def to_window(self, box: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        """Map a box from frame pixels to pixels of the cut, both xyxy float32 `(4,)`."""
        scale = np.array([size / self.width, size / self.height] * 2, np.float32)
        return (box - np.array([self.x0, self.y0] * 2, np.float32)) * scale

    def _padded(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        x0, x1 = np.clip([self.x0, self.x0 + self.width], 0, frame.shape[1])
        y0, y1 = np.clip([self.y0, self.y0 + self.height], 0, frame.shape[0])
        inside = frame[y0:y1, x0:x1]
        if inside.shape[:2] == (self.height, self.width):
            return inside
        padded = np.zeros((self.height, self.width, 3), np.uint8)
        padded[y0 - self.y0 : y1 - self.y0, x0 - self.x0 : x1 - self.x0] = inside
        return padded


@dataclass(frozen=True, slots=True)
class Follower:
    """Where an object is expected: centre and speed in frame pixels, height in pixels."""

    centre: NDArray[np.float64]
    speed: NDArray[np.float64]
    height: float
    is_lost: bool = False

    @classmethod
    def at(cls, box: NDArray[np.float32]) -> "Follower":
        """Start at a prompted box, xyxy float32 `(4,)`."""
        return cls(_centre(box), np.zeros(2), float(box[3] - box[1]))

    def window(self) -> Window:
        """The window of the next frame."""
        side = max(MIN_SIDE_PX, round(COVER * self.height))
        x0, y0 = np.round(self.centre + SPEED_SHARE * self.speed - side / 2).astype(int)
        return Window(int(x0), int(y0), side, side)

    def after(self, box: NDArray[np.float32] | None) -> "Follower":
        """Follow the box of the object's mask; None (out of sight) coasts to a halt."""
        if box is None:
            coasted = SPEED_SHARE * self.speed
            return Follower(self.centre + coasted, coasted, self.height, is_lost=True)
        centre = _centre(box)
        speed = 0 * self.speed if self.is_lost else (self.speed + centre - self.centre) / 2
        wanted = 0.9 * self.height + 0.1 * MASK_SHORTFALL * float(box[3] - box[1])
        change = MAX_SIZE_CHANGE * self.height
        height = float(np.clip(wanted, self.height - change, self.height + change))
        return Follower(centre, speed, height)


def exclusive(logits: Tensor, windows: Sequence[Window]) -> Tensor:
    """Suppress each mask where another object of the same frame claims a pixel more strongly.

    Args:
        logits: Mask logits fp32 `(n, size, size)`, one per window.
        windows: The windows, either all equal (whole frame) or one following each object.
    """
    if len(set(windows)) == 1:
        strongest = logits.amax(0, keepdim=True)
    else:
        strongest = _strongest_neighbour(logits, windows)
    loses = strongest > logits.clamp(min=0)
    return torch.where(loses, logits.clamp(max=SUPPRESSED_LOGIT), logits)


def _strongest_neighbour(logits: Tensor, windows: Sequence[Window]) -> Tensor:
    """Largest logit that a neighbour gives to each pixel of each window, at least 0."""
    mine, other, mappings = _neighbours(windows)
    strongest = torch.zeros_like(logits)
    if not len(mine):
        return strongest
    shape = [len(mine), 1, *logits.shape[1:]]
    grid = functional.affine_grid(mappings.to(logits.device), shape, align_corners=False)
    sources = logits[torch.from_numpy(other), None]
    claims = functional.grid_sample(sources, grid, align_corners=False)[:, 0]
    first = np.flatnonzero(np.diff(mine, prepend=-1))
    for of_one, k in zip(np.split(np.arange(len(mine)), first[1:]), mine[first], strict=True):
        strongest[k] = claims[of_one].amax(0).clamp(min=0)
    return strongest


def _neighbours(
    windows: Sequence[Window],
) -> tuple[NDArray[np.int64], NDArray[np.int64], Tensor]:
    """Pairs of windows whose objects may touch, and the affine map from the one to the other.

    Returns:
        Indices `mine`, ascending, and `other`, `(pairs,)`; and the maps fp32 `(pairs, 2, 3)`
        between their normalised coordinates in `[-1, 1]`.
    """
    regions = np.array([(w.x0, w.y0, w.width) for w in windows], np.float64)
    side = regions[:, 2]
    centre = regions[:, :2] + side[:, None] / 2
    gap = np.abs(centre[:, None] - centre[None]) / (side[:, None] + side[None])[..., None]
    near = (gap[..., 0] < 0.35) & (gap[..., 1] < 0.4) & ~np.eye(len(windows), dtype=bool)
    mine, other = np.nonzero(near)
    mappings = np.zeros((len(mine), 2, 3), np.float32)
    mappings[:, 0, 0] = mappings[:, 1, 1] = side[mine] / side[other]
    mappings[:, :, 2] = 2 * (centre[mine] - centre[other]) / side[other, None]
    return mine, other, torch.from_numpy(mappings)


def _centre(box: NDArray[np.float32]) -> NDArray[np.float64]:
    return (box[:2].astype(np.float64) + box[2:]) / 2
