"""Reader of MOTChallenge sequences.

A sequence is a folder with `seqinfo.ini`, `gt/gt.txt` and its pictures (`img1/`). A line of
`gt.txt` is `frame,id,left,top,width,height,considered,class,visibility`, or with `-1,-1,-1` at its
end in older sets; frames count from 1. Lines that are not considered are left out.

Source: https://arxiv.org/abs/1603.00831, table 5 and section 3.1
"""

from dataclasses import dataclass
from pathlib import Path

from training.data.clips import PEOPLE, Clip, Person, Sighting
from training.data.files import files_below
from training.data.pictures import (
    MAX_FRAMES,
    MAX_SIDE,
    ImageFiles,
    check_size,
    image_size,
    images_in,
)
from training.data.problems import Problems
from training.data.readers.parsing import (
    FrameTable,
    check_box,
    numbers,
    rate,
    read_section,
    rows,
    setting,
)
from training.errors import InputError

LAYOUT = "sequences with seqinfo.ini and gt/gt.txt"
_CLASS_COUNT = 13
_PEOPLE_CLASSES = {-1, 1, 2, 7}
"""Not told, pedestrian, person on vehicle, static person."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """What `seqinfo.ini` tells."""

    directory: Path
    name: str
    size: tuple[int, int]
    frame_rate: float
    frame_count: int
    pictures: tuple[Path, ...]


def sequences(path: Path) -> list[Path]:
    """Return the folders of sequences at or below `path`, by path."""
    if path.is_file():
        folder = {"gt.txt": path.parent.parent, "seqinfo.ini": path.parent}.get(path.name)
        return [folder] if folder and (folder / "seqinfo.ini").is_file() else []
    return [file.parent for file in files_below(path, "seqinfo.ini")]


def find(path: Path) -> list[Path]:
    """Return the sequences at or below `path` that have no `gameinfo.ini` of SoccerNet's."""
    return [folder for folder in sequences(path) if not (folder / "gameinfo.ini").exists()]


def read(directory: Path, problems: Problems) -> list[Clip]:
    """Read one sequence."""
    sequence = read_sequence(directory, problems)
    table, people = read_truth(sequence, None, problems)
    return [tracked_clip(sequence, table, people, sequence.name)]


def read_sequence(directory: Path, problems: Problems) -> Sequence:
    """Read `seqinfo.ini` and list the pictures."""
    path = directory / "seqinfo.ini"
    section = read_section(path, "Sequence")
    size = setting(section, "imWidth", path, MAX_SIDE), setting(section, "imHeight", path, MAX_SIDE)
    sequence = Sequence(
        directory=directory,
        name=section.get("name", directory.name),
        size=size,
        frame_rate=rate(section, "frameRate", path),
        frame_count=setting(section, "seqLength", path, MAX_FRAMES),
        pictures=images_in(directory / section.get("imdir", "img1")),
    )
    with problems.each():
        _check_pictures(sequence, path, problems)
    return sequence


def _check_pictures(sequence: Sequence, path: Path, problems: Problems) -> None:
    if len(sequence.pictures) != sequence.frame_count:
        raise InputError(
            f"{path}: seqLength: expected {len(sequence.pictures)}, the number of pictures, "
            f"got {sequence.frame_count}"
        )
    first = image_size(sequence.pictures[0])
    if first != sequence.size:
        raise InputError(
            f"{path}: imWidth, imHeight: expected {first} as in {sequence.pictures[0].name}, "
            f"got {sequence.size}"
        )
    for picture in sequence.pictures[1:]:
        with problems.each():
            check_size(picture, first)


def read_truth(
    sequence: Sequence, named: dict[int, Person | None] | None, problems: Problems
) -> tuple[FrameTable, dict[int, Person]]:
    """Read `gt/gt.txt`.

    Args:
        sequence: The sequence.
        named: Every id's person, None for the ball, if another file names them; else classes count.
        problems: Where problems go.
    """
    table = FrameTable(sequence.frame_count)
    people: dict[int, Person] = {}
    path = sequence.directory / "gt" / "gt.txt"
    lines = list(rows(path, ","))
    if not lines:
        problems.add(f"{path}: expected at least one line, found none")
    for place, columns in lines:
        with problems.each():
            values = _values(columns, place)
            if values[6] == 0:
                continue
            object_id = int(values[1])
            kind = _kind(object_id, int(values[7]), named, place)
            x, y, width, height = values[2:6]
            box = check_box((x, y, x + width, y + height), place, sequence.size, may_leave=True)
            frame_index = _frame_index(values[0], sequence, place)
            table.add(frame_index, Sighting(object_id, kind, box, box), place)
            person = named[object_id] if named is not None else Person(object_id, kind, None, None)
            if kind in PEOPLE and person is not None:
                people[object_id] = person
    return table, people


def tracked_clip(
    sequence: Sequence, table: FrameTable, people: dict[int, Person], source: str
) -> Clip:
    """Return the clip of a sequence."""
    return Clip(
        name=sequence.name,
        width=sequence.size[0],
        height=sequence.size[1],
        frame_rate=sequence.frame_rate,
        people=people,
        sightings=table.sightings(),
        pictures=ImageFiles(sequence.pictures),
        is_tracked=True,
        source=source,
    )


def _values(columns: list[str], place: str) -> list[float]:
    if len(columns) not in {9, 10}:
        raise InputError(f"{place}: expected 9 or 10 columns, got {len(columns)}")
    values = numbers(columns, place)
    for position in (0, 1, 7):
        if not values[position].is_integer():
            raise InputError(
                f"{place}, column {position + 1}: expected a whole number, got {columns[position]}"
            )
    if values[1] < 0:
        raise InputError(f"{place}, column 2: expected an id of 0 or more, got {columns[1]}")
    return values


def _frame_index(number: float, sequence: Sequence, place: str) -> int:
    if not 1 <= number <= sequence.frame_count:
        raise InputError(
            f"{place}, column 1: expected a frame of 1 to {sequence.frame_count}, got {number:g}"
        )
    return int(number) - 1


def _kind(object_id: int, class_id: int, named: dict[int, Person | None] | None, place: str) -> str:
    if named is None:
        if class_id != -1 and not 1 <= class_id <= _CLASS_COUNT:
            raise InputError(
                f"{place}, column 8: expected a class of 1 to {_CLASS_COUNT}, or -1, got {class_id}"
            )
        return "person" if class_id in _PEOPLE_CLASSES else "object"
    if object_id not in named:
        raise InputError(f"{place}, column 2: expected a tracklet of gameinfo.ini, got {object_id}")
    person = named[object_id]
    return "ball" if person is None else person.kind
