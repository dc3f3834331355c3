"""Reader of SoccerNet Game State Reconstruction: `Labels-GameState.json` beside `img1/`.

Roles, teams, shirt numbers and pitch positions stand with every box. SoccerNet's pitch has y
towards the near touchline; here it is turned to point away from the camera.

Source: https://github.com/SoccerNet/sn-gamestate and `soccerpitch.py` of sn-calibration
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from training.data.clips import BALL, Clip, Person, Sighting
from training.data.files import files_below, natural_order
from training.data.labels import kind_of
from training.data.pictures import ImageFiles, check_size, image_size
from training.data.problems import Problems
from training.data.readers.parsing import (
    Entry,
    FrameTable,
    Side,
    check_box,
    load_json,
    parse,
    parse_each,
)
from training.errors import InputError

LAYOUT = "sequences with Labels-GameState.json and img1/"
_FILE = "Labels-GameState.json"
_FIRST_SOUND_VERSION = 1.1  # left and right were mixed up before


class _Info(Entry):
    version: str | float | None = None
    name: str | None = None
    game_id: str | int | None = None
    im_dir: str = "img1"
    frame_rate: Annotated[float, Field(gt=0)] | None = None
    seq_length: int | None = None


class _File(Entry):
    info: _Info
    images: list[Any]
    annotations: list[Any]


class _Image(Entry):
    image_id: str
    file_name: str
    width: Side
    height: Side


class _ImageBox(Entry):
    x: float
    y: float
    w: float
    h: float


class _PitchBox(Entry):
    x_bottom_middle: float
    y_bottom_middle: float


class _Attributes(Entry):
    role: Literal["player", "goalkeeper", "referee", "ball", "other"]
    jersey: str | int | None = None
    team: Literal["left", "right"] | None = None


class _Object(Entry):
    image_id: str
    track_id: Annotated[int, Field(ge=0)]
    attributes: _Attributes
    bbox_image: _ImageBox
    bbox_pitch: _PitchBox | None = None


def find(path: Path) -> list[Path]:
    """Return the label files at or below `path`."""
    if path.is_file():
        return [path] if path.name == _FILE else []
    return files_below(path, _FILE)


def read(path: Path, problems: Problems) -> list[Clip]:
    """Read one sequence."""
    file = parse(_File, load_json(path), f"{path}: top level", problems)
    if file is None:
        return []
    _check_version(file.info, path, problems)
    images = _images(file, path, problems)
    if not images:
        raise InputError(f"{path}: images: expected at least one")
    size = images[0].width, images[0].height
    table, people = _objects(file, images, size, path, problems)
    folder = path.parent / file.info.im_dir
    clip = Clip(
        name=file.info.name or path.parent.name,
        width=size[0],
        height=size[1],
        frame_rate=file.info.frame_rate,
        people=people,
        sightings=table.sightings(),
        pictures=ImageFiles(tuple(folder / image.file_name for image in images)),
        is_tracked=True,
        source=f"game {file.info.game_id}" if file.info.game_id else path.parent.name,
    )
    return [clip]


def _check_version(info: _Info, path: Path, problems: Problems) -> None:
    try:
        is_old = info.version is not None and float(info.version) < _FIRST_SOUND_VERSION
    except ValueError:
        is_old = True
    if is_old:
        problems.add(
            f"{path}: info.version: expected {_FIRST_SOUND_VERSION} or newer (teams were mixed up "
            f"before), got {info.version!r}"
        )


def _images(file: _File, path: Path, problems: Problems) -> list[_Image]:
    images: list[_Image] = []
    ids: set[str] = set()
    names: set[Path] = set()
    for index, image in parse_each(_Image, file.images, path, "images", problems):
        place = f"{path}: images[{index}]"
        with problems.each():
            name = Path(image.file_name)
            if name.is_absolute() or ".." in name.parts:
                raise InputError(f"{place}.file_name: expected a name inside {path.parent}")
            if image.image_id in ids:
                raise InputError(f"{place}.image_id: expected an id of its own")
            ids.add(image.image_id)
            if name in names:
                raise InputError(f"{place}.file_name: expected a picture of its own, got {name}")
            names.add(name)
            images.append(image)
            size = image_size(path.parent / file.info.im_dir / name)
            if size != (image.width, image.height):
                raise InputError(
                    f"{place}: expected width and height {size} as in {name}, "
                    f"got {(image.width, image.height)}"
                )
            check_size(path.parent / file.info.im_dir / name, (images[0].width, images[0].height))
    if file.info.seq_length is not None and file.info.seq_length != len(file.images):
        problems.add(
            f"{path}: images: expected seq_length = {file.info.seq_length}, got {len(file.images)}"
        )
    return sorted(images, key=lambda image: natural_order(image.file_name))


def _objects(
    file: _File, images: list[_Image], size: tuple[int, int], path: Path, problems: Problems
) -> tuple[FrameTable, dict[int, Person]]:
    frame_of = {image.image_id: index for index, image in enumerate(images)}
    table = FrameTable(len(images))
    people: dict[int, Person] = {}
    # Pitch lines and cameras are annotations, too.
    objects = [(i, raw) for i, raw in enumerate(file.annotations) if _category(raw) == "object"]
    for index, raw in objects:
        place = f"{path}: annotations[{index}]"
        entry = parse(_Object, raw, place, problems)
        if entry is None:
            continue
        with problems.each():
            if entry.image_id not in frame_of:
                raise InputError(
                    f"{place}.image_id: expected an image's id, got {entry.image_id!r}"
                )
            sighting = _sighting(entry, place, size)
            table.add(frame_of[entry.image_id], sighting, place)
            if not sighting.is_ball:
                _note(people, _person(entry, place), place)
    return table, people


def _category(entry: Any) -> str:
    return str(entry.get("supercategory", "object")) if isinstance(entry, dict) else "object"


def _sighting(entry: _Object, place: str, size: tuple[int, int]) -> Sighting:
    b, pitch = entry.bbox_image, entry.bbox_pitch
    box = (b.x, b.y, b.x + b.w, b.y + b.h)
    check_box(box, f"{place}.bbox_image", size, may_leave=True)
    kind = kind_of(entry.attributes.role) or BALL
    position = None if pitch is None else (pitch.x_bottom_middle, -pitch.y_bottom_middle)
    return Sighting(entry.track_id, kind, box, box, pitch=position)


def _person(entry: _Object, place: str) -> Person:
    said = entry.attributes
    jersey = None if said.jersey in {None, ""} else str(said.jersey)
    if jersey is not None and not (jersey.isdecimal() and len(jersey) <= 2):
        raise InputError(f"{place}.attributes.jersey: expected 0 to 99 or null, got {jersey!r}")
    number = None if jersey is None else int(jersey)
    return Person(entry.track_id, kind_of(said.role) or "other", said.team, number)


def _note(people: dict[int, Person], person: Person, place: str) -> None:
    """Add a person; the same track must be the same person in every frame."""
    known = people.setdefault(person.person_id, person)
    if known != person:
        raise InputError(
            f"{place}.attributes: expected {known.kind}, {known.team}, {known.jersey_number} as "
            f"before for track_id {person.person_id}, "
            f"got {person.kind}, {person.team}, {person.jersey_number}"
        )
