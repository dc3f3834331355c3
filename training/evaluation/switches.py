"""Every identity switch with its frame and its likely cause."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from orchestrator.imaging import iou, stacked
from training.data.clips import Sighting
from training.evaluation.matching import MatchedFrame, MatchedRun

CAUSES = {
    "cut": "the camera cut, or people were moved, since the person was last matched",
    "taken_over": "the new track had been another person's",
    "returned": "the person had been out of view in between",
    "crossing": "another person overlapped the person in between",
    "lost": "none of these: the track was dropped, or left the person, in plain view",
}
"""Causes by name; where several hold, the first is named."""

MOMENT_FRAMES = 5
"""For so many matched frames a track may show another person, and it is a slip."""
_CROSSING_IOU = 0.05


@dataclass(frozen=True, slots=True)
class Switch:
    """A person is matched with another track than when last matched."""

    clip: str
    frame_index: int
    person_id: int
    from_track: int
    to_track: int
    last_matched: int
    cause: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def find(matched: MatchedRun) -> Iterator[Switch]:
    """Yield the switches of a run, as CLEAR MOT counts them."""
    cuts = _cuts(matched.frames)
    last: dict[int, tuple[int, int]] = {}
    person_of: dict[int, int] = {}
    for frame in matched.frames:
        for seen, player in frame.matches:
            person, track = seen.object_id, player.track_id
            before, since = last.get(person, (track, frame.index))
            last[person] = track, frame.index
            if before == track:
                continue
            between = matched.frames[since : frame.index + 1]
            is_taken = person_of.get(track, person) != person
            cause = _cause(person, between, cuts, is_taken)
            yield Switch(matched.clip.name, frame.index, person, before, track, since, cause)
        person_of |= {player.track_id: seen.object_id for seen, player in frame.matches}


def takeovers(matched: MatchedRun) -> int:
    """Count how often a track went over from one person to another, for long on both sides."""
    followed = defaultdict[int, list[int]](list)
    for frame in matched.frames:
        for seen, player in frame.matches:
            followed[player.track_id].append(seen.object_id)
    return sum(_changes(people) for people in followed.values())


def causes(switches: Iterable[Switch]) -> dict[str, int]:
    """Count the switches by cause."""
    counts = Counter(switch.cause for switch in switches)
    return {cause: counts[cause] for cause in CAUSES}


def _changes(people: Iterable[int]) -> int:
    """Count the changes of person, moments left out."""
    runs = ((person, sum(1 for _ in run)) for person, run in groupby(people))
    steady = [person for person, length in runs if length > MOMENT_FRAMES]
    return sum(one != other for one, other in pairwise(steady))


def _cause(
    person: int, between: Sequence[MatchedFrame], cuts: Collection[int], is_taken: bool
) -> str:
    if any(frame.index in cuts for frame in between[1:]):
        return "cut"
    if is_taken:
        return "taken_over"
    sightings = [[seen for seen in f.people if seen.object_id == person] for f in between]
    if not all(sightings):
        return "returned"
    crossed = (_is_crossed(s[0], f.people) for s, f in zip(sightings, between, strict=True))
    return "crossing" if any(crossed) else "lost"


def _is_crossed(person: Sighting, people: Sequence[Sighting]) -> bool:
    others = [seen.box_full for seen in people if seen.object_id != person.object_id]
    return bool((iou(stacked([person.box_full]), stacked(others)) > _CROSSING_IOU).any())


def _cuts(frames: Sequence[MatchedFrame]) -> set[int]:
    """Return the frames before which most people jumped by more than their height, or all went."""
    return {now.index for before, now in pairwise(frames) if _is_jump(before, now)}


def _is_jump(before: MatchedFrame, now: MatchedFrame) -> bool:
    old = {seen.object_id: np.array(seen.box_full) for seen in before.people}
    new = {seen.object_id: np.array(seen.box_full) for seen in now.people}
    common = old.keys() & new.keys()
    if not common:
        return bool(old and new)
    jumps = [float(np.abs((old[i] - new[i])[:2]).max() / (old[i][3] - old[i][1])) for i in common]
    return float(np.median(jumps)) > 1
