"""Reader of rendered clips with exact truth.

A clip is three files: `<name>.mp4`, `<name>.gt.json.gz` (boxes, ids, numbers, positions) and
`<name>.masks.json.gz` (COCO run-length masks), the last of which may be absent. Their fields are
those of the models below. `kit_colours` is null if unknown; else it tells of `left` and `right` the
`pattern`, `shirt`, `second` (null if plain) and `shorts`, of `left_goalkeeper` and
`right_goalkeeper` one colour, RGB each. `overlay_boxes` are what is drawn over the picture, such as
a score.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from training.data.clips import BALL, Box, Clip, MaskRuns, Person, Sighting
from training.data.pictures import VideoFile
from training.data.problems import Problems
from training.data.readers.masks import fills
from training.data.readers.parsing import (
    Entry,
    FrameCount,
    FrameTable,
    JsonBox,
    Side,
    check_box,
    load_json,
    parse,
    parse_each,
)
from training.errors import InputError

LAYOUT = "<clip>.gt.json.gz beside <clip>.mp4"
BALL_ID = 30
SUFFIX = ".gt.json.gz"
_ORIGINAL_KITS = "engine originals"
_MOST_DIGITS = 9

_Row = Annotated[tuple[float, float, float], Field(strict=False)]


Sightings = tuple[tuple[Sighting, ...], ...]


class _Truth(Entry):
    width: Side
    height: Side
    fps: Annotated[float, Field(gt=0)]
    n_frames: FrameCount
    seed: int
    kit_colours: dict[str, Any] | None
    overlay_boxes: Annotated[tuple[JsonBox, ...], Field(strict=False)] = ()
    people: list[Any]
    frames: list[Any]


class _Person(Entry):
    id: Annotated[int, Field(ge=0, le=99)]
    kind: Literal["player", "goalkeeper", "referee", "assistant_referee"]
    team: Literal["left", "right"] | None
    jersey_number: Annotated[int, Field(ge=0, le=99)] | None = None


class _Frame(Entry):
    objects: list[Any]
    homography_pitch_to_image: Annotated[tuple[_Row, _Row, _Row], Field(strict=False)] | None = None


class _Object(Entry):
    id: int
    box_full: JsonBox
    box_visible: JsonBox | None
    visible_px: Annotated[int, Field(ge=0)]
    number_box: JsonBox | None = None
    number_px: Annotated[int, Field(ge=0)] = 0
    number_span: Annotated[float, Field(ge=0, le=1)] = 0.0
    world: Annotated[list[float], Field(min_length=2, max_length=3)] | None = None


class _Masks(Entry):
    size: Annotated[tuple[int, int], Field(strict=False)]
    frames: list[dict[str, str]]


def find(path: Path) -> list[Path]:
    """Return the truth files at or in `path`; a clip may be named by its video, too."""
    if path.is_dir():
        return sorted(path.glob(f"*{SUFFIX}"))
    if path.suffix == ".mp4":
        path = path.with_name(f"{path.stem}{SUFFIX}")
    return [path] if path.name.endswith(SUFFIX) and path.is_file() else []


def read(path: Path, problems: Problems) -> list[Clip]:
    """Read the clip of one truth file."""
    raw = load_json(path)
    truth = parse(_Truth, raw, f"{path}: top level", problems)
    if truth is None:
        return []
    name = path.name.removesuffix(SUFFIX)
    people = _people(truth, path, problems)
    frames = dict(parse_each(_Frame, truth.frames, path, "frames", problems))
    table = _table(truth, frames, people, path, problems)
    video = VideoFile(path.with_name(f"{name}.mp4"))
    with problems.each():
        _check_video(video, truth, path)
    sightings = table.sightings()
    clip = Clip(
        name=name,
        width=truth.width,
        height=truth.height,
        frame_rate=truth.fps,
        people=people,
        sightings=sightings,
        pictures=video,
        is_tracked=True,
        source=f"seed {truth.seed}",
        kits=_outfield_kits(truth.kit_colours),
        load_masks=_mask_loader(path.with_name(f"{name}.masks.json.gz"), truth, sightings),
        homographies=_homographies(truth, frames, path, problems),
        header={key: value for key, value in raw.items() if key not in {"frames", "people"}},
    )
    return [clip]


def read_clip(directory: Path, name: str) -> Clip:
    """Read one clip by folder and name.

    Raises:
        InputError: A file of the clip is missing or not as expected; names file and field.
    """
    return read(directory / f"{name}{SUFFIX}", Problems(is_strict=True))[0]


def _people(truth: _Truth, path: Path, problems: Problems) -> dict[int, Person]:
    people: dict[int, Person] = {}
    for index, entry in parse_each(_Person, truth.people, path, "people", problems):
        if entry.id in people or entry.id == BALL_ID:
            problems.add(f"{path}: people[{index}].id: expected an id of its own, got {entry.id}")
        people[entry.id] = Person(entry.id, entry.kind, entry.team, entry.jersey_number)
    return people


def _table(
    truth: _Truth,
    frames: dict[int, _Frame],
    people: dict[int, Person],
    path: Path,
    problems: Problems,
) -> FrameTable:
    table = FrameTable(len(truth.frames))
    for index, frame in frames.items():
        field = f"frames[{index}].objects"
        for position, entry in parse_each(_Object, frame.objects, path, field, problems):
            place = f"{path}: {field}[{position}]"
            with problems.each():
                kind = _kind(entry.id, people, place)
                size = (truth.width, truth.height)
                table.add(index, _sighting(entry, kind, place, size), place)
    return table


def _kind(object_id: int, people: dict[int, Person], place: str) -> str:
    if object_id == BALL_ID:
        return BALL
    if object_id not in people:
        raise InputError(f"{place}.id: expected the id of one of the people, got {object_id}")
    return people[object_id].kind


def _sighting(entry: _Object, kind: str, place: str, size: tuple[int, int]) -> Sighting:
    visible: Box | None = entry.box_visible
    if visible is not None:
        check_box(visible, f"{place}.box_visible", size, may_leave=False)
    number_box: Box | None = entry.number_box
    if number_box is not None:
        check_box(number_box, f"{place}.number_box", size, may_leave=False)
    return Sighting(
        object_id=entry.id,
        kind=kind,
        box_visible=visible,
        box_full=check_box(entry.box_full, f"{place}.box_full", None, may_leave=True),
        visible_px=entry.visible_px,
        number_box=number_box,
        number_px=entry.number_px,
        number_span=entry.number_span,
        pitch=None if entry.world is None else (entry.world[0], entry.world[1]),
    )


def _check_video(video: VideoFile, truth: _Truth, path: Path) -> None:
    if len(truth.frames) != truth.n_frames:
        raise InputError(
            f"{path}: frames: expected n_frames = {truth.n_frames}, got {len(truth.frames)}"
        )
    facts = video.probe()
    if (facts.width, facts.height) != (truth.width, truth.height):
        raise InputError(
            f"{video.path}: expected {truth.width}x{truth.height} as in {path.name}, "
            f"got {facts.width}x{facts.height}"
        )
    if facts.frame_count != truth.n_frames:
        raise InputError(
            f"{video.path}: expected {truth.n_frames} frames as in {path.name}, "
            f"got {facts.frame_count}"
        )


def _outfield_kits(colours: dict[str, Any] | None) -> frozenset[str]:
    """Name both teams' shirts; keepers and officials share a small palette and are left out."""
    if colours is None:
        return frozenset([_ORIGINAL_KITS])
    worn = [colours[side] for side in ("left", "right") if isinstance(colours.get(side), dict)]
    return frozenset(f"{w.get('pattern')} {w.get('shirt')} {w.get('second')}" for w in worn)


def _homographies(
    truth: _Truth, frames: dict[int, _Frame], path: Path, problems: Problems
) -> tuple[NDArray[np.float64] | None, ...]:
    found: list[NDArray[np.float64] | None] = [None] * len(truth.frames)
    for index, frame in frames.items():
        if frame.homography_pitch_to_image is None:
            continue
        found[index] = matrix = np.array(frame.homography_pitch_to_image)
        if np.linalg.matrix_rank(matrix) < len(matrix):
            place = f"{path}: frames[{index}].homography_pitch_to_image"
            problems.add(f"{place}: expected a matrix that can be inverted, got {matrix.tolist()}")
    return tuple(found)


def _mask_loader(path: Path, truth: _Truth, sightings: Sightings) -> Any:
    return (lambda: _load_masks(path, truth, sightings)) if path.is_file() else None


def _load_masks(path: Path, truth: _Truth, sightings: Sightings) -> MaskRuns:
    masks = parse(_Masks, load_json(path), f"{path}: top level", Problems(is_strict=True))
    assert masks is not None
    height, width = masks.size
    if (width, height) != (truth.width, truth.height):
        raise InputError(
            f"{path}: size: expected {[truth.height, truth.width]}, got {list(masks.size)}"
        )
    if len(masks.frames) != truth.n_frames:
        raise InputError(
            f"{path}: frames: expected {truth.n_frames} as in the truth, got {len(masks.frames)}"
        )
    runs = [
        {_checked_id(key, counts, path, index, truth): counts for key, counts in frame.items()}
        for index, frame in enumerate(masks.frames)
    ]
    for index, (frame, seen) in enumerate(zip(runs, sightings, strict=False)):
        for one in seen:
            if one.visible_px and not one.is_ball and one.object_id not in frame:
                raise InputError(
                    f"{path}: frames[{index}]: expected a mask of {one.object_id}, who is in sight"
                )
    return runs


def _checked_id(key: str, counts: str, path: Path, index: int, truth: _Truth) -> int:
    place = f"{path}: frames[{index}].{key}"
    if not key.isdecimal() or len(key) > _MOST_DIGITS:
        raise InputError(f"{place}: expected an object id as key")
    if not fills(counts, truth.width, truth.height):
        raise InputError(f"{place}: expected run lengths of {truth.width}x{truth.height} pixels")
    return int(key)
