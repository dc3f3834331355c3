"""From the mask of one region to what a client reads: box and run lengths of the whole frame."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from sam2_streaming.windows import Window

MIN_AREA_PX = 6
"""A smaller component is noise, not a person."""


@dataclass(frozen=True, slots=True)
class FrameMask:
    """A mask in the whole frame.

    Attributes:
        box: Tight xyxy in frame pixels, float32 `(4,)`, `max` exclusive; zeros if empty.
        rle_counts: COCO compressed run lengths.
    """

    box: NDArray[np.float32]
    rle_counts: str

    @property
    def is_empty(self) -> bool:
        """Whether there is no pixel in the mask."""
        return not self.box.any()


def place(logits: NDArray[np.float32], window: Window, frame_shape: tuple[int, int]) -> FrameMask:
    """Return the largest component of a mask in the whole frame.

    Only pixels near the mask are ever touched.

    Args:
        logits: Mask logits `(size, size)` of the window's cut, above 0 inside.
        window: Where in the frame the cut was taken.
        frame_shape: Height and width of the frame in pixels.
    """
    height, width = frame_shape
    x0, y0, x1, y1 = _extent(logits, window, frame_shape)
    if x1 <= x0 or y1 <= y0:
        return _empty(frame_shape)
    found = _largest_component(_resized(logits, window, (x0, y0, x1, y1)))
    if found is None:
        return _empty(frame_shape)
    mask, x, y = found[0], found[1] + x0, found[2] + y0
    box = np.array([x, y, x + mask.shape[1], y + mask.shape[0]], np.float32)
    return FrameMask(box, _encode(_edges(mask, x, y, height), height, width))


def _empty(frame_shape: tuple[int, int]) -> FrameMask:
    return FrameMask(np.zeros(4, np.float32), _encode(np.empty(0, np.int64), *frame_shape))


def _extent(
    logits: NDArray[np.float32], window: Window, frame_shape: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Frame pixels, xyxy, outside which the mask is certainly empty; empty itself if it is."""
    inside = logits > 0
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return 0, 0, 0, 0
    step_x, step_y = window.width / len(logits), window.height / len(logits)
    x0 = window.x0 + int((columns[0] - 1) * step_x)
    y0 = window.y0 + int((rows[0] - 1) * step_y)
    x1 = window.x0 + int(np.ceil((columns[-1] + 2) * step_x))
    y1 = window.y0 + int(np.ceil((rows[-1] + 2) * step_y))
    right = min(x1, window.x0 + window.width, frame_shape[1])
    bottom = min(y1, window.y0 + window.height, frame_shape[0])
    return max(x0, window.x0, 0), max(y0, window.y0, 0), right, bottom


def _resized(
    logits: NDArray[np.float32], window: Window, region: tuple[int, int, int, int]
) -> NDArray[np.bool_]:
    """The mask in the pixels of a region of the frame, as if the whole window were resized."""
    x0, y0, x1, y1 = region
    scale_x, scale_y = len(logits) / window.width, len(logits) / window.height
    shift_x = (x0 - window.x0 + 0.5) * scale_x - 0.5
    shift_y = (y0 - window.y0 + 0.5) * scale_y - 0.5
    mapping = np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]])
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size, border = (x1 - x0, y1 - y0), cv2.BORDER_REPLICATE
    return np.asarray(cv2.warpAffine(logits, mapping, size, flags=how, borderMode=border)) > 0


def _largest_component(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], int, int] | None:
    """The largest 8-connected component, cut to its box, and the box's left and top edge."""
    if not mask.any():
        return None
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    x, y, width, height, area = (int(v) for v in stats[largest])
    if area < MIN_AREA_PX:
        return None
    return labels[y : y + height, x : x + width] == largest, x, y


def _edges(mask: NDArray[np.bool_], x: int, y: int, frame_height: int) -> NDArray[np.int64]:
    """Column-major frame indices at which the mask turns on, off, on, off and so on."""
    columns = np.pad(mask, ((1, 1), (0, 0))).T.astype(np.int8)
    column, row = np.nonzero(np.diff(columns, axis=1))
    edges = (x + column) * frame_height + y + row
    # A run down to the last row may go on in the first row of the next column.
    touching = np.flatnonzero(edges[1:-1:2] == edges[2::2])
    return np.delete(edges, np.concatenate([2 * touching + 1, 2 * touching + 2]))


def _encode(edges: NDArray[np.int64], height: int, width: int) -> str:
    """Compress run lengths without ever touching the pixels of the frame."""
    counts = np.diff(np.concatenate([[0], edges, [height * width]]))
    runs = {"size": [height, width], "counts": counts.tolist()}
    return str(coco_mask.frPyObjects(runs, height, width)["counts"].decode())
