"""Training tiles for the detector: plain, recoloured and zoomed cuts of rendered clips.

A picture is cut into two overlapping squares as high as itself, the same way that serving cuts it.
The folder written here has the roboflow-COCO layout that rfdetr reads: `train/` and `valid/`, each
with JPEG tiles and `_annotations.coco.json`.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from orchestrator.types import Pixels
from training.data.footage import Clip, Sighting, read_clip
from training.data.kits import recolour

Box = tuple[float, float, float, float]

LABELS = ("person", "ball")
"""The labels in the order of the network's columns."""

RESOLUTION = 512
"""Side of a tile, as the network takes it, in pixels."""

TRAIN_CLIPS = tuple(
    f"dev_{n:02d}" for n in (*range(1, 5), *range(6, 13), *range(15, 31)) if n not in {18, 22}
)
VALID_CLIPS = ("dev_05", "dev_13", "dev_14")
"""Watched during training and used to choose thresholds; never trained on."""

FRAME_STEP = 5
RECOLOURED_PAIRS = 2
ZOOMED_CROPS = 6
BALL_CROPS = 2
PERSON_HEIGHTS = (30.0, 130.0)
"""Heights that the zoomed crops give the median person, in pixels of a 720-line picture."""

MIN_BALL_SIDE = 8.5
"""A smaller ball box is grown to this, in tile pixels: 12 px of a 720-line picture."""

MIN_VISIBLE_PX = {"person": 40.0, "ball": 8.0}
"""Something with fewer visible source pixels is neither taught nor asked for."""

_CROP_SIDES = (300.0, 1100.0)
_BALL_CROP_SIDES = (0.36, 0.62)
"""Sides of the crops round the ball, as shares of the frame's height; serving uses 0.5."""
_JPEG_QUALITY = 93


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
        label: One of `LABELS`.
        box: xyxy in pixels.
        visible_px: Number of its visible pixels in the source picture.
    """

    label: str
    box: Box
    visible_px: float


@dataclass
class CocoFolder:
    """One split of a roboflow-COCO data set, filled tile by tile.

    Attributes:
        directory: Folder of the split; created if absent.
    """

    directory: Path
    _images: list[dict[str, object]] = field(default_factory=list)
    _annotations: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)

    def add(self, tile: Pixels, targets: Iterable[Target]) -> None:
        """Write one RGB tile `(RESOLUTION, RESOLUTION, 3)` and note its targets."""
        image_id = len(self._images)
        name = f"{image_id:06d}.jpg"
        jpeg = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        cv2.imwrite(str(self.directory / name), cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), jpeg)
        height, width = tile.shape[:2]
        self._images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for target in targets:
            x0, y0, x1, y1 = target.box
            self._annotations.append(
                {
                    "id": len(self._annotations),
                    "image_id": image_id,
                    "category_id": LABELS.index(target.label),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    "segmentation": [],
                }
            )

    def close(self) -> None:
        """Write the annotation file; the split is complete once it exists."""
        categories = [
            {"id": index, "name": name, "supercategory": "none"}
            for index, name in enumerate(LABELS)
        ]
        annotations = {
            "info": {},
            "images": self._images,
            "annotations": self._annotations,
            "categories": categories,
        }
        (self.directory / "_annotations.coco.json").write_text(json.dumps(annotations))


def write_dataset(footage: Path, folder: Path, seed: int) -> None:
    """Write the `train` and `valid` splits into `folder`; a complete split is left as it is.

    Raises:
        FileNotFoundError: A clip is missing in `footage`.
    """
    rng = np.random.default_rng(seed)
    if not (folder / "train" / "_annotations.coco.json").exists():
        train = CocoFolder(folder / "train")
        for name in TRAIN_CLIPS:
            for tile, targets in training_tiles(read_clip(footage, name), rng):
                train.add(tile, targets)
        train.close()
    if not (folder / "valid" / "_annotations.coco.json").exists():
        valid = CocoFolder(folder / "valid")
        for name in VALID_CLIPS:
            for tile, targets in plain_tiles(read_clip(footage, name), 4 * FRAME_STEP):
                valid.add(tile, targets)
        valid.close()


def training_tiles(clip: Clip, rng: np.random.Generator) -> Iterator[tuple[Pixels, list[Target]]]:
    """Yield the tiles of every `FRAME_STEP`-th frame: plain pair, recoloured pairs, zoomed crops.

    The mix is there from the start, since a network that sees one scale or one kit for a while
    forgets the others.
    """
    for index, picture in _every(clip, FRAME_STEP):
        targets = frame_targets(clip.sightings[index])
        masks = clip.masks(index)
        pair = tile_regions(picture.shape[1], picture.shape[0])
        yield from (cut(picture, targets, region) for region in pair)
        for _ in range(RECOLOURED_PAIRS):
            repainted = recolour(picture, masks, clip.people, rng)
            yield from (cut(repainted, targets, region) for region in pair)
        for _ in range(ZOOMED_CROPS):
            repainted = recolour(picture, masks, clip.people, rng)
            yield cut(repainted, targets, draw_region(picture, targets, rng))
        for ball in [target for target in targets if target.label == "ball"] * BALL_CROPS:
            repainted = recolour(picture, masks, clip.people, rng)
            yield cut(repainted, targets, draw_ball_region(picture, ball, rng))


def plain_tiles(clip: Clip, step: int) -> Iterator[tuple[Pixels, list[Target]]]:
    """Yield both tiles of every `step`-th frame, as filmed."""
    for index, picture in _every(clip, step):
        targets = frame_targets(clip.sightings[index])
        for region in tile_regions(picture.shape[1], picture.shape[0]):
            yield cut(picture, targets, region)


def tile_regions(width: int, height: int) -> tuple[Region, Region]:
    """Return the left and the right square of a picture at least as wide as high."""
    return Region(0, 0, height, height), Region(width - height, 0, height, height)


def frame_targets(sightings: Iterable[Sighting]) -> list[Target]:
    """Return what can be seen in a frame; boxes go round the visible pixels."""
    return [
        Target("ball" if seen.is_ball else "person", seen.box_visible, seen.visible_px)
        for seen in sightings
        if seen.box_visible is not None
    ]


def draw_region(picture: Pixels, targets: list[Target], rng: np.random.Generator) -> Region:
    """Draw a crop that gives the median person a height within `PERSON_HEIGHTS`.

    Crops that zoom out reach above and below the picture.
    """
    frame_height, frame_width = picture.shape[:2]
    heights = [t.box[3] - t.box[1] for t in targets if t.label == "person"]
    low, high = PERSON_HEIGHTS
    wanted = math.exp(rng.uniform(math.log(low), math.log(high)))
    side = 720 * (median(heights) if heights else wanted) / wanted
    height = round(float(np.clip(side, *_CROP_SIDES)))
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


def cut(picture: Pixels, targets: list[Target], region: Region) -> tuple[Pixels, list[Target]]:
    """Cut a region and resize it to the square `RESOLUTION`; grey where the picture ends.

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
    shrinks = region.height > RESOLUTION
    tile = cv2.resize(
        padded,
        (RESOLUTION, RESOLUTION),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    kept = (_within(target, region) for target in targets)
    return tile.astype(np.uint8, copy=False), [target for target in kept if target is not None]


def _within(target: Target, region: Region) -> Target | None:
    x0, y0, x1, y1 = target.box
    left, right = max(x0, region.x), min(x1, region.x + region.width)
    top, bottom = max(y0, region.y), min(y1, region.y + region.height)
    if right <= left or bottom <= top:
        return None
    share = (right - left) * (bottom - top) / ((x1 - x0) * (y1 - y0))
    if target.visible_px * share < MIN_VISIBLE_PX[target.label]:
        return None
    sx, sy = RESOLUTION / region.width, RESOLUTION / region.height
    box = (
        (left - region.x) * sx,
        (top - region.y) * sy,
        (right - region.x) * sx,
        (bottom - region.y) * sy,
    )
    if target.label == "ball":
        box = _grow(box)
    return Target(target.label, box, target.visible_px * share)


def _grow(box: Box) -> Box:
    """Grow a ball box about its centre: a few pixels cannot be matched by overlap."""
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half_width = max(box[2] - box[0], MIN_BALL_SIDE) / 2
    half_height = max(box[3] - box[1], MIN_BALL_SIDE) / 2
    return (
        max(cx - half_width, 0.0),
        max(cy - half_height, 0.0),
        min(cx + half_width, float(RESOLUTION)),
        min(cy + half_height, float(RESOLUTION)),
    )


def _every(clip: Clip, step: int) -> Iterator[tuple[int, Pixels]]:
    truth = range(len(clip.sightings))
    for index, picture in zip(truth, clip.frames(), strict=False):
        if index % step == 0:
            yield index, picture
