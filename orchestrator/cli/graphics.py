"""Antialiased drawing on RGB pictures: text, labels, translucent layers, masks and ground rings.

All functions draw in place and accept what lies partly or wholly outside the picture.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from orchestrator.types.pictures import Pixels

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""

Point = tuple[float, float]
"""Column and row in pixels."""

Sprite = NDArray[np.uint8]
"""A small picture with opacity, uint8 `(height, width, 4)`."""

WHITE: Colour = (255, 255, 255)
INK: Colour = (16, 20, 26)

_SUPERSAMPLING = 4
_TINT = 0.4
_SUBPIXEL_BITS = 3


@dataclass(frozen=True, slots=True)
class PlacedMask:
    """The part of a picture's mask that is set.

    Attributes:
        mask: 0 or 1, uint8 `(height, width)`.
        x: Column of its left edge in the picture.
        y: Row of its top edge in the picture.
    """

    mask: NDArray[np.uint8]
    x: int
    y: int


def decode_mask(rle_counts: str, height: int, width: int) -> PlacedMask | None:
    """Decode COCO's compressed run lengths, but only the columns that they reach.

    Returns:
        The mask cut to what is set; None if nothing is, or if the runs do not fill the picture.

    Source:
        `rleFrString` and `rleDecode` of pycocotools, whose `decode` fills a whole picture for each
        object and takes ten times as long.
    """
    runs = np.array(_run_lengths(rle_counts), np.int64)
    if len(runs) < 2 or runs.min() < 0 or runs.sum() != height * width:
        return None
    set_until = len(runs) // 2 * 2
    left = int(runs[0]) // height
    right = int(runs[:set_until].sum() - 1) // height + 1
    band = np.zeros((right - left) * height, np.uint8)
    runs[0] -= left * height
    drawn = np.repeat(np.arange(set_until) % 2, runs[:set_until])
    band[: len(drawn)] = drawn
    columns = band.reshape(right - left, height)
    rows = np.flatnonzero(columns.any(axis=0))
    if not len(rows):
        return None
    mask = columns[:, rows[0] : rows[-1] + 1].T
    return PlacedMask(np.ascontiguousarray(mask), left, int(rows[0]))


def _run_lengths(rle_counts: str) -> list[int]:
    """Unpack run lengths: 5 bits a character, low bits first, from the third on as differences."""
    runs: list[int] = []
    value = shift = 0
    for byte in rle_counts.encode():
        digit = byte - 48
        value |= (digit & 0x1F) << shift
        shift += 5
        if digit & 0x20:
            continue
        if digit & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs


def contrasting(colour: Colour) -> Colour:
    """Return the text colour, dark or white, that is readable on `colour`."""
    red, green, blue = colour
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 150 else WHITE


@lru_cache(maxsize=512)
def text_sprite(text: str, size: int, colour: Colour) -> Sprite:
    """Render one line of text; its height depends on `size` in pixels only."""
    font = _font(size)
    image = Image.new(
        "RGBA", (max(1, round(font.getlength(text))), round(size * 1.25)), (*colour, 0)
    )
    ImageDraw.Draw(image).text((0, image.height / 2), text, (*colour, 255), font, anchor="lm")
    return np.array(image)


@lru_cache(maxsize=2048)
def pill_sprite(text: str, size: int, fill: Colour, opacity: float) -> Sprite:
    """Render a label: text of `size` pixels on a rounded, filled ground."""
    line = Image.fromarray(text_sprite(text, size, contrasting(fill)))
    width, height = line.width + round(size * 0.9), line.height + round(size * 0.1)
    large = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    ImageDraw.Draw(large).rounded_rectangle(
        (0, 0, large.width - 1, large.height - 1),
        radius=0.32 * large.height,
        fill=round(255 * opacity),
    )
    ground = Image.new("RGBA", (width, height), (*fill, 255))
    ground.putalpha(large.resize((width, height), Image.Resampling.BOX))
    ground.alpha_composite(line, ((width - line.width) // 2, (height - line.height) // 2))
    return np.array(ground)


def paste(canvas: Pixels, sprite: Sprite, x: int, y: int) -> None:
    """Lay a sprite over the canvas with its top left corner at `(x, y)`."""
    height, width = sprite.shape[:2]
    x0, y0, x1, y1 = _clip(canvas, x, y, x + width, y + height)
    part = canvas[y0:y1, x0:x1]
    visible = sprite[y0 - y : y1 - y, x0 - x : x1 - x]
    opacity = visible[:, :, 3:].astype(np.uint16)
    part[:] = (visible[:, :, :3] * opacity + part * (255 - opacity)) // 255


@contextmanager
def layer(
    canvas: Pixels, x0: float, y0: float, x1: float, y1: float, *, opacity: float
) -> Iterator[tuple[Pixels, tuple[int, int]]]:
    """Give a copy of a region to draw on, and blend it in with `opacity`, 0 to 1, at the end.

    Yields:
        The copy, perhaps empty, and the canvas position `(x, y)` of its top left corner.
    """
    left, top, right, bottom = _clip(canvas, int(x0), int(y0), int(x1) + 1, int(y1) + 1)
    part = canvas[top:bottom, left:right]
    drawing = part.copy()
    yield drawing, (left, top)
    if part.size:
        part[:] = cv2.addWeighted(drawing, opacity, part, 1 - opacity, 0)


def tint(canvas: Pixels, source: Pixels, placed: PlacedMask, colour: Colour) -> None:
    """Show the masked pixels of `source` on the canvas, tinted and outlined.

    Taking them from the untouched picture hides what was drawn behind the mask before.

    Args:
        canvas: Picture to draw on.
        source: The untouched picture, of the same size.
        placed: The mask, all inside the picture.
        colour: The tint.
    """
    height, width = placed.mask.shape
    region = np.s_[placed.y : placed.y + height, placed.x : placed.x + width]
    flat = np.full((height, width, 3), colour, np.uint8)
    tinted = cv2.addWeighted(source[region], 1 - _TINT, flat, _TINT, 0)
    np.copyto(canvas[region], tinted, where=placed.mask[:, :, np.newaxis].astype(bool))
    outlines, _ = cv2.findContours(
        placed.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(placed.x, placed.y)
    )
    thickness = max(1, round(canvas.shape[0] / 900))
    cv2.polylines(canvas, outlines, True, colour, thickness, cv2.LINE_AA)


def ground_ring(
    canvas: Pixels, centre: Point, radius: float, colour: Colour, thickness: int
) -> None:
    """Draw a flat ring on the pitch, as broadcasters put under a player's feet."""
    flat = 0.36 * radius
    edge = radius + thickness + 1
    box = (centre[0] - edge, centre[1] - edge, centre[0] + edge, centre[1] + edge)
    for opacity, width, end in ((0.28, cv2.FILLED, 360), (0.95, thickness, 300)):
        with layer(canvas, *box, opacity=opacity) as (part, (left, top)):
            if part.size:
                middle = _subpixel(centre[0] - left), _subpixel(centre[1] - top)
                axes = _subpixel(radius), _subpixel(flat)
                cv2.ellipse(
                    part, middle, axes, 0, -60, end - 60, colour, width, cv2.LINE_AA, _SUBPIXEL_BITS
                )


def corner_brackets(
    canvas: Pixels, box: tuple[float, float, float, float], colour: Colour, thickness: int
) -> None:
    """Mark a box `(x_min, y_min, x_max, y_max)` by its four corners."""
    x0, y0, x1, y1 = box
    arm = 0.25 * min(x1 - x0, y1 - y0)
    for x, y, dx, dy in (
        (x0, y0, arm, arm),
        (x1, y0, -arm, arm),
        (x0, y1, arm, -arm),
        (x1, y1, -arm, -arm),
    ):
        corner = np.array([(x + dx, y), (x, y), (x, y + dy)]) * (1 << _SUBPIXEL_BITS)
        points = [corner.round().astype(np.int32)]
        cv2.polylines(canvas, points, False, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def ring(canvas: Pixels, centre: Point, radius: float, colour: Colour, thickness: int) -> None:
    """Draw a circle."""
    middle = _subpixel(centre[0]), _subpixel(centre[1])
    cv2.circle(canvas, middle, _subpixel(radius), colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def dot(canvas: Pixels, centre: Point, radius: float, colour: Colour, opacity: float) -> None:
    """Draw a filled circle with `opacity`, 0 to 1."""
    x, y = centre
    edge = radius + 1
    with layer(canvas, x - edge, y - edge, x + edge, y + edge, opacity=opacity) as (part, origin):
        if part.size:
            ring(part, (x - origin[0], y - origin[1]), radius, colour, cv2.FILLED)


def pointer(canvas: Pixels, tip: Point, size: float, colour: Colour) -> None:
    """Draw a filled triangle that points down to `tip`."""
    x, y = tip
    corners = np.array([(x, y), (x - size, y - 1.4 * size), (x + size, y - 1.4 * size)])
    points = (corners * (1 << _SUBPIXEL_BITS)).round().astype(np.int32)
    cv2.fillConvexPoly(canvas, points, colour, cv2.LINE_AA, _SUBPIXEL_BITS)


def _subpixel(value: float) -> int:
    return round(value * (1 << _SUBPIXEL_BITS))


def _clip(canvas: Pixels, x0: int, y0: int, x1: int, y1: int) -> tuple[int, int, int, int]:
    height, width = canvas.shape[:2]
    left, top = min(max(x0, 0), width), min(max(y0, 0), height)
    return left, top, max(left, min(x1, width)), max(top, min(y1, height))


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
