"""How a picture tells what it shows: marks that survive JPEG and being resized.

Along the top edge lies a strip of black and white cells: 24 bits of the frame's number and 8 check
bits. Every person is a rectangle: above the shirt's colour, below a colour that codes the person.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Colour = tuple[int, int, int]

STRIP_HEIGHT = 1 / 30
"""Of the picture's height."""
SHIRT = (0.15, 0.45)
CODE = (0.6, 0.9)
"""Rows of a person's box, from top to bottom, that surely show the shirt or the code."""

_NUMBER_BITS = 24
_CHECK_BITS = 8
_CELLS = _NUMBER_BITS + _CHECK_BITS
_LEVELS = 4
_STEP = 64
_FIRST_LEVEL = 32
_FIRST_CODE = 32
"""Codes below have little red: grass is nobody."""
MAX_PERSON_ID = _LEVELS**3 - _FIRST_CODE - 1


def write_number(pixels: Pixels, number: int) -> None:
    """Draw the strip into a picture.

    Args:
        pixels: RGB `(height, width, 3)`, changed in place.
        number: Of the frame, 0 or more; its low 24 bits are written.
    """
    number %= 1 << _NUMBER_BITS
    word = number << _CHECK_BITS | _check(number)
    height, width = pixels.shape[:2]
    edges = np.linspace(0, width, _CELLS + 1).round().astype(int)
    for cell in range(_CELLS):
        is_set = word >> (_CELLS - 1 - cell) & 1
        pixels[: round(STRIP_HEIGHT * height), edges[cell] : edges[cell + 1]] = 255 * is_set


def read_number(pixels: Pixels) -> int | None:
    """Return the number in a picture's strip; None for a picture without one."""
    height, width = pixels.shape[:2]
    row = pixels[int(STRIP_HEIGHT * height / 2), :, 1]
    columns = ((np.arange(_CELLS) + 0.5) * width / _CELLS).astype(int)
    word = 0
    for level in row[columns].tolist():
        word = word << 1 | (level >= 128)
    number, check = word >> _CHECK_BITS, word & ((1 << _CHECK_BITS) - 1)
    return number if check == _check(number) else None


def person_colour(person_id: int) -> Colour:
    """Return the colour that codes a person, 1 to `MAX_PERSON_ID`."""
    code = _FIRST_CODE + person_id
    red, green, blue = code // _LEVELS**2, code // _LEVELS % _LEVELS, code % _LEVELS
    return (
        _FIRST_LEVEL + _STEP * red,
        _FIRST_LEVEL + _STEP * green,
        _FIRST_LEVEL + _STEP * blue,
    )


def read_person(crop: Pixels) -> int | None:
    """Return whom the crop of a person's box shows; None for nobody."""
    digits = (mean_colour(crop, CODE) // _STEP).clip(0, _LEVELS - 1).astype(int)
    code = int(digits @ (_LEVELS**2, _LEVELS, 1))
    return code - _FIRST_CODE if code > _FIRST_CODE else None


def mean_colour(crop: Pixels, rows: tuple[float, float]) -> NDArray[np.float64]:
    """Return the mean RGB of some rows of a crop, away from its sides."""
    height, width = crop.shape[:2]
    low, high = int(rows[0] * height), max(int(rows[1] * height), int(rows[0] * height) + 1)
    left, right = int(0.35 * width), max(int(0.65 * width), int(0.35 * width) + 1)
    return np.asarray(crop[low:high, left:right].mean(axis=(0, 1)), np.float64)


def _check(number: int) -> int:
    """Check bits; those of number 0 are not 0, so that a black edge is no strip."""
    return zlib.crc32(number.to_bytes(3, "big")) & ((1 << _CHECK_BITS) - 1)
