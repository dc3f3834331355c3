"""Whether the camera cut: the picture does not go on, and hardly anybody is where one should be."""

from orchestrator.imaging import iou
from orchestrator.types.pictures import Boxes

_LEAST_PEOPLE = 5
"""Fewer well-founded tracks cannot tell a cut from people who left."""
_MOST_MET = 0.35
"""After a cut, at most this share of tracks lies on somebody, by chance."""
_MOST_LIKENESS = 0.5
"""Pictures more alike than this go on, whatever became of the people."""


def is_cut(likeness: float, expected: Boxes, people: Boxes, match_iou: float) -> bool:
    """Tell a cut from a picture that goes on.

    Args:
        likeness: How well the picture continues the last one, 0 to 1.
        expected: Where well-founded tracks should be, `(n, 4)`.
        people: Who is detected, `(m, 4)`.
        match_iou: Least overlap of a person with a track.
    """
    if len(expected) < _LEAST_PEOPLE or likeness > _MOST_LIKENESS:
        return False
    is_met = (iou(expected, people) >= match_iou).any(axis=1)
    return bool(is_met.mean() <= _MOST_MET)
