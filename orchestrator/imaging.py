"""Geometry between a picture and the models' inputs; pure functions of arrays.

Boxes are xyxy in pixels of the source frame, float32, shape `(n, 4)`, `max` exclusive.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestrator.types.detections import Detections
from orchestrator.types.pictures import Boxes, Pixels

_OWNERSHIP_MARGIN_PX = 8
_EDGE_PX = 3.0
_HALVED_FROM = 2.5
"""Pictures to be shrunken this much are halved first: OpenCV averages two by two pixels five times
as fast as other areas, and what that rounds or gives to a neighbour is little then."""
_DUPLICATE_IOU = 0.6
"""Two tiles that see one thing cut its box differently."""
_SAME_TILE_DUPLICATE_IOU = 0.8
"""RF-DETR needs no suppression once well trained; until then two queries may share a person."""


def square_tiles(pixels: Pixels, columns: int, size: int) -> tuple[NDArray[np.uint8], Boxes]:
    """Cut a picture into square inputs of a detector.

    One column is the whole picture, squeezed. Several are squares of the picture's short side,
    spread evenly over its long side so that they overlap; where they would leave gaps, they are
    lengthened until they meet with an overlap of an eighth.

    Args:
        pixels: The picture.
        columns: Number of tiles, 1 or more.
        size: Side of each input in pixels.

    Returns:
        The inputs, uint8 `(columns, size, size, 3)`, and the part of the picture that each shows,
        boxes `(columns, 4)`.
    """
    regions = _tile_regions(pixels.shape[1], pixels.shape[0], columns)
    tiles = np.stack([resized(pixels[y0:y1, x0:x1], size, size) for x0, y0, x1, y1 in regions])
    return tiles, regions.astype(np.float32)


def to_source(cxcywh: NDArray[np.float32], region: NDArray[np.float32]) -> Boxes:
    """Map a tile's boxes to the source frame.

    Args:
        cxcywh: Centre and size as shares of the tile, float32 `(n, 4)`.
        region: The tile's part of the picture, `(4,)`, from `square_tiles`.

    Returns:
        Boxes `(n, 4)`, not clipped.
    """
    origin, extent = region[:2], region[2:] - region[:2]
    centre, half = cxcywh[:, :2] * extent + origin, cxcywh[:, 2:] * extent / 2
    return np.asarray(np.concatenate((centre - half, centre + half), axis=1), np.float32)


def merge_tiles(tiles: Sequence[Detections], regions: Boxes) -> Detections:
    """Join the detections of overlapping tiles so that each thing is found once.

    A tile keeps what has its centre on its side of the middle of an overlap, plus 8 pixels, so that
    nobody is cut by a tile's edge or falls between two tiles. What was still found twice, same
    label and IoU above 0.6 (0.8 within a tile), is kept where its confidence is higher.

    Args:
        tiles: Detections of each tile in source pixels.
        regions: The tiles' parts of the picture, boxes `(len(tiles), 4)`.
    """
    owned = [part.where(_is_owned(part.xyxy, regions, i)) for i, part in enumerate(tiles)]
    merged = Detections.joined(*owned)
    tile = np.repeat(np.arange(len(owned)), [len(part) for part in owned])
    return merged.where(_is_best(merged, tile))


def crops(pixels: Pixels, xyxy: Boxes, height: int, width: int) -> NDArray[np.uint8]:
    """Cut boxes out of a picture and resize each to one size, without keeping its aspect.

    Args:
        pixels: The picture.
        xyxy: Boxes that are sound (`is_sound`); parts outside the picture are cut off.
        height: Height of a crop in pixels.
        width: Width of a crop in pixels.

    Returns:
        Crops, uint8 `(n, height, width, 3)`.
    """
    picture_height, picture_width = pixels.shape[:2]
    low = np.floor(xyxy[:, :2]).astype(int).clip(0, (picture_width - 1, picture_height - 1))
    high = np.ceil(xyxy[:, 2:]).astype(int).clip(low + 1, (picture_width, picture_height))
    cut = np.empty((len(xyxy), height, width, 3), np.uint8)
    for crop, (x0, y0), (x1, y1) in zip(cut, low.tolist(), high.tolist(), strict=True):
        crop[:] = resized(pixels[y0:y1, x0:x1], height, width)
    return cut


def union(a: Boxes, b: Boxes) -> Boxes:
    """Return the box `(4,)` around two boxes `(4,)`."""
    return np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])


def stacked(boxes: Sequence[ArrayLike]) -> Boxes:
    """Return boxes `(4,)` as one array `(n, 4)`."""
    return np.array(boxes, np.float32).reshape(-1, 4)  # `np.stack` takes four times as long


def iou(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """Return the overlap (intersection over union) of each box of `a` with each of `b`.

    Returns:
        float32 `(len(a), len(b))` in `[0, 1]`; 0 where both are without area.
    """
    # Column by column: for so few numbers, calls on a third axis cost more than their work.
    width = np.minimum(a[:, np.newaxis, 2], b[:, 2]) - np.maximum(a[:, np.newaxis, 0], b[:, 0])
    height = np.minimum(a[:, np.newaxis, 3], b[:, 3]) - np.maximum(a[:, np.newaxis, 1], b[:, 1])
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    union = _area(a)[:, np.newaxis] + _area(b)[np.newaxis] - intersection
    shares = np.zeros(union.shape, np.float32)
    return np.divide(intersection, union, out=shares, where=union > 0)


def inside_share(box: Boxes, others: Boxes) -> NDArray[np.float32]:
    """Return the share of a box `(4,)` that lies in each of others `(n, 4)`, `(n,)`."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    area = max(float((box[2:] - box[:2]).prod()), 1e-6)
    return np.asarray((high - low).clip(0).prod(axis=1) / area, np.float32)


def is_cut_off(xyxy: Boxes, pixels: Pixels) -> NDArray[np.bool_]:
    """Return which boxes are so near to the picture's edge that it may cut them off, `(n,)`."""
    margins = np.concatenate((xyxy[:, :2], np.array(pixels.shape[1::-1]) - xyxy[:, 2:]), axis=1)
    return np.asarray(margins.min(axis=1) < _EDGE_PX)


def clip_boxes(xyxy: Boxes, width: int, height: int) -> Boxes:
    """Cut off the parts of boxes outside a picture; returns a copy."""
    return xyxy.clip(0, np.array((width, height, width, height), np.float32))


def is_sound(xyxy: Boxes, width: int, height: int) -> NDArray[np.bool_]:
    """Tell which boxes are finite and have an area inside the picture; bool `(n,)`."""
    clipped = clip_boxes(xyxy, width, height)
    has_area = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    return np.asarray(np.isfinite(xyxy).all(axis=1) & has_area)


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return a picture stretched or squeezed to a size in pixels."""
    tall, wide = pixels.shape[:2]
    shrinkage = min(tall / height, wide / width)
    if shrinkage >= _HALVED_FROM and tall % 2 == wide % 2 == 0:
        half = cv2.resize(pixels, (wide // 2, tall // 2), interpolation=cv2.INTER_AREA)
        pixels = np.asarray(half, np.uint8)
    # Averaging areas keeps a small ball; when enlarging it would give blocks.
    method = cv2.INTER_AREA if shrinkage >= 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method), np.uint8)


def _tile_regions(width: int, height: int, columns: int) -> NDArray[np.int64]:
    if columns == 1:
        return np.array([[0, 0, width, height]])
    long, short = max(width, height), min(width, height)
    # With an overlap of an eighth, n tiles of length s cover s * (7n + 1) / 8.
    side = min(long, max(short, -(-8 * long // (7 * columns + 1))))
    start = np.linspace(0, long - side, columns).round().astype(np.int64)
    zero = np.zeros_like(start)
    if width >= height:
        return np.stack((start, zero, start + side, zero + short), axis=1)
    return np.stack((zero, start, zero + short, start + side), axis=1)


def _is_owned(xyxy: Boxes, regions: Boxes, tile: int) -> NDArray[np.bool_]:
    axis = 0 if regions[0, 0] < regions[-1, 0] else 1
    middles = (regions[:-1, axis + 2] + regions[1:, axis]) / 2
    limits = np.concatenate(([-np.inf], middles, [np.inf]))
    centre = (xyxy[:, axis] + xyxy[:, axis + 2]) / 2
    is_past_low = centre >= limits[tile] - _OWNERSHIP_MARGIN_PX
    return np.asarray(is_past_low & (centre <= limits[tile + 1] + _OWNERSHIP_MARGIN_PX))


def _is_best(merged: Detections, tile: NDArray[np.int64]) -> NDArray[np.bool_]:
    label = np.array(merged.label)
    is_same_tile = tile[:, np.newaxis] == tile
    most = np.where(is_same_tile, _SAME_TILE_DUPLICATE_IOU, _DUPLICATE_IOU)
    rivals = (iou(merged.xyxy, merged.xyxy) > most) & (label[:, np.newaxis] == label)
    np.fill_diagonal(rivals, False)
    keep = np.ones(len(merged), bool)
    order = np.argsort(-merged.confidence, kind="stable")
    for row in order[rivals.any(axis=1)[order]].tolist():
        if keep[row]:
            keep &= ~rivals[row]
    return keep


def _area(xyxy: Boxes) -> NDArray[np.float32]:
    return np.asarray((xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1]))
