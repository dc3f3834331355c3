"""Labelled stills, sorted into clips.

The labels of stills do not tell which belong together. So stills whose names differ only in a last
number, and in what Roboflow appends, make one clip; also across the folders `train` and `valid`,
since such sets are often divided frame by frame.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pycocotools import mask as coco_mask

from training.data.clips import PEOPLE, Box, Clip, Person, Sighting
from training.data.files import natural_order
from training.data.pictures import ImageFiles
from training.data.problems import Problems
from training.data.readers.parsing import FrameTable

_ROBOFLOW_SUFFIX = re.compile(r"(_(jpe?g|png))?\.rf\.[0-9a-zA-Z]+$")
_LAST_NUMBER = re.compile(r"[-_ ]*\d+$")


@dataclass(frozen=True, slots=True)
class Labelled:
    """One object of a still.

    Attributes:
        place: File and field or line that it comes from.
        kind: One of the clips' `KINDS`.
        box: xyxy in pixels.
        runs: Its mask as COCO's compressed run lengths; None without one.
        track_id: Its identity; None if the labels know none.
    """

    place: str
    kind: str
    box: Box
    runs: str | None = None
    track_id: int | None = None


@dataclass(frozen=True, slots=True)
class Still:
    """A picture, `size` as `(width, height)`, and what is labelled in it."""

    path: Path
    size: tuple[int, int]
    objects: Sequence[Labelled]


def source_of(file_name: str) -> str:
    """Return what pictures of one source share in their names: all but the last number."""
    stem = _ROBOFLOW_SUFFIX.sub("", Path(file_name).stem)
    return _LAST_NUMBER.sub("", stem) or stem


def clips_of(stills: Iterable[Still], problems: Problems) -> list[Clip]:
    """Return stills as clips of one source and one size; each is tracked if all objects are."""
    groups: dict[tuple[str, tuple[int, int]], list[Still]] = defaultdict(list)
    for still in sorted(stills, key=lambda still: (natural_order(still.path.name), still.path)):
        groups[source_of(still.path.name), still.size].append(still)
    sources = [source for source, _ in groups]
    return [
        _clip(
            source, "" if sources.count(source) == 1 else f"_{size[0]}x{size[1]}", members, problems
        )
        for (source, size), members in groups.items()
    ]


def _clip(source: str, name_suffix: str, stills: list[Still], problems: Problems) -> Clip:
    objects = [labelled for still in stills for labelled in still.objects]
    is_tracked = bool(objects) and all(labelled.track_id is not None for labelled in objects)
    table = FrameTable(len(stills))
    people: dict[int, Person] = {}
    runs: list[dict[int, str]] = [{} for _ in stills]
    for index, still in enumerate(stills):
        for position, labelled in enumerate(still.objects):
            object_id = labelled.track_id if is_tracked else position
            assert object_id is not None
            with problems.each():
                table.add(index, _sighting(labelled, object_id, still.size), labelled.place)
                if is_tracked and labelled.kind in PEOPLE:
                    people[object_id] = Person(object_id, labelled.kind, None, None)
                if labelled.runs is not None:
                    runs[index][object_id] = labelled.runs
    width, height = stills[0].size
    return Clip(
        name=f"{source}{name_suffix}",
        width=width,
        height=height,
        frame_rate=None,
        people=people,
        sightings=table.sightings(),
        pictures=ImageFiles(tuple(still.path for still in stills)),
        is_tracked=is_tracked,
        source=source,
        load_masks=(lambda: runs) if any(runs) else None,
    )


def _sighting(labelled: Labelled, object_id: int, size: tuple[int, int]) -> Sighting:
    visible_px = None
    if labelled.runs is not None:
        rle = {"size": [size[1], size[0]], "counts": labelled.runs.encode()}
        visible_px = int(coco_mask.area(rle))
    return Sighting(object_id, labelled.kind, labelled.box, labelled.box, visible_px)
