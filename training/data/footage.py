"""Rendered match clips with exact truth, in one typed in-memory form.

A clip is three files: `<name>.mp4`, `<name>.gt.json.gz` (boxes, ids, numbers) and
`<name>.masks.json.gz` (COCO run-length masks). Boxes are xyxy in pixels, `max` exclusive.
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

BALL_ID = 30


@dataclass(frozen=True, slots=True)
class Person:
    """One person of a clip; `kind` is player, goalkeeper, referee or assistant_referee."""

    person_id: int
    kind: str
    team: str | None
    jersey_number: int | None


@dataclass(frozen=True, slots=True)
class Sighting:
    """One person or the ball in one frame.

    Attributes:
        object_id: Person id, or `BALL_ID`.
        box_visible: Tight box of the visible pixels; None if fully hidden.
        box_full: Box of the whole body, hidden and off-image parts included.
        number_box: Box of the visible pixels of the back number; None if none is visible.
        number_span: Share of the number's width that is seen, in `[0, 1]`.
    """

    object_id: int
    box_visible: tuple[float, float, float, float] | None
    box_full: tuple[float, float, float, float]
    visible_px: int
    number_box: tuple[float, float, float, float] | None
    number_px: int
    number_span: float

    @property
    def is_ball(self) -> bool:
        """Whether this is the ball."""
        return self.object_id == BALL_ID

    @property
    def is_number_readable(self) -> bool:
        """Whether a person could read the back number: nearly all of it seen, and large enough."""
        return self.number_span > 0.85 and self.number_px >= 60


@dataclass(frozen=True)
class Clip:
    """One rendered clip and its truth."""

    directory: Path
    name: str
    header: dict[str, Any]
    people: dict[int, Person]
    sightings: tuple[tuple[Sighting, ...], ...]
    """Per frame, everything whose full box meets the picture."""

    @property
    def video(self) -> Path:
        """The clip's video file."""
        return self.directory / f"{self.name}.mp4"

    @cached_property
    def _masks(self) -> dict[str, Any]:
        path = self.directory / f"{self.name}.masks.json.gz"
        return dict(json.loads(gzip.decompress(path.read_bytes())))

    def masks(self, frame_index: int) -> dict[int, NDArray[np.uint8]]:
        """Return the visible masks of a frame by object id, uint8 0/1 `(height, width)`."""
        size = self._masks["size"]
        return {
            int(object_id): coco_mask.decode({"size": size, "counts": counts.encode()})
            for object_id, counts in self._masks["frames"][frame_index].items()
        }

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the pictures in order, RGB uint8 `(height, width, 3)`."""
        with av.open(str(self.video)) as container:
            for picture in container.decode(video=0):
                yield np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)


def read_clip(directory: Path, name: str) -> Clip:
    """Read the truth of one clip.

    Raises:
        FileNotFoundError: A file of the clip is missing.
        ValueError: The truth is not in the expected form; names file and field.
    """
    path = directory / f"{name}.gt.json.gz"
    truth = json.loads(gzip.decompress(path.read_bytes()))
    try:
        people = {p["id"]: _person(p) for p in truth["people"]}
        sightings = tuple(
            tuple(_sighting(seen) for seen in frame["objects"]) for frame in truth["frames"]
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected field {error} of a rendered clip's truth") from error
    header = {key: value for key, value in truth.items() if key not in {"frames", "people"}}
    return Clip(directory, name, header, people, sightings)


def _person(entry: dict[str, Any]) -> Person:
    return Person(entry["id"], entry["kind"], entry["team"], entry.get("jersey_number"))


def _box(values: list[float] | None) -> tuple[float, float, float, float] | None:
    return None if values is None else (values[0], values[1], values[2], values[3])


def _sighting(entry: dict[str, Any]) -> Sighting:
    full = _box(entry["box_full"])
    assert full is not None
    return Sighting(
        object_id=entry["id"],
        box_visible=_box(entry["box_visible"]),
        box_full=full,
        visible_px=entry["visible_px"],
        number_box=_box(entry.get("number_box")),
        number_px=entry.get("number_px", 0),
        number_span=entry.get("number_span", 0.0),
    )
