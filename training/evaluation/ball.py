"""How often, and how near, the ball is found."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import dist, inf
from typing import Any

from training.data.clips import Box
from training.evaluation.matching import MatchedFrame, MatchedRun
from training.evaluation.ratios import share
from training.evaluation.truth import has_ball

REACHES_PX = (4, 8, 16)


@dataclass
class Balls:
    """Counts over the frames of one clip; `within` by reach in pixels."""

    visible: int = 0
    said: int = 0
    within: Counter[int] = field(default_factory=Counter)


def measure(matched: MatchedRun) -> Balls:
    """Count the balls of one clip; nothing if its labels have no ball."""
    counts = Balls()
    if not has_ball(matched.clip):
        return counts
    for frame in matched.frames:
        away = _distance(frame)
        counts.visible += frame.true_ball is not None
        counts.said += frame.ball is not None
        counts.within.update(reach for reach in REACHES_PX if away <= reach)
    return counts


def figures(parts: Sequence[Balls]) -> dict[str, Any]:
    """Return the figures of clips taken together.

    Returns:
        `visible`, `said`: frames; by reach in pixels, as text, `recall`, the share of visible balls
        reported no farther off, and `precision`, the share of reported balls that are no farther
        off.
    """
    visible, said = sum(part.visible for part in parts), sum(part.said for part in parts)
    within: Counter[int] = sum((part.within for part in parts), Counter())
    return {
        "visible": visible,
        "said": said,
        "recall": {str(reach): share(within[reach], visible) for reach in REACHES_PX},
        "precision": {str(reach): share(within[reach], said) for reach in REACHES_PX},
    }


def _distance(frame: MatchedFrame) -> float:
    if frame.true_ball is None or frame.ball is None:
        return inf
    return dist(_centre(frame.true_ball), _centre(frame.ball.box))


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
