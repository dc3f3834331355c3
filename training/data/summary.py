"""What is in a data set, in numbers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.data.clips import KINDS, PEOPLE, Clip, Sighting

_PERCENTILES = (5, 50, 95)


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one clip or of many.

    Attributes:
        name: The clip's name, or `all`.
        frames: Number of frames.
        boxes: Number of visible boxes by kind.
        heights: By `people` and `ball`, the 5th, 50th and 95th percentile of the heights of
            visible boxes in pixels; absent where there are none.
        people_per_frame: Mean number of visible people.
        most_people: Their largest number in a frame.
        readable_numbers: Sightings whose back number can be read; None if the labels do not tell.
        numbered_people: People whose shirt number is known.
        masks: Whether there are masks in all clips.
    """

    name: str
    frames: int
    boxes: dict[str, int]
    heights: dict[str, tuple[float, ...]]
    people_per_frame: float
    most_people: int
    readable_numbers: int | None
    numbered_people: int
    masks: bool


def summarise(clips: Sequence[Clip]) -> list[Summary]:
    """Return the figures of each clip, and of all together as the last."""
    return [*(_summary(clip.name, [clip]) for clip in clips), _summary("all", clips)]


def as_json(summaries: Iterable[Summary]) -> list[dict[str, Any]]:
    """Return the figures as values of JSON."""
    return [asdict(summary) for summary in summaries]


def _summary(name: str, clips: Sequence[Clip]) -> Summary:
    frames = [_visible(frame) for clip in clips for frame in clip.sightings]
    seen = [s for frame in frames for s in frame]
    counts = Counter(s.kind for s in seen)
    people = [sum(s.kind in PEOPLE for s in frame) for frame in frames]
    is_told = any(s.number_span is not None for s in seen)
    return Summary(
        name=name,
        frames=len(frames),
        boxes={kind: counts[kind] for kind in KINDS if counts[kind]},
        heights=_heights(seen),
        people_per_frame=round(float(np.mean(people or [0])), 2),
        most_people=max(people, default=0),
        readable_numbers=sum(s.is_number_readable for s in seen) if is_told else None,
        numbered_people=sum(
            p.jersey_number is not None for clip in clips for p in clip.people.values()
        ),
        masks=bool(clips) and all(clip.has_masks for clip in clips),
    )


def _visible(frame: Iterable[Sighting]) -> list[Sighting]:
    return [seen for seen in frame if seen.box_visible is not None]


def _heights(seen: Iterable[Sighting]) -> dict[str, tuple[float, ...]]:
    heights: dict[str, list[float]] = {"people": [], "ball": []}
    for s in seen:
        assert s.box_visible is not None
        group = "ball" if s.is_ball else "people"
        heights[group].append(s.box_visible[3] - s.box_visible[1])
    return {
        group: tuple(round(float(v), 1) for v in np.percentile(values, _PERCENTILES))
        for group, values in heights.items()
        if values
    }
