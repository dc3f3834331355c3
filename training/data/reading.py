"""Which format a path holds, and reading or checking it.

`read(path)` returns the clips of any data set that this knows; `check(path)` finds all that is
wrong with it.
"""

from collections import Counter
from pathlib import Path
from typing import Protocol

from training.data.clips import Clip
from training.data.problems import Problems
from training.data.readers import (
    coco,
    davis,
    gamestate,
    mot,
    rendered,
    soccernet_tracking,
    yolo,
)
from training.errors import InputError


class Reader(Protocol):
    """What the modules of `readers` have."""

    LAYOUT: str
    """By which files the format is recognised."""

    def find(self, path: Path) -> list[Path]:
        """Return what `read` takes, at or below a path: one file or folder a clip or set."""
        ...

    def read(self, path: Path, problems: Problems) -> list[Clip]:
        """Read what `find` returned; what is wrong goes to `problems` and is left out."""
        ...


FORMATS: dict[str, Reader] = {
    "rendered": rendered,
    "coco": coco,
    "yolo": yolo,
    "soccernet-gsr": gamestate,
    "soccernet-tracking": soccernet_tracking,
    "mot": mot,
    "davis": davis,
}
"""The readers by name."""


def recognise(path: Path) -> str:
    """Return the name of the format that a file or folder holds.

    Raises:
        InputError: There is nothing at `path`, none of the formats, or more than one.
    """
    if not path.exists():
        raise InputError(f"{path}: expected labelled footage, found nothing")
    found = [name for name, reader in FORMATS.items() if reader.find(path)]
    if len(found) != 1:
        layouts = "; ".join(f"{name}: {reader.LAYOUT}" for name, reader in FORMATS.items())
        got = f"found {' and '.join(found)}" if found else "found none"
        raise InputError(f"{path}: expected one of the layouts {layouts}; {got}")
    return found[0]


def read(path: Path) -> list[Clip]:
    """Return the clips at a path, by name.

    Raises:
        InputError: The path holds no known format, or something in it is not as expected: the
            first problem, naming file, line or field and the expectation.
    """
    return _read(path, Problems(is_strict=True))


def check(path: Path) -> tuple[list[Clip], Problems]:
    """Return what can be read at a path, by name, and everything that is wrong, masks included.

    Raises:
        InputError: The path holds no known format.
    """
    problems = Problems(is_strict=False)
    clips = _read(path, problems)
    for clip in clips:
        with problems.each():
            _ = clip.mask_runs
    return clips, problems


def _read(path: Path, problems: Problems) -> list[Clip]:
    reader = FORMATS[recognise(path)]
    clips: list[Clip] = []
    for unit in reader.find(path):
        with problems.each():
            clips += reader.read(unit, problems)
    for name, count in Counter(clip.name for clip in clips).items():
        if name in {"", ".", ".."} or "/" in name or not name.isprintable():
            problems.add(f"{path}: expected clip names that can name a folder, got {name!r}")
        if count > 1:
            problems.add(f"{path}: expected each clip's name once, got {name} {count} times")
    if not clips and not problems.count:
        problems.add(f"{path}: expected at least one frame, found none")
    return sorted(clips, key=lambda clip: clip.name)
