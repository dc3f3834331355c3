"""How well masks agree with the truth: region (J) and contour (F), DAVIS's two measures.

A true mask is held against that of the player who matches the person by box. Masks are decoded one
frame at a time and cut to the person, so memory does not grow with the clip.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, hypot
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from trackeval.metrics import JAndF

from orchestrator.cli.graphics import PlacedMask, decode_mask
from training.data.clips import Clip
from training.evaluation.matching import MatchedFrame, MatchedRun
from training.evaluation.ratios import share

CONTOUR_FRAME_STEP = 5
"""The contour measure, the dearer one, is taken on every fifth frame."""

_CONTOUR_REACH = 0.008
"""How far contours may lie apart, as a share of the picture's diagonal; DAVIS's value."""

Mask = NDArray[np.uint8]


@dataclass
class Masks:
    """Sums over one clip; all 0 if the truth or the run has no masks."""

    people: int = 0
    matched: int = 0
    region: float = 0.0
    contours: int = 0
    contour: float = 0.0


def measure(matched: MatchedRun) -> Masks:
    """Compare the masks of one clip."""
    sums = Masks()
    players = (player for frame in matched.frames for player in frame.players)
    if not matched.clip.has_masks or all(player.mask is None for player in players):
        return sums
    reach = ceil(_CONTOUR_REACH * hypot(matched.clip.width, matched.clip.height))
    for frame in matched.frames:
        runs = matched.clip.mask_runs[frame.index]
        sums.people += sum(seen.object_id in runs for seen in frame.people)
        for true, said in _mask_pairs(matched.clip, frame, reach + 1):
            sums.matched += 1
            sums.region += _region(true, said)
            if frame.index % CONTOUR_FRAME_STEP == 0:
                sums.contours += 1
                sums.contour += _contour(true, said, reach)
    return sums


def figures(parts: Sequence[Masks]) -> dict[str, Any]:
    """Return the figures of clips taken together.

    Returns:
        `j`, `f` and their mean `j_and_f` over matched people; `j_of_all`, where people whom nobody
        matches count as 0; `contour_frame_step`. All in `[0, 1]`, None without masks.
    """
    matched = sum(part.matched for part in parts)
    region = sum(part.region for part in parts)
    j = share(region, matched)
    f = share(sum(part.contour for part in parts), sum(part.contours for part in parts))
    return {
        "j": j,
        "f": f,
        "j_and_f": None if j is None or f is None else (j + f) / 2,
        "j_of_all": share(region, sum(part.people for part in parts)),
        "contour_frame_step": CONTOUR_FRAME_STEP,
    }


def _mask_pairs(clip: Clip, frame: MatchedFrame, margin: int) -> Iterator[tuple[Mask, Mask]]:
    """Yield the true and the reported mask of each match, both cut to them and a margin."""
    runs = clip.mask_runs[frame.index]
    for seen, player in frame.matches:
        # Not pycocotools, which writes past the picture's end if reported runs are too long.
        true = decode_mask(runs.get(seen.object_id, ""), clip.height, clip.width)
        said = decode_mask(player.mask or "", clip.height, clip.width)
        if true is None:
            continue  # the labels have no mask of this person here
        known = [true] if said is None else [true, said]
        top = max(min(part.y for part in known) - margin, 0)
        left = max(min(part.x for part in known) - margin, 0)
        bottom = min(max(part.y + part.mask.shape[0] for part in known) + margin, clip.height)
        right = min(max(part.x + part.mask.shape[1] for part in known) + margin, clip.width)
        region = (left, top, right, bottom)
        yield _drawn(true, region), _drawn(said, region)


def _drawn(placed: PlacedMask | None, region: tuple[int, int, int, int]) -> Mask:
    """Return a region of the picture with a mask; empty where none, or a broken one, was sent."""
    left, top, right, bottom = region
    canvas = np.zeros((bottom - top, right - left), np.uint8)
    if placed is not None:
        height, width = placed.mask.shape
        row, column = placed.y - top, placed.x - left
        canvas[row : row + height, column : column + width] = placed.mask
    return canvas


def _region(true: Mask, said: Mask) -> float:
    return float(coco_mask.iou([_encode(said)], [_encode(true)], [0])[0, 0])


def _contour(true: Mask, said: Mask, reach: int) -> float:
    # The one function of TrackEval that compares two masks; a reach of 1 or more is in pixels.
    return float(JAndF._compute_f([[_encode(true)]], [[_encode(said)]], 0, 0, reach)[0])


def _encode(mask: Mask) -> dict[str, Any]:
    return dict(coco_mask.encode(np.asfortranarray(mask)))
