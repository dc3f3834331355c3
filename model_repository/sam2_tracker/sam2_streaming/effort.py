"""Whom the network looks at in a frame, and who is carried on by motion until it is their turn.

The constants were measured on rendered matches.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sam2_streaming.requests import InvalidRequestError

YOUNG_FRAMES = 10
"""A motion is known after so many frames."""
LOW_SCORE = 0.6
ODD_MOTION = 0.12
"""Way from where an object was expected to where it was found, in its heights."""
REACH = 0.25
"""Two objects touch when their boxes do, each grown by this share of its height on every side."""
RESTLESS_WEIGHT = 3
"""Under a budget, a frame's wait of a restless object counts like so many of a calm one."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How many looks a stream spends on a frame.

    Attributes:
        rest_frames: A calm object is looked at on every such frame, 1 or more; 1 is all of them.
        max_observed: Most objects to look at in a frame; 0 is all of them. Prompted ones come
            first, and none of them waits.
    """

    rest_frames: int = 1
    max_observed: int = 0

    def limited(self, max_observed: int | None) -> "Effort":
        """Return the effort for a request that asks for so many looks, or for none in particular.

        Raises:
            InvalidRequestError: It asks for fewer than 0.
        """
        if max_observed is None:
            return self
        if max_observed < 0:
            raise InvalidRequestError(f"max_observed: expected 0 or more, got {max_observed}")
        return replace(self, max_observed=max_observed)


FULL_EFFORT = Effort()


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """What decides whether an object is looked at.

    Attributes:
        object_id: Spreads the turns of calm objects over the frames.
        box: Where it is expected, xyxy in frame pixels, float32 `(4,)`.
        is_prompted: Whether the client shows it in this frame.
        waited: Frames since it was last looked at, 1 if that was the frame before.
        age: Frames since it was last prompted.
        score: When it was last looked at.
        surprise: Way from where it was expected to where it was then found, in its heights.
    """

    object_id: int
    box: NDArray[np.float32]
    is_prompted: bool = False
    waited: int = 1
    age: int = 0
    score: float = 1.0
    surprise: float = 0.0

    @property
    def is_unsettled(self) -> bool:
        """Whether motion alone would not do, as far as the object itself tells."""
        is_odd = self.score < LOW_SCORE or self.surprise > ODD_MOTION
        return self.is_prompted or self.age < YOUNG_FRAMES or is_odd


def chosen(candidates: Sequence[Candidate], frame_index: int, effort: Effort) -> list[int]:
    """Return the indices of the objects to look at, ascending.

    Full effort goes to the restless: prompted, young, doubtful or oddly moving objects, and those
    next to another. Calm ones take turns. Where more are due than the budget allows, the longest
    wait wins, weighted by need: nobody starves.

    Args:
        candidates: All objects of a stream.
        frame_index: Of the frame in its stream.
        effort: What may be spent.
    """
    if effort == FULL_EFFORT:
        return list(range(len(candidates)))
    crowded = _crowded([candidate.box for candidate in candidates])
    weight = [
        RESTLESS_WEIGHT if one.is_unsettled or is_crowded else 1
        for one, is_crowded in zip(candidates, crowded, strict=True)
    ]
    due = [
        k
        for k, one in enumerate(candidates)
        if weight[k] > 1 or _is_turn(one, frame_index, effort.rest_frames)
    ]
    if effort.max_observed:
        due.sort(key=lambda k: (not candidates[k].is_prompted, -weight[k] * candidates[k].waited))
        prompted = sum(one.is_prompted for one in candidates)
        due = due[: max(effort.max_observed, prompted)]
    return sorted(due)


def _is_turn(one: Candidate, frame_index: int, rest_frames: int) -> bool:
    return one.waited >= rest_frames or (frame_index + one.object_id) % rest_frames == 0


def _crowded(boxes: Sequence[NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Whether each box touches another."""
    stacked = np.array(boxes, np.float32).reshape(-1, 4)
    reach = REACH * (stacked[:, 3:] - stacked[:, 1:2])
    low, high = stacked[:, :2] - reach, stacked[:, 2:] + reach
    touches = ((low[:, None] < high[None]) & (low[None] < high[:, None])).all(-1)
    np.fill_diagonal(touches, val=False)
    return np.asarray(touches.any(1))
