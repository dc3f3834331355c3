"""Training tiles: plain, recoloured, zoomed and ball-centred cuts of clips and stills.

A picture is cut into two overlapping squares as high as itself, the same way that serving cuts it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

import cv2
import numpy as np
from pydantic import Field

from orchestrator.types.pictures import Pixels
from training.data.clips import BALL, Box, role_of_kind
from training.data.footage import Clip, Sighting
from training.data.kits import recolour
from training.detector.micro import RESOLUTION
from training.run.config import Frozen

LABELS = ("person", "ball")
"""The labels of the demo weights: roles learnt by colour do not carry over to unseen kits."""

ROLE_LABELS = ("player", "goalkeeper", "referee", "ball")
"""The labels of soccer fine-tunes."""

BALL_SIDE_720 = 12.0
"""A smaller ball box is grown to this about its centre, in pixels of a 720-line picture: a box of a
few pixels cannot be matched by overlap."""

MIN_VISIBLE_PX = {"person": 40.0, "ball": 8.0}
"""Something with fewer visible source pixels is neither taught nor asked for."""

_PERSON_HEIGHTS = (30.0, 130.0)
"""Heights that the zoomed crops give the median person, in pixels of a 720-line picture."""
_CROP_SIDES = (300.0, 1100.0)
"""Sides of the zoomed crops, in pixels of a 720-line picture."""
_BALL_CROP_SIDES = (0.36, 0.62)
"""Sides of the crops round the ball, as shares of the frame's height; serving uses 0.5."""


class Recipe(Frozen):
    """How many tiles of which kind are cut from rendered clips."""

    frame_step: int = Field(default=5, gt=0)
    """Every so many frames one is cut."""
    recoloured_pairs: int = Field(default=2, ge=0)
    """Tile pairs a frame with new kits."""
    zoomed_crops: int = Field(default=6, ge=0)
    """Crops a frame with new kits that zoom in or out."""
    ball_crops: int = Field(default=2, ge=0)
    """Crops a ball with new kits, at the scale of the ball's own tile in serving."""
    still_crops: int = Field(default=40, ge=0)
    """Crops a still that zoom in or out; nothing is repainted, since stills have no masks."""


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of a picture in pixels; it may reach beyond the picture."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Target:
    """One object to be found.

    Attributes:
        label: One of the labels that are taught.
        box: xyxy in pixels.
        visible_px: Number of its visible pixels in the source picture.
    """

    label: str
    box: Box
    visible_px: float

    @property
    def is_ball(self) -> bool:
        """Whether this is the ball."""
        return self.label == "ball"

    @property
    def is_seen(self) -> bool:
        """Whether enough of it is visible to be taught and asked for."""
        return self.visible_px >= MIN_VISIBLE_PX["ball" if self.is_ball else "person"]


def training_tiles(
    clip: Clip, recipe: Recipe, labels: Sequence[str], resolution: int, rng: np.random.Generator
) -> Iterator[tuple[Pixels, list[Target]]]:
    """Yield the tiles of every `frame_step`-th frame: plain pair, recoloured pairs, crops.

    The mix is there from the start, since a network that sees one scale or one kit for a while
    forgets the others.
    """
    for index, picture in clip.every(recipe.frame_step):
        targets = frame_targets(clip.sightings[index], labels)
        masks = clip.masks(index)
        pair = tile_regions(picture.shape[1], picture.shape[0])
        yield from (cut(picture, targets, region, resolution) for region in pair)
        for _ in range(recipe.recoloured_pairs):
            repainted = recolour(picture, masks, clip.people, rng)
            yield from (cut(repainted, targets, region, resolution) for region in pair)
        for _ in range(recipe.zoomed_crops):
            repainted = recolour(picture, masks, clip.people, rng)
            yield cut(repainted, targets, draw_region(picture, targets, rng), resolution)
        for ball in [target for target in targets if target.is_ball] * recipe.ball_crops:
            repainted = recolour(picture, masks, clip.people, rng)
            yield cut(repainted, targets, draw_ball_region(picture, ball, rng), resolution)


def still_tiles(
    clip: Clip, recipe: Recipe, labels: Sequence[str], resolution: int, rng: np.random.Generator
) -> Iterator[tuple[Pixels, list[Target]]]:
    """Yield the tiles of every still: the plain pair, and zoomed crops."""
    yield from plain_tiles(clip, 1, labels, resolution)
    for index, picture in clip.every(1):
        targets = frame_targets(clip.sightings[index], labels)
        for _ in range(recipe.still_crops):
            yield cut(picture, targets, draw_region(picture, targets, rng), resolution)


def plain_tiles(
    clip: Clip, step: int, labels: Sequence[str], resolution: int
) -> Iterator[tuple[Pixels, list[Target]]]:
    """Yield both tiles of every `step`-th frame, as filmed."""
    for index, picture in clip.every(step):
        targets = frame_targets(clip.sightings[index], labels)
        for region in tile_regions(picture.shape[1], picture.shape[0]):
            yield cut(picture, targets, region, resolution)


def tile_regions(width: int, height: int) -> tuple[Region, Region]:
    """Return the left and the right square of a picture at least as wide as high."""
    return Region(0, 0, height, height), Region(width - height, 0, height, height)


def frame_targets(sightings: Iterable[Sighting], labels: Sequence[str] = LABELS) -> list[Target]:
    """Return what can be seen in a frame; boxes go round the visible pixels."""
    return [
        Target(label, seen.box_visible, seen.visible_px_at_most)
        for seen in sightings
        if seen.box_visible is not None and (label := label_of(seen.kind, labels)) is not None
    ]


def label_of(kind: str, labels: Sequence[str]) -> str | None:
    """Return the label that stands for one of the clips' `KINDS`; None if there is none."""
    is_person = kind != BALL and "person" in labels
    label = "person" if is_person else role_of_kind(kind)
    return label if label in labels else None


def draw_region(picture: Pixels, targets: list[Target], rng: np.random.Generator) -> Region:
    """Draw a crop that gives the median person a height between 30 and 130 px of 720 lines.

    Crops that zoom out reach above and below the picture.
    """
    frame_height, frame_width = picture.shape[:2]
    heights = [t.box[3] - t.box[1] for t in targets if not t.is_ball]
    low, high = _PERSON_HEIGHTS
    wanted = math.exp(rng.uniform(math.log(low), math.log(high)))
    side = 720 * (median(heights) if heights else wanted) / wanted
    least, most = _CROP_SIDES
    height = round(float(np.clip(side * 720 / frame_height, least, most)) * frame_height / 720)
    width = min(round(height * rng.uniform(0.85, 1.2)), frame_width)
    x = int(rng.integers(0, frame_width - width + 1))
    y = int(rng.integers(min(0, frame_height - height), max(0, frame_height - height) + 1))
    return Region(x, y, width, height)


def draw_ball_region(picture: Pixels, ball: Target, rng: np.random.Generator) -> Region:
    """Draw a square inside the picture that holds the ball anywhere in it."""
    frame_height, frame_width = picture.shape[:2]
    side = round(frame_height * rng.uniform(*_BALL_CROP_SIDES))
    centre_x, centre_y = (ball.box[0] + ball.box[2]) / 2, (ball.box[1] + ball.box[3]) / 2
    x, y = (round(c - side * rng.uniform(0.1, 0.9)) for c in (centre_x, centre_y))
    return Region(
        min(max(x, 0), frame_width - side), min(max(y, 0), frame_height - side), side, side
    )


def cut(
    picture: Pixels, targets: list[Target], region: Region, resolution: int = RESOLUTION
) -> tuple[Pixels, list[Target]]:
    """Cut a region and resize it to a square of side `resolution`; grey where the picture ends.

    Returns:
        The tile, and in tile pixels the targets of which enough is still visible.
    """
    height, width = picture.shape[:2]
    top, bottom = max(0, -region.y), max(0, region.y + region.height - height)
    left, right = max(0, -region.x), max(0, region.x + region.width - width)
    inside = picture[
        region.y + top : region.y + region.height - bottom,
        region.x + left : region.x + region.width - right,
    ]
    padded = cv2.copyMakeBorder(
        inside, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(114, 114, 114)
    )
    shrinks = region.height > resolution
    tile = cv2.resize(
        padded,
        (resolution, resolution),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    kept = (_within(target, region, resolution) for target in targets)
    return tile.astype(np.uint8, copy=False), [target for target in kept if target is not None]


def _within(target: Target, region: Region, resolution: int) -> Target | None:
    x0, y0, x1, y1 = target.box
    left, right = max(x0, region.x), min(x1, region.x + region.width)
    top, bottom = max(y0, region.y), min(y1, region.y + region.height)
    if right <= left or bottom <= top:
        return None
    share = (right - left) * (bottom - top) / ((x1 - x0) * (y1 - y0))
    part = replace(target, visible_px=target.visible_px * share)
    if not part.is_seen:
        return None
    sx, sy = resolution / region.width, resolution / region.height
    box = (
        (left - region.x) * sx,
        (top - region.y) * sy,
        (right - region.x) * sx,
        (bottom - region.y) * sy,
    )
    return replace(part, box=_grow(box, resolution) if target.is_ball else box)


def _grow(box: Box, resolution: int) -> Box:
    smallest = BALL_SIDE_720 * resolution / 720
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_width = max(box[2] - box[0], smallest) / 2
    half_height = max(box[3] - box[1], smallest) / 2
    return (
        max(cx - half_width, 0.0),
        max(cy - half_height, 0.0),
        min(cx + half_width, float(resolution)),
        min(cy + half_height, float(resolution)),
    )
