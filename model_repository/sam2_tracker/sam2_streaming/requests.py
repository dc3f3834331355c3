"""What the tracker is asked and answers, and the rules a request must keep."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

MIN_FRAME_SIDE_PX = 16


class InvalidRequestError(ValueError):
    """A request can never be served; names the tensor and what was expected."""


def _no_ids() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


def _no_boxes() -> NDArray[np.float32]:
    return np.empty((0, 4), np.float32)


@dataclass(frozen=True, slots=True)
class StepRequest:
    """One frame of one sequence.

    Attributes:
        sequence_id: Of a started sequence.
        frame: RGB uint8 `(height, width, 3)`; every frame of a sequence has the same size.
        prompt_object_ids: Objects to start, or to correct when tracked, int64 `(p,)`, 1 or more.
        prompt_boxes: xyxy in frame pixels, float32 `(p, 4)`; the part outside the frame is cut off.
        forget_object_ids: Objects to drop before this frame, int64 `(f,)`; unknown ones are
            ignored. A prompt for the same id starts it anew.
    """

    sequence_id: int
    frame: NDArray[np.uint8]
    prompt_object_ids: NDArray[np.int64] = field(default_factory=_no_ids)
    prompt_boxes: NDArray[np.float32] = field(default_factory=_no_boxes)
    forget_object_ids: NDArray[np.int64] = field(default_factory=_no_ids)

    def validated_prompts(self) -> dict[int, NDArray[np.float32]]:
        """Return the prompted boxes, clipped to the frame, by object id.

        Raises:
            InvalidRequestError: The frame, the ids or the boxes break a rule above.
        """
        _check_frame(self.frame)
        _check_ids(self.prompt_object_ids, self.prompt_boxes)
        height, width = self.frame.shape[:2]
        boxes = np.clip(self.prompt_boxes, 0, np.array([width, height] * 2, np.float32))
        for object_id, given, box in zip(
            self.prompt_object_ids, self.prompt_boxes, boxes, strict=True
        ):
            if not (np.isfinite(given).all() and (box[2:] - box[:2] >= 1).all()):
                raise InvalidRequestError(
                    f"prompt_boxes: expected finite xyxy with at least 1x1 px inside the "
                    f"{width}x{height} frame for object {object_id}, got {given.tolist()}"
                )
        return dict(zip(self.prompt_object_ids.tolist(), boxes, strict=True))


@dataclass(frozen=True, slots=True)
class StepResult:
    """All tracked objects of a sequence after a frame, ids ascending.

    Attributes:
        object_ids: int64 `(n,)`.
        boxes: xyxy of each mask in frame pixels, float32 `(n, 4)`; zeros if it is empty.
        scores: float32 `(n,)`: probability that the object is in sight times predicted IoU of its
            mask; 0 if the mask is empty.
        masks: COCO compressed run lengths of the whole frame.
    """

    object_ids: NDArray[np.int64]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    masks: list[str]


def _check_frame(frame: NDArray[np.uint8]) -> None:
    is_picture = frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    if not is_picture or min(frame.shape[:2]) < MIN_FRAME_SIDE_PX:
        raise InvalidRequestError(
            f"frame: expected uint8 (height, width, 3) of at least {MIN_FRAME_SIDE_PX} px a side, "
            f"got {frame.dtype} {frame.shape}"
        )


def _check_ids(ids: NDArray[np.int64], boxes: NDArray[np.float32]) -> None:
    if ids.ndim != 1 or boxes.shape != (len(ids), 4):
        raise InvalidRequestError(
            f"prompt_boxes: expected one row of 4 per prompt_object_ids {ids.shape}, "
            f"got {boxes.shape}"
        )
    if (ids < 1).any() or len(np.unique(ids)) < len(ids):
        raise InvalidRequestError(
            f"prompt_object_ids: expected unique ids of 1 or more, got {ids.tolist()}"
        )
