"""Square windows that follow objects through the frame, and peace between neighbours.

Giving the network a window around each player instead of the whole frame costs a fraction and
shows the player larger. The constants were measured on rendered matches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

COVER = 2.0
"""Side of a window in heights of its object, unless the model's configuration says otherwise.

The network draws a mask of a quarter of the window's pixels each way. At 128 px, the best such mask
of a person has an IoU of 0.80 if the window is 2.5 heights wide, 0.86 at 2, 0.91 at 1.6."""
MIN_SIDE_PX = 32
MAX_SIZE_CHANGE = 0.004
"""Most a window grows or shrinks per frame: a mask that loses its feet must not shrink it."""
MASK_SHORTFALL = 1.02
"""Height of an object in heights of its mask, which misses a little of head and feet."""
SPEED_SHARE = 0.8
"""Share of the last speed that the next window moves by."""
SUPPRESSED_LOGIT = -5.0
_PAIRS_AT_ONCE = 64
"""Neighbours compared in one go: a melee of 64 objects makes 4032 pairs."""


@dataclass(frozen=True, slots=True)
class Window:
    """A region of the frame in whole pixels; may reach beyond the frame."""

    x0: int
    y0: int
    width: int
    height: int

    def to_window(self, points: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        """Map points from frame pixels to pixels of the cut, both xy float32 `(p, 2)`."""
        scale = np.array([size / self.width, size / self.height], np.float32)
        return (points - np.array([self.x0, self.y0], np.float32)) * scale

    def pixel_centres(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Frame columns and rows under the pixels of the cut, int64 `(1, size)`, `(size, 1)`."""
        steps = np.arange(size) + 0.5
        x = self.x0 + np.floor(steps * self.width / size).astype(np.int64)
        y = self.y0 + np.floor(steps * self.height / size).astype(np.int64)
        return x[None], y[:, None]


def cut(frame: Tensor, windows: Sequence[Window], size: int) -> Tensor:
    """Return windows as RGB pictures, black where there is no frame, on the frame's device.

    Args:
        frame: RGB uint8 `(height, width, 3)`.
        windows: `m` regions of it.
        size: Side of the pictures in pixels.

    Returns:
        uint8 `(m, size, size, 3)`.
    """
    planes = frame.permute(2, 0, 1)
    pictures = frame.new_zeros((len(windows), 3, size, size))
    for picture, window in zip(pictures, windows, strict=True):
        region = _padded(planes, window)
        if region is not None:
            picture.copy_(_resized(region, size))
    return pictures.permute(0, 2, 3, 1)


def _padded(planes: Tensor, window: Window) -> Tensor | None:
    """The region `(3, h, w)` of a frame `(3, height, width)`; None if it is all beyond it."""
    _, height, width = planes.shape
    x0, x1 = max(window.x0, 0), min(window.x0 + window.width, width)
    y0, y1 = max(window.y0, 0), min(window.y0 + window.height, height)
    if x1 <= x0 or y1 <= y0:
        return None
    left, top = x0 - window.x0, y0 - window.y0
    right, bottom = window.width - left - (x1 - x0), window.height - top - (y1 - y0)
    return functional.pad(planes[:, y0:y1, x0:x1], (left, right, top, bottom))


def _resized(region: Tensor, size: int) -> Tensor:
    # torch resizes bytes on the CPU only, where that is four times as fast as in floats.
    pixels = region.float() if region.is_cuda else region
    resized = functional.interpolate(pixels[None], (size, size), mode="bilinear", antialias=True)
    return resized[0].round() if region.is_cuda else resized[0]


@dataclass(frozen=True, slots=True, eq=False)
class Follower:
    """Where an object is believed to be.

    Attributes:
        centre: xy in frame pixels.
        speed: xy in pixels per frame.
        height: In pixels.
        is_lost: Whether it was out of sight when last looked for.
        unseen: Frames since it was last looked for, 0 right after.
    """

    centre: NDArray[np.float64]
    speed: NDArray[np.float64]
    height: float
    is_lost: bool = False
    unseen: int = 0

    @classmethod
    def at(cls, box: NDArray[np.float32], cover: float = COVER) -> "Follower":
        """Expect an object in a prompted box, xyxy float32 `(4,)`, that its window shall hold."""
        return cls(_centre(box), np.zeros(2), _height(box, cover))

    def moved_to(self, box: NDArray[np.float32], cover: float = COVER) -> "Follower":
        """Expect the object in a box that corrects it, at the speed it had."""
        centre = _centre(box) - SPEED_SHARE * self.speed
        return Follower(centre, self.speed, _height(box, cover))

    @property
    def expected(self) -> NDArray[np.float64]:
        """Centre in the next frame, xy in frame pixels."""
        return self.centre + SPEED_SHARE * self.speed

    def window(self, frame_shape: tuple[int, int], cover: float = COVER) -> Window:
        """The window of the next frame; the whole frame if the object is too large for one.

        Args:
            frame_shape: Height and width of the frame in pixels.
            cover: Side of the window in heights of the object.
        """
        side = max(MIN_SIDE_PX, round(cover * self.height))
        if side > min(frame_shape):
            return Window(0, 0, frame_shape[1], frame_shape[0])
        x0, y0 = np.round(self.expected - side / 2).astype(int)
        return Window(int(x0), int(y0), side, side)

    def after(self, box: NDArray[np.float32] | None) -> "Follower":
        """Follow the box of the object's mask; None (out of sight) coasts to a halt."""
        if box is None:
            return Follower(self.expected, SPEED_SHARE * self.speed, self.height, is_lost=True)
        centre = _centre(box)
        travelled = centre - self.centre + self.unseen * SPEED_SHARE * self.speed
        speed = 0 * self.speed if self.is_lost else (self.speed + travelled / (self.unseen + 1)) / 2
        wanted = 0.9 * self.height + 0.1 * MASK_SHORTFALL * float(box[3] - box[1])
        change = MAX_SIZE_CHANGE * self.height
        height = float(np.clip(wanted, self.height - change, self.height + change))
        return Follower(centre, speed, height)

    def coasted(self) -> "Follower":
        """Move on with the motion of an object that nobody looked for."""
        speed = SPEED_SHARE * self.speed if self.is_lost else self.speed
        return Follower(self.expected, speed, self.height, self.is_lost, self.unseen + 1)


def exclusive(logits: Tensor, windows: Sequence[Window]) -> Tensor:
    """Suppress each mask where another object of the same frame claims a pixel more strongly.

    Args:
        logits: Mask logits fp32 `(n, size, size)`, one per window.
        windows: The windows; objects that look at the whole frame share one.
    """
    places = list(dict.fromkeys(windows))
    at = torch.tensor([places.index(window) for window in windows], device=logits.device)
    nothing = logits.new_full((len(places), *logits.shape[1:]), -torch.inf)
    strongest = claims = _strongest(nothing, at, logits)
    for mine, seen in _neighbour_claims(claims, places):
        strongest = _strongest(strongest, mine, seen)
    loses = strongest[at] > logits.clamp(min=0)
    return torch.where(loses, logits.clamp(max=SUPPRESSED_LOGIT), logits)


def _strongest(maps: Tensor, at: Tensor, others: Tensor) -> Tensor:
    """Raise each map `(m, size, size)` to the others `(n, size, size)` that belong `at` it."""
    return maps.scatter_reduce(0, at[:, None, None].expand_as(others), others, "amax")


def _neighbour_claims(claims: Tensor, windows: Sequence[Window]) -> Iterator[tuple[Tensor, Tensor]]:
    """What neighbours claim of windows, some pairs after the others.

    Yields:
        Indices of the windows `(pairs,)`, and logits that are at least 0, `(pairs, size, size)`.
    """
    mine, other, mappings = (one.to(claims.device) for one in _neighbours(windows))
    for first in range(0, len(mine), _PAIRS_AT_ONCE):
        part = slice(first, first + _PAIRS_AT_ONCE)
        shape = [len(mine[part]), 1, *claims.shape[1:]]
        grid = functional.affine_grid(mappings[part], shape, align_corners=False)
        seen = functional.grid_sample(claims[other[part], None], grid, align_corners=False)
        yield mine[part], seen[:, 0].clamp(min=0)


def _neighbours(windows: Sequence[Window]) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of windows whose objects may touch, and the affine map from the one to the other.

    Returns:
        Indices `mine` and `other`, `(pairs,)`; and the maps fp32 `(pairs, 2, 3)` between their
        normalised coordinates in `[-1, 1]`.
    """
    corner = np.array([(w.x0, w.y0) for w in windows], np.float64)
    sides = np.array([(w.width, w.height) for w in windows], np.float64)
    centre = corner + sides / 2
    gap = np.abs(centre[:, None] - centre[None]) / (sides[:, None] + sides[None])
    # An object is in the middle of its square, but anywhere in a frame that it sees whole.
    is_whole = (corner == 0).all(1) & (sides == sides.max(0)).all(1)
    near = (gap[..., 0] < 0.35) & (gap[..., 1] < 0.4) | is_whole[:, None] | is_whole[None]
    mine, other = np.nonzero(near & ~np.eye(len(windows), dtype=bool))
    mappings = np.zeros((len(mine), 2, 3), np.float32)
    mappings[:, [0, 1], [0, 1]] = sides[mine] / sides[other]
    mappings[:, :, 2] = 2 * (centre[mine] - centre[other]) / sides[other]
    return torch.from_numpy(mine), torch.from_numpy(other), torch.from_numpy(mappings)


def _height(box: NDArray[np.float32], cover: float) -> float:
    """Height of a box, or of a taller one if the window would be narrower than this one."""
    width, height = (box[2:] - box[:2]).tolist()
    return float(max(height, width / cover))


def _centre(box: NDArray[np.float32]) -> NDArray[np.float64]:
    return (box[:2].astype(np.float64) + box[2:]) / 2
