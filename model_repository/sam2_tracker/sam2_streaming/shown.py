"""What a client shows the tracker in a frame: read from a request, seen through a window."""

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam2_streaming.prompts import CLICK_INSIDE, CLICK_OUTSIDE, Prompt
from sam2_streaming.requests import InvalidRequestError, StepRequest, no_clicks
from sam2_streaming.rle import Silhouette

if TYPE_CHECKING:
    from sam2_streaming.windows import Window

MAX_CLICKS = 16
"""Of one object in one frame."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """One object as the client shows it, in frame pixels: by a box, clicks, or both.

    Attributes:
        box: xyxy float32 `(4,)`, inside the frame.
        mask: Takes the place of the box, which then only places the window.
        clicks: x, y and 1 on the object or 0 beside it, float32 `(c, 3)`; not beside a mask.
    """

    box: NDArray[np.float32] | None = None
    mask: Silhouette | None = None
    clicks: NDArray[np.float32] = field(default_factory=no_clicks)

    def through(self, window: "Window", size: int) -> Prompt:
        """Return the prompt for the picture that is cut from a window.

        A mask too small to show in the picture gives way to its box.

        Args:
            window: What the network sees of the frame.
            size: Side of the picture in pixels.

        Raises:
            InvalidRequestError: A click lies outside the window.
        """
        if self.mask is not None:
            seen = self.mask.covers(*window.pixel_centres(size))
            if seen.any():
                return Prompt.of_mask(seen)
        points = window.to_window(self.clicks[:, :2], size)
        if (points < 0).any() or (points >= size).any():
            raise InvalidRequestError(
                f"clicks: expected points in the window {window} of their object, got "
                f"{self.clicks[:, :2].tolist()}; prompt_boxes moves the window"
            )
        labels = self.clicks[:, 2].astype(np.int32)
        if self.box is None:
            return Prompt(points, labels)
        corners = window.to_window(self.box.reshape(2, 2), size)
        return Prompt.box(corners.reshape(4)).with_clicks(points, labels)


def read_shown(
    request: StepRequest, frame_shape: tuple[int, int], tracked: Set[int]
) -> dict[int, Shown]:
    """Check all prompts of a request and return them by object id.

    Args:
        request: What the client sent.
        frame_shape: Height and width of its frame in pixels.
        tracked: Objects that are tracked and not forgotten in this very frame.

    Raises:
        InvalidRequestError: An id, box, mask or click breaks a rule of `StepRequest`.
    """
    shown = _boxes(request, frame_shape)
    for object_id, mask in _masks(request, frame_shape).items():
        shown[object_id] = replace(shown[object_id], mask=mask)
    for object_id, clicks in _clicks(request, frame_shape).items():
        if object_id not in tracked | shown.keys():
            raise InvalidRequestError(
                f"click_object_ids: expected objects that are tracked or prompted by a box, got "
                f"{object_id}"
            )
        if object_id in shown and shown[object_id].mask is not None:
            raise InvalidRequestError(
                f"click_object_ids: expected no clicks beside the mask of object {object_id}"
            )
        shown[object_id] = replace(shown.get(object_id, Shown()), clicks=clicks)
    return shown


def _boxes(request: StepRequest, frame_shape: tuple[int, int]) -> dict[int, Shown]:
    ids, given = request.prompt_object_ids, request.prompt_boxes
    if ids.ndim != 1 or given.shape != (len(ids), 4):
        raise InvalidRequestError(
            f"prompt_boxes: expected one row of 4 per prompt_object_ids {ids.shape}, "
            f"got {given.shape}"
        )
    if (ids < 1).any() or len(np.unique(ids)) < len(ids):
        raise InvalidRequestError(
            f"prompt_object_ids: expected unique ids of 1 or more, got {ids.tolist()}"
        )
    height, width = frame_shape
    boxes = np.clip(given, 0, np.array([width, height] * 2, np.float32))
    for object_id, sent, box in zip(ids, given, boxes, strict=True):
        if not (np.isfinite(sent).all() and (box[2:] - box[:2] >= 1).all()):
            raise InvalidRequestError(
                f"prompt_boxes: expected finite xyxy with at least 1x1 px inside the "
                f"{width}x{height} frame for object {object_id}, got {sent.tolist()}"
            )
    return {int(object_id): Shown(box) for object_id, box in zip(ids, boxes, strict=True)}


def _masks(request: StepRequest, frame_shape: tuple[int, int]) -> Mapping[int, Silhouette]:
    ids, texts = request.prompt_object_ids.tolist(), request.prompt_masks
    if texts and len(texts) != len(ids):
        raise InvalidRequestError(
            f"prompt_masks: expected none, or one per prompt_object_ids ({len(ids)}), got "
            f"{len(texts)}"
        )
    return {k: _mask(k, text, frame_shape) for k, text in zip(ids, texts, strict=False) if text}


def _mask(object_id: int, text: bytes, frame_shape: tuple[int, int]) -> Silhouette:
    try:
        mask = Silhouette.decode(text, frame_shape)
    except ValueError as error:
        raise InvalidRequestError(f"prompt_masks: {error} for object {object_id}") from error
    if not mask.area:
        raise InvalidRequestError(
            f"prompt_masks: expected a pixel or more of object {object_id}; empty text for no mask"
        )
    return mask


def _clicks(
    request: StepRequest, frame_shape: tuple[int, int]
) -> Mapping[int, NDArray[np.float32]]:
    ids, clicks = request.click_object_ids, request.clicks
    if ids.ndim != 1 or clicks.shape != (len(ids), 3):
        raise InvalidRequestError(
            f"clicks: expected one row of 3 per click_object_ids {ids.shape}, got {clicks.shape}"
        )
    height, width = frame_shape
    is_inside = ((clicks[:, :2] >= 0) & (clicks[:, :2] < (width, height))).all()
    if not is_inside or not np.isin(clicks[:, 2], (CLICK_OUTSIDE, CLICK_INSIDE)).all():
        raise InvalidRequestError(
            f"clicks: expected x, y inside the {width}x{height} frame and 0 or 1, got "
            f"{clicks.tolist()}"
        )
    by_object = {int(k): clicks[ids == k] for k in np.unique(ids)}
    for object_id, of_one in by_object.items():
        if len(of_one) > MAX_CLICKS:
            raise InvalidRequestError(
                f"clicks: expected at most {MAX_CLICKS} for object {object_id}, got {len(of_one)}"
            )
    return by_object
