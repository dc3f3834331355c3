"""What the tracker is asked and answers, and the rules a request must keep."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

MIN_FRAME_SIDE_PX = 16
MAX_FRAME_SIDE_PX = 8192


class InvalidRequestError(ValueError):
    """A request can never be served; names the tensor and what was expected."""


def _no_ids() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


def _no_boxes() -> NDArray[np.float32]:
    return np.empty((0, 4), np.float32)


def no_clicks() -> NDArray[np.float32]:
    """Clicks `(0, 3)`."""
    return np.empty((0, 3), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class StepRequest:
    """One frame of one sequence. `sam2_streaming.shown` checks and reads what it shows.

    Attributes:
        sequence_id: Of a started sequence.
        frame: RGB uint8 `(height, width, 3)`, an array or a tensor on any device; every frame of a
            sequence has the same size.
        prompt_object_ids: Objects to start, or to correct when tracked, int64 `(p,)`, 1 or more.
        prompt_boxes: xyxy in frame pixels, float32 `(p, 4)`; the part outside the frame is cut off.
        forget_object_ids: Objects to drop before this frame, int64 `(f,)`; unknown ones are
            ignored. A prompt for the same id starts it anew.
        prompt_masks: COCO compressed run lengths of the whole frame, one per prompted object or
            none at all. With a mask, the box only places the window; without one (empty) the box
            shows the object.
        click_object_ids: Object of each click, int64 `(c,)`: tracked, or prompted by a box.
        clicks: x and y in frame pixels, then 1 on the object or 0 beside it, float32 `(c, 3)`.
        max_observed: Most objects to look for in this frame, prompts included first; 0 for all,
            None for what the tracker was made with.
    """

    sequence_id: int
    frame: "NDArray[np.uint8] | Tensor"
    prompt_object_ids: NDArray[np.int64] = field(default_factory=_no_ids)
    prompt_boxes: NDArray[np.float32] = field(default_factory=_no_boxes)
    forget_object_ids: NDArray[np.int64] = field(default_factory=_no_ids)
    prompt_masks: tuple[bytes, ...] = ()
    click_object_ids: NDArray[np.int64] = field(default_factory=_no_ids)
    clicks: NDArray[np.float32] = field(default_factory=no_clicks)
    max_observed: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class StepResult:
    """All tracked objects of a sequence after a frame, ids ascending.

    Attributes:
        object_ids: int64 `(n,)`.
        boxes: xyxy of each mask in frame pixels, float32 `(n, 4)`; zeros if it is empty.
        scores: float32 `(n,)`: probability that the object is in sight times predicted IoU of its
            mask; 0 if the mask is empty. Sinks from frame to frame while it is not looked for.
        masks: COCO compressed run lengths of the whole frame.
        observed: bool `(n,)`: looked for in this frame, or predicted from its motion.
    """

    object_ids: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    masks: list[str]
    observed: NDArray[np.bool_]
