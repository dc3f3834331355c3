"""Whose detection is whose: detections of a frame against the tracks that expect them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.imaging import inside_share, iou, stacked, union
from orchestrator.stages.appearance import Shirts, likeness, shirts
from orchestrator.stages.matching import match, near
from orchestrator.stages.segmenting import Segment
from orchestrator.stages.tracklet import Tracklet
from orchestrator.types.detections import Detections
from orchestrator.types.pictures import Boxes, Pixels

_SENIORITY = 0.2
"""What a well-founded track is preferred by where two claim one detection, in units of overlap."""
_SHIRT_WEIGHT = 0.7
"""What overlap loses in the match where the shirts differ wholly: rivals cross in other colours."""
_NEAR_WEIGHT = 0.5
"""What being near counts for beside overlap: who was hidden comes out a little off its way."""
_CROWD_IOU = 0.1
"""Who overlaps a detection more than this may show in it."""
_INSIDE = 0.8
"""So much of a track's box lies in the detection that shows its person, too."""

_RIVAL_IOU = 0.25
"""Of a mask's box with somebody else's place: where it is less they hardly met."""
_RIVAL_LIKENESS = 0.3
"""By so much more a mask looks like somebody else's shirt that shows it. Of 75 such masks in six
clips 64 clearly lay on the other, 3 on their own person, the rest on both."""

Affinity = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Association:
    """Who is where in one frame; tracks by their place in the list.

    Attributes:
        row_of: Detection by track.
        shared: Tracks whose detection shows another track's person as well; of two people behind
            each other the detector often sees one. They need not be in `row_of`.
        strays: Tracks without a detection, whose mask lies on somebody else's body.
        crowded: Detections that show more than one person, bool `(detections,)`.
        overlap: Of detections with the tracks' masks, `(detections, tracks)`; 0 without a mask.
    """

    row_of: dict[int, int]
    shared: frozenset[int]
    strays: frozenset[int]
    crowded: NDArray[np.bool_]
    overlap: Affinity


def expected_rows(
    people: Detections, worn: Shirts, tracks: Sequence[Tracklet], least: float
) -> dict[int, int]:
    """Pair detections with tracks by motion and shirt; returns the detection by track.

    Shirts only choose between rivals: whoever looks different all at once may be half in sight.
    """
    expected = stacked([track.xyxy for track in tracks])
    fitting = iou(people.xyxy, expected) * _fitting(worn, tracks)
    pairs = match(fitting, near(people.xyxy, expected), least)
    return {column: row for row, column in pairs}


def on_rivals(
    pixels: Pixels, tracks: Sequence[Tracklet], segments: Sequence[Segment | None]
) -> list[int]:
    """Find masks that went over to somebody else where two people met: they show his shirt.

    Args:
        pixels: The picture.
        tracks: Tracks, where they are expected.
        segments: Mask of each track, if it has one.

    Returns:
        The tracks with such masks.
    """
    masked = [(k, segment.xyxy) for k, segment in enumerate(segments) if segment is not None]
    columns, boxes = np.array([k for k, _ in masked], int), stacked([box for _, box in masked])
    meets = iou(boxes, stacked([track.xyxy for track in tracks])) > _RIVAL_IOU
    meets[np.arange(len(columns)), columns] = False
    rows = np.flatnonzero(meets.any(axis=1))
    if not len(rows):
        return []
    alike = likeness(shirts(pixels, boxes[rows]), _known(tracks))
    own = alike[np.arange(len(rows)), columns[rows]]
    rival = np.where(meets[rows], np.nan_to_num(alike), 0).max(axis=1)
    found: list[int] = columns[rows[rival > own + _RIVAL_LIKENESS]].tolist()
    return found


def associate(
    people: Detections,
    worn: Shirts,
    tracks: Sequence[Tracklet],
    segments: Sequence[Segment | None],
    least: float,
) -> Association:
    """Pair detections with tracks by motion, mask and shirt.

    Args:
        people: Detections.
        worn: Shirt of each detection.
        tracks: Tracks, where they are expected; `support` says how far the mask is believed.
        segments: Mask of each track, if it has one.
        least: Least affinity, in units of overlap.
    """
    expected = stacked([track.xyxy for track in tracks])
    overlap = iou(people.xyxy, expected)
    nearness = near(people.xyxy, expected)
    fitting = _fitting(worn, tracks)
    likely = np.maximum(overlap, _NEAR_WEIGHT * nearness)
    masked = _masked(people, segments)
    # Masks overrule motion as far as they are believed; who is half hidden has a wandering one.
    believed = [track.support if track.is_vouched else 0.0 for track in tracks]
    likely += np.array(believed, np.float32) * (masked - likely)
    pairs = match(_ranked(likely * fitting, tracks, least), nearness * fitting, least)
    row_of = {column: row for row, column in pairs}
    shared, strays = _without_own(people.xyxy, tracks, segments, row_of)
    crowded = np.asarray((overlap > _CROWD_IOU).sum(axis=1) > 1)
    return Association(row_of, frozenset(shared), frozenset(strays), crowded, masked)


def _masked(people: Detections, segments: Sequence[Segment | None]) -> Affinity:
    """Return the overlap of detections with masks, 0 where there is none."""
    columns = [column for column, segment in enumerate(segments) if segment is not None]
    boxes = stacked([segment.xyxy for segment in segments if segment is not None])
    masked = np.zeros((len(people), len(segments)), np.float32)
    masked[:, columns] = iou(people.xyxy, boxes)
    return masked


def _fitting(worn: Shirts, tracks: Sequence[Tracklet]) -> Affinity:
    """Return what is left of an affinity in view of the shirts, `(detections, tracks)`."""
    alike = likeness(worn, _known(tracks))
    return np.where(np.isnan(alike), np.float32(1), 1 - _SHIRT_WEIGHT * (1 - alike))


def _known(tracks: Sequence[Tracklet]) -> Shirts:
    """Return the shirts of tracks, nan where one is not known yet."""
    unknown = np.full(3, np.nan, np.float32)
    known = [unknown if track.shirt is None else track.shirt for track in tracks]
    return np.array(known, np.float32).reshape(-1, 3)


def _ranked(affinity: Affinity, tracks: Sequence[Tracklet], least: float) -> Affinity:
    """Prefer the older of rivals."""
    # A detection that an older track's mask explains after all is no birth.
    is_newborn = np.array([not track.hits for track in tracks], np.bool_)
    affinity = np.where(is_newborn, np.minimum(affinity, least), affinity)
    # Without this, two tracks on one person take turns.
    seniority = np.array([track.seniority for track in tracks], np.float32)
    return affinity + _SENIORITY * seniority * (affinity >= least)


def _without_own(
    people: Boxes,
    tracks: Sequence[Tracklet],
    segments: Sequence[Segment | None],
    row_of: dict[int, int],
) -> tuple[set[int], set[int]]:
    """Say of the tracks without a detection who shares another's, and who strays on another."""
    shared: set[int] = set()
    strays: set[int] = set()
    owner = {row: column for column, row in row_of.items()}
    for column, track in enumerate(tracks):
        segment = segments[column]
        is_masked = segment is not None and track.is_vouched
        if column in row_of or not owner or not track.hits:
            continue
        claimed = segment.xyxy if segment is not None and is_masked else track.xyxy
        rows = np.array(list(owner))
        inside = inside_share(claimed, people[rows])
        if inside.max() < _INSIDE:
            continue
        row = int(rows[inside.argmax()])
        if _shows_both(people[row], tracks[owner[row]].xyxy, track.xyxy):
            shared |= {column, owner[row]}
        elif is_masked:
            strays.add(column)
    return shared, strays


def _shows_both(detection: Boxes, one: Boxes, other: Boxes) -> bool:
    """Whether two expected boxes together explain a detection better than the first alone."""
    alone, both = iou(detection[None], np.stack([one, union(one, other)]))[0]
    return bool(both > alone)
