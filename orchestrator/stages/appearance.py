"""What somebody wears, cheap enough for every person in every frame."""

from functools import cache
from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.imaging import is_cut_off
from orchestrator.types.pictures import Boxes, Pixels

Clothes = NDArray[np.float32]
"""Which shares of shirt and of shorts have which colour, float32 `(n, SIZE)`; nan where they are
not in sight."""
_Colours = NDArray[np.uint8]

_TOP, _WAIST, _BOTTOM = 0.18, 0.5, 0.68
"""Of the shirt and of the shorts, as shares of a box's height."""
_LEFT, _RIGHT = 0.3, 0.7
_SHIRT_ROWS, _SHORTS_ROWS, _COLUMNS = 12, 7, 8
_POINTS = np.array((_SHIRT_ROWS, _SHORTS_ROWS)) * _COLUMNS
"""At which they are looked at."""

_LEVELS = np.array((4, 9, 9))
"""Of lightness, and of the two axes of colour; what lies between two levels counts for both."""
_STEP = np.array((85, 9, 9))
"""Between levels, in CIELAB as OpenCV scales it."""
_LOWEST = np.array((0, 92, 92))
_STRIDES = np.array((81, 9, 1))
_CELLS = int(_LEVELS.prod())
SIZE = 2 * _CELLS
_BITS = 5
"""Of each of red, green and blue that are kept."""

_BRIGHT = 235.0
_MOST_GAIN = 3.0
_ALIKE, _SOFTNESS = 0.66, 0.04
"""Overlap of two distributions at which it is even whether they are one person's. Nineteen in
twenty looks at somebody known are above 0.73, and at a rival below 0.54: means of twelve clips."""
_COVERED = 0.1
"""Less of the clothes than this may be behind somebody."""


def dressed(pixels: Pixels, xyxy: Boxes) -> tuple[Clothes, float]:
    """Return what a picture's people wear, and its exposure.

    Args:
        pixels: The picture.
        xyxy: Boxes inside it.

    Returns:
        The clothes, and the factor, 1 to 3, by which the picture was brightened for its people to
        be seen as by day. Dark colours lie closer together: without it, likeness would depend on
        the light.
    """
    colours = _colours(pixels, xyxy)
    gain = _exposure(colours)
    return _worn(colours, is_cut_off(xyxy, pixels), gain), gain


def clothes(pixels: Pixels, xyxy: Boxes, gain: float) -> Clothes:
    """Return what is worn in further boxes of a picture; `gain` is its exposure, see `dressed`."""
    return _worn(_colours(pixels, xyxy), is_cut_off(xyxy, pixels), gain)


def unknown(count: int) -> Clothes:
    """Return the clothes of so many people who were not looked at."""
    return np.full((count, SIZE), np.nan, np.float32)


def likeness(a: Clothes, b: Clothes) -> NDArray[np.float32]:
    """Return how likely each of `a` is to be who each of `b` is, by clothes alone.

    Source: Bhattacharyya's coefficient of two distributions.

    Returns:
        float32 `(len(a), len(b))`, 0 to 1; nan where either is not known.
    """
    overlap = np.sqrt(a) @ np.sqrt(b).T
    return np.asarray(1 / (1 + np.exp((_ALIKE - overlap) / _SOFTNESS)), np.float32)


def in_plain_sight(xyxy: Boxes) -> NDArray[np.bool_]:
    """Say whose clothes nobody nearer covers; who stands lower in the picture is nearer."""
    low, size = xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]
    dressed_low, dressed_high = low + size * (_LEFT, _TOP), low + size * (_RIGHT, _BOTTOM)
    sides = np.minimum(dressed_high[:, np.newaxis], xyxy[np.newaxis, :, 2:]) - np.maximum(
        dressed_low[:, np.newaxis], xyxy[np.newaxis, :, :2]
    )
    area = np.maximum((dressed_high - dressed_low).prod(axis=1), 1e-6)
    covered = sides.clip(0).prod(axis=2) / area[:, np.newaxis]
    is_nearer = xyxy[np.newaxis, :, 3] > xyxy[:, np.newaxis, 3]
    return np.asarray((covered * is_nearer).max(axis=1, initial=0.0) < _COVERED)


def _exposure(colours: _Colours) -> float:
    if not len(colours):
        return 1.0
    shirts = colours[:, : _POINTS[0]]
    brightest = float(np.quantile(shirts.max(axis=2), 0.95))
    return float(np.clip(_BRIGHT / max(brightest, 1.0), 1.0, _MOST_GAIN))


def _worn(colours: _Colours, hidden: NDArray[np.bool_], gain: float) -> Clothes:
    """Return which shares of shirt and of shorts have which of the colours of `_colours`."""
    people = len(colours)
    brightened = np.minimum(colours * np.float32(gain), 255).astype(np.uint8)
    code = (brightened >> (8 - _BITS)) @ (1 << _BITS * np.arange(3)[::-1])
    cells, shares = _spread()
    start = SIZE * np.arange(people)[:, np.newaxis] + np.repeat((0, _CELLS), _POINTS)
    where = cells[code] + start[..., np.newaxis]
    counted = np.bincount(where.ravel(), shares[code].ravel(), people * SIZE)
    found = counted.reshape(people, 2, _CELLS) / (2 * _POINTS[:, np.newaxis])
    worn = found.reshape(people, SIZE).astype(np.float32)
    worn[hidden] = np.nan  # nobody knows where the shirt is
    return worn


def _colours(pixels: Pixels, xyxy: Boxes) -> _Colours:
    """Return the colours at the points of each box, `(n, points, 3)`, the shirt's first."""
    rows = np.concatenate(
        (_steps(_TOP, _WAIST, _SHIRT_ROWS), _steps(_WAIST, _BOTTOM, _SHORTS_ROWS))
    )
    y, x = np.meshgrid(rows, _steps(_LEFT, _RIGHT, _COLUMNS), indexing="ij")
    size = xyxy[:, 2:] - xyxy[:, :2]
    across = xyxy[:, :1] + size[:, :1] * x.ravel()
    down = xyxy[:, 1:2] + size[:, 1:] * y.ravel()
    height, width = pixels.shape[:2]
    return np.asarray(
        pixels[down.astype(int).clip(0, height - 1), across.astype(int).clip(0, width - 1)]
    )


def _steps(low: float, high: float, count: int) -> NDArray[np.float64]:
    """Return the middles of equal parts."""
    return low + (high - low) * (np.arange(count) + 0.5) / count


@cache
def _spread() -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Return over which eight cells each colour is spread, and how much of it lies in each."""
    levels = np.arange(1 << (7 - _BITS), 256, 1 << (8 - _BITS), dtype=np.uint8)  # middles
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[:, 0]
    place = np.clip((lab - _LOWEST) / _STEP, 0, _LEVELS - 1)
    lower = np.minimum(place.astype(int), _LEVELS - 2)
    upper = (place - lower)[:, np.newaxis]
    corners = np.array(list(product((0, 1), repeat=3)))
    cells = (lower[:, np.newaxis] + corners) @ _STRIDES
    shares = np.where(corners, upper, 1 - upper).prod(axis=2)
    return cells.astype(np.uint16), shares.astype(np.float32)  # small, to stay in the CPU's cache
