"""Whose detection is whose: detections of a frame against the tracks that expect them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.imaging import inside_share, iou, stacked, union
from orchestrator.stages.appearance import Clothes, clothes, in_plain_sight, likeness, unknown
from orchestrator.stages.matching import match, near
from orchestrator.stages.segmenting import Segment
from orchestrator.stages.tracklet import Tracklet
from orchestrator.types.detections import Detections
from orchestrator.types.pictures import Boxes, Pixels

_SENIORITY = 0.2
"""What a well-founded track is preferred by where two claim one detection, in units of overlap."""
_CLOTHES_WEIGHT, _PLAIN_WEIGHT = 0.7, 0.95
"""What overlap loses in the match where the clothes differ wholly: rivals cross in other colours.
More where nobody is in front; a detection of two people fits neither."""
_NEAR_WEIGHT = 0.5
"""What being near counts for beside overlap: who was hidden comes out a little off its way."""
_CROWD_IOU = 0.1
"""Who overlaps a detection more than this may show in it."""
_INSIDE = 0.8
"""So much of a track's box lies in the detection that shows its person, too."""

_RIVAL_IOU = 0.25
"""Of a mask's box with somebody else's place: where it is less they hardly met."""
_RIVAL_LIKENESS = 0.3
"""By so much more a mask looks like somebody else's clothes that shows them."""
_OWN_LIKENESS = 0.5

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
    people: Detections, worn: Clothes, tracks: Sequence[Tracklet], least: float
) -> dict[int, int]:
    """Pair detections with tracks by motion and clothes; returns the detection by track."""
    expected = stacked([track.xyxy for track in tracks])
    overlap, nearness = iou(people.xyxy, expected), near(people.xyxy, expected)
    firm, loose = _fitting(people, worn, tracks)
    pairs = match(overlap * firm, np.maximum(nearness * firm, overlap * loose), least)
    return {column: row for row, column in pairs}


def shown_alike(
    pixels: Pixels, gain: float, tracks: Sequence[Tracklet], segments: Sequence[Segment | None]
) -> Affinity:
    """Return how likely each track's mask shows each track's person, by clothes, where people meet.

    Args:
        pixels: The picture.
        gain: Its exposure, see `appearance.dressed`.
        tracks: Tracks.
        segments: Mask of each track, if it has one.

    Returns:
        `(tracks, tracks)`, nan where a mask or clothes are not known, and of masks that touch
        nobody else's place.
    """
    columns, boxes = _boxes(segments)
    alike = np.full((len(tracks), len(tracks)), np.nan, np.float32)
    met = _on_others(tracks, columns, boxes).any(axis=1)
    if met.any():
        alike[columns[met]] = likeness(clothes(pixels, boxes[met], gain), _known(tracks))
    return alike


def on_rivals(
    tracks: Sequence[Tracklet], segments: Sequence[Segment | None], alike: Affinity
) -> list[int]:
    """Find masks that went over to somebody else where two people met: they show his clothes.

    Args:
        tracks: Tracks, where they are expected.
        segments: Mask of each track, if it has one.
        alike: As of `shown_alike`.

    Returns:
        The tracks with such masks.
    """
    columns, boxes = _boxes(segments)
    meets = _on_others(tracks, columns, boxes) > _RIVAL_IOU
    rival = np.where(meets, np.nan_to_num(alike[columns]), 0).max(axis=1, initial=0)
    found: list[int] = columns[rival > alike[columns, columns] + _RIVAL_LIKENESS].tolist()
    return found


def associate(
    people: Detections,
    worn: Clothes,
    tracks: Sequence[Tracklet],
    segments: Sequence[Segment | None],
    alike: Affinity,
    least: float,
) -> Association:
    """Pair detections with tracks by motion, mask and clothes.

    Args:
        people: Detections.
        worn: Clothes of each detection.
        tracks: Tracks, where they are expected; `support` says how far the mask is believed.
        segments: Mask of each track, if it has one.
        alike: As of `shown_alike`.
        least: Least affinity, in units of overlap.
    """
    expected = stacked([track.xyxy for track in tracks])
    overlap, nearness = iou(people.xyxy, expected), near(people.xyxy, expected)
    firm, loose = _fitting(people, worn, tracks)
    likely = np.maximum(overlap, _NEAR_WEIGHT * nearness)
    masked = _masked(people, segments)
    # Masks overrule motion as far as they are believed; who is half hidden has a wandering one.
    believed = np.array([t.support if t.is_vouched else 0.0 for t in tracks], np.float32)
    likely += believed * (masked - likely)
    # Who is seen elsewhere by a mask is not whoever else is near.
    fallback = np.maximum((1 - believed) * nearness * firm, overlap * loose)
    pairs = match(_ranked(likely * firm, tracks, least), fallback, least)
    row_of = {column: row for row, column in pairs}
    shared, strays = _without_own(people.xyxy, tracks, segments, alike, row_of)
    crowded = np.asarray((overlap > _CROWD_IOU).sum(axis=1) > 1)
    return Association(row_of, frozenset(shared), frozenset(strays), crowded, masked)


def _masked(people: Detections, segments: Sequence[Segment | None]) -> Affinity:
    """Return the overlap of detections with masks, 0 where there is none."""
    columns, boxes = _boxes(segments)
    masked = np.zeros((len(people), len(segments)), np.float32)
    masked[:, columns] = iou(people.xyxy, boxes)
    return masked


def _boxes(segments: Sequence[Segment | None]) -> tuple[NDArray[np.int64], Boxes]:
    """Return which tracks have a mask, and the masks' boxes."""
    masked = [(k, segment.xyxy) for k, segment in enumerate(segments) if segment is not None]
    return np.array([k for k, _ in masked], np.int64), stacked([box for _, box in masked])


def _on_others(tracks: Sequence[Tracklet], columns: NDArray[np.int64], boxes: Boxes) -> Affinity:
    """Return the overlap of masks' boxes with the places of tracks, 0 with their own."""
    overlap = iou(boxes, stacked([track.xyxy for track in tracks]))
    overlap[np.arange(len(columns)), columns] = 0
    return overlap


def _fitting(
    people: Detections, worn: Clothes, tracks: Sequence[Tracklet]
) -> tuple[Affinity, Affinity]:
    """Return what is left of an affinity in view of the clothes, `(detections, tracks)`, twice.

    The second is milder: whoever is just where one should be may stand in another light.
    """
    alike = likeness(worn, _known(tracks))
    unlike = 1 - np.where(np.isnan(alike), np.float32(1), alike)
    plain = in_plain_sight(people.xyxy)[:, np.newaxis]
    firm = np.where(plain, np.float32(_PLAIN_WEIGHT), np.float32(_CLOTHES_WEIGHT))
    return 1 - firm * unlike, 1 - np.float32(_CLOTHES_WEIGHT) * unlike


def _known(tracks: Sequence[Tracklet]) -> Clothes:
    """Return the clothes of tracks, nan where they are not known yet."""
    known = unknown(len(tracks))
    for row, track in enumerate(tracks):
        if track.clothes is not None:
            known[row] = track.clothes
    return known


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
    alike: Affinity,
    row_of: dict[int, int],
) -> tuple[set[int], set[int]]:
    """Say of the tracks without a detection who shares another's, and who strays on another."""
    shared: set[int] = set()
    strays: set[int] = set()
    owner = {row: column for column, row in row_of.items()}
    rows = np.array(list(owner), np.int64)
    for column, (track, segment) in enumerate(zip(tracks, segments, strict=True)):
        if column in row_of or not track.hits:
            continue
        mask = segment if track.is_vouched else None
        inside = inside_share(track.xyxy if mask is None else mask.xyxy, people[rows])
        if inside.max(initial=0.0) < _INSIDE:
            continue
        row = int(rows[inside.argmax()])
        is_own = mask is not None and _is_only(column, owner[row], alike)
        if is_own or _shows_both(people[row], tracks[owner[row]].xyxy, track.xyxy):
            shared |= {column, owner[row]}
        elif mask is not None:
            strays.add(column)
    return shared, strays


def _is_only(column: int, other: int, alike: Affinity) -> bool:
    """Whether a track's mask shows its own person's clothes, and not another's."""
    own, others = alike[column, [column, other]]
    return bool(own > _OWN_LIKENESS and not others > _OWN_LIKENESS)


def _shows_both(detection: Boxes, one: Boxes, other: Boxes) -> bool:
    """Whether two expected boxes together explain a detection better than the first alone."""
    alone, both = iou(detection[None], np.stack([one, union(one, other)]))[0]
    return bool(both > alone)
