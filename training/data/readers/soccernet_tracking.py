"""Reader of SoccerNet Tracking: MOTChallenge sequences with `gameinfo.ini`.

`gameinfo.ini` names every tracklet, `trackletID_7= player team left;10`: role, team and, if it is a
number, the shirt's. Letters stand for shirts that could not be read.

Source: https://github.com/SoccerNet/sn-tracking
"""

import re
from pathlib import Path

from training.data.clips import Clip, Person
from training.data.labels import KNOWN_LABELS, kind_of, team_of
from training.data.problems import Problems
from training.data.readers.mot import read_sequence, read_truth, sequences, tracked_clip
from training.data.readers.parsing import read_section
from training.errors import InputError

LAYOUT = "sequences with seqinfo.ini, gameinfo.ini and gt/gt.txt"
_KEY = re.compile(r"trackletid_(\d{1,9})")


def find(path: Path) -> list[Path]:
    """Return the sequences at or below `path` that have a `gameinfo.ini`."""
    return [folder for folder in sequences(path) if (folder / "gameinfo.ini").exists()]


def read(directory: Path, problems: Problems) -> list[Clip]:
    """Read one sequence."""
    path = directory / "gameinfo.ini"
    section = read_section(path, "Sequence")
    named: dict[int, Person | None] = {}
    for key, text in section.items():
        match = _KEY.fullmatch(key)
        if match is not None:
            with problems.each():
                person_id = int(match[1])
                named[person_id] = _person(person_id, text, f"{path}: trackletID_{person_id}")
    sequence = read_sequence(directory, problems)
    table, people = read_truth(sequence, named, problems)
    game = section.get("gameid")
    return [tracked_clip(sequence, table, people, f"game {game}" if game else sequence.name)]


def _person(person_id: int, text: str, place: str) -> Person | None:
    """Return who a tracklet is; None for the ball."""
    label, _, detail = (part.strip() for part in text.partition(";"))
    kind = kind_of(label)
    if kind is None:
        raise InputError(f"{place}: expected one of the labels {KNOWN_LABELS}, got {label!r}")
    if kind == "ball":
        return None
    if kind == "referee" and detail.startswith("side"):
        kind = "assistant_referee"
    number = int(detail) if detail.isdecimal() and len(detail) <= 2 else None
    wears_number = kind in {"player", "goalkeeper"}
    return Person(person_id, kind, team_of(label), number if wears_number else None)
