"""Shirt numbers: the final word on each track, and what each frame says.

A track stands for the person it is matched with in most frames. It is readable if that person's
number can be read by eye in at least `READABLE_FRAMES` of these frames. Players whose number the
labels do not tell are left out.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from training.data.clips import Person
from training.evaluation.matching import MatchedRun
from training.evaluation.ratios import share
from training.evaluation.runs import Identity

READABLE_FRAMES = 5

_NUMBERLESS = {"referee", "assistant_referee", "other"}


@dataclass(frozen=True, slots=True)
class Reading:
    """One chance to say a number: of a track, or of a player in one frame.

    Attributes:
        is_readable: Whether the number can be read by eye.
        said: The number said, or None.
        confidence: Belief in it, in `[0, 1]`.
        is_right: Whether the number said is the person's.
    """

    is_readable: bool
    said: int | None
    confidence: float
    is_right: bool


@dataclass(frozen=True)
class Numbers:
    """The readings of one clip."""

    tracks: tuple[Reading, ...]
    frames: tuple[Reading, ...]


def measure(matched: MatchedRun) -> Numbers:
    """Collect the readings of one clip; nothing if its labels have no numbers."""
    if all(person.jersey_number is None for person in matched.clip.people.values()):
        return Numbers((), ())
    return Numbers(tuple(_track_readings(matched)), tuple(_frame_readings(matched)))


def figures(parts: Sequence[Numbers]) -> dict[str, Any]:
    """Return the figures of clips taken together, of tracks and, as `frames`, of single frames.

    Returns:
        `readable`, `said`: how many; `right_of_readable`, `precision` (right among said) in
        `[0, 1]`; `risk_coverage`: for each confidence, highest first, `coverage`, the share
        answered with at least this confidence among what is readable or said, and `risk`, the share
        of wrong answers among these.
    """
    tracks = [reading for part in parts for reading in part.tracks]
    frames = [reading for part in parts for reading in part.frames]
    return {**_figures(tracks), "frames": _figures(frames)}


def _track_readings(matched: MatchedRun) -> Iterator[Reading]:
    frames_of: dict[int, Counter[int]] = {}
    readable: Counter[tuple[int, int]] = Counter()
    for frame in matched.frames:
        for player in frame.players:
            frames_of.setdefault(player.track_id, Counter())
        for seen, player in frame.matches:
            frames_of[player.track_id][seen.object_id] += 1
            readable[player.track_id, seen.object_id] += seen.is_number_readable
    for track, people in frames_of.items():
        said = matched.run.tracks[track]
        if not people:  # nobody is there, so whatever is said is wrong
            yield _reading(None, said, is_seen=False)
            continue
        person = people.most_common(1)[0][0]
        if _is_told(matched.clip.people[person]):
            is_seen = readable[track, person] >= READABLE_FRAMES
            yield _reading(matched.clip.people[person].jersey_number, said, is_seen)


def _frame_readings(matched: MatchedRun) -> Iterator[Reading]:
    for frame in matched.frames:
        for seen, player in frame.matches:
            person = matched.clip.people[seen.object_id]
            if _is_told(person):
                yield _reading(person.jersey_number, player.identity, seen.is_number_readable)


def _is_told(person: Person) -> bool:
    """Return whether the labels tell the number, or that there is none."""
    return person.jersey_number is not None or person.kind in _NUMBERLESS


def _reading(true: int | None, said: Identity, is_seen: bool) -> Reading:
    is_right = said.jersey_number is not None and said.jersey_number == true
    return Reading(
        is_seen and true is not None, said.jersey_number, said.number_confidence, is_right
    )


def _figures(readings: Sequence[Reading]) -> dict[str, Any]:
    asked = [reading for reading in readings if reading.is_readable]
    said = [reading for reading in readings if reading.said is not None]
    return {
        "readable": len(asked),
        "said": len(said),
        "right_of_readable": share(sum(reading.is_right for reading in asked), len(asked)),
        "precision": share(sum(reading.is_right for reading in said), len(said)),
        "risk_coverage": _risk_coverage(
            said, sum(r.is_readable or r.said is not None for r in readings)
        ),
    }


def _risk_coverage(said: Sequence[Reading], chances: int) -> dict[str, list[float]]:
    """Return the curve, at 101 steps of confidence."""
    curve: dict[str, list[float]] = {"confidence": [], "coverage": [], "risk": []}
    for step in range(100, -1, -1):
        sure = [reading for reading in said if reading.confidence >= step / 100]
        if sure and len(sure) / chances not in curve["coverage"][-1:]:
            curve["confidence"].append(step / 100)
            curve["coverage"].append(len(sure) / chances)
            curve["risk"].append(1 - sum(reading.is_right for reading in sure) / len(sure))
    return curve
