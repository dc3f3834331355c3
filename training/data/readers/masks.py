"""Masks as others write them, checked before pycocotools, whose C code trusts what it is given."""

from functools import cache
from typing import Annotated, Any

import numpy as np
from pycocotools import mask as coco_mask
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from orchestrator.cli.graphics import decode_mask
from training.data.readers.parsing import Entry, check_box
from training.errors import InputError

_FINITE = ConfigDict(allow_inf_nan=False)
_Polygon = Annotated[list[float], Field(min_length=6)]
_Polygons = TypeAdapter(list[_Polygon], config=_FINITE)


class _Runs(Entry):
    size: Annotated[tuple[int, int], Field(strict=False)]
    counts: str | list[Annotated[int, Field(ge=0)]]


def from_coco(segmentation: Any, size: tuple[int, int], place: str) -> str | None:
    """Return a segmentation of COCO as compressed run lengths; None if it is empty.

    Args:
        segmentation: Polygons, or run lengths plain or compressed.
        size: `(width, height)` of the picture.
        place: File and field, for the error.

    Raises:
        InputError: It is none of these, or not of the picture's size.
    """
    if not segmentation:
        return None
    try:
        if isinstance(segmentation, list):
            return from_polygons(_Polygons.validate_python(segmentation), size, place)
        runs = _Runs.model_validate(segmentation)
    except ValidationError as error:
        got = str(segmentation)[:60]
        raise InputError(f"{place}: expected polygons or run lengths, got {got!r}") from error
    width, height = size
    counts = runs.counts
    is_filled = runs.size == (height, width)
    if is_filled and isinstance(counts, list):
        is_filled = sum(counts) == width * height
        counts = _compressed(counts, size) if is_filled else ""
    if not is_filled or not isinstance(counts, str) or not fills(counts, width, height):
        raise InputError(f"{place}: expected a mask of {width}x{height} pixels")
    return counts


def from_polygons(polygons: list[list[float]], size: tuple[int, int], place: str) -> str:
    """Return the area of polygons, `[x1, y1, x2, y2, …]` in pixels, as compressed run lengths.

    Raises:
        InputError: A polygon has an odd number of values, or leaves the picture.
    """
    for polygon in polygons:
        if len(polygon) % 2:
            raise InputError(f"{place}: expected pairs of x and y, got {len(polygon)} values")
        x, y = polygon[::2], polygon[1::2]
        check_box((min(x), min(y), max(x), max(y)), place, size, may_leave=False)
    rle = coco_mask.merge(coco_mask.frPyObjects(polygons, size[1], size[0]))
    return str(rle["counts"], "ascii")


def fills(counts: str, width: int, height: int) -> bool:
    """Whether compressed run lengths make up a picture of this size, perhaps with nothing set.

    pycocotools would write runs that are too long past the end of the picture.
    """
    try:
        return counts == _nothing(width, height) or decode_mask(counts, height, width) is not None
    except OverflowError:
        return False


@cache
def _nothing(width: int, height: int) -> str:
    """Return the run lengths of an empty mask."""
    rle = coco_mask.encode(np.zeros((height, width), np.uint8, order="F"))
    return str(rle["counts"], "ascii")


def _compressed(counts: list[int], size: tuple[int, int]) -> str:
    rle = coco_mask.frPyObjects({"size": [size[1], size[0]], "counts": counts}, size[1], size[0])
    return str(rle["counts"], "ascii")
