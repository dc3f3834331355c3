"""Batches for the jersey network: crops as in the clips, crops with new numbers, and close-ups.

Targets are int64 `(n,)` by head of the network, `IGNORED` where nothing is known.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.contracts import JERSEY_CROP
from orchestrator.types.pictures import Pixels
from training.data import augment
from training.data.crops import (
    GROWTH,
    NUMBER,
    PATCH_HEIGHT,
    PATCH_WIDTH,
    ROLE,
    SHIRT,
    SHORTS,
    CropSet,
    kit_attributes,
)
from training.data.kits import paint
from training.errors import InputError
from training.run.loop import Batch

IGNORED = -1
NO_TENS = 10  # column of `tens` for numbers below 10

_SYNTHETIC = 0.85  # share of the readable numbers that are printed anew
_REPAINTED = 0.5  # share of those on an invented kit; the others keep theirs in other colours
_ONE_DIGIT = 0.2  # share of those below 10
_OCCLUDED = 0.15  # share of whole crops that somebody stands before
_LONG_HAIR = 0.3  # share of printed numbers that hair falls over
_READABLE_COVER, _HIDDEN_COVER = 0.3, 0.55  # shares of a number that hair covers
_CLOSE_UP_SIDE = 48  # pixels of a patch

Sample = tuple[Pixels, NDArray[np.int16], int]
"""A crop with its row of `CropSet.attributes` and its `number_visible`."""


def whole_batch(crops: CropSet, size: int, natural: float, rng: np.random.Generator) -> Batch:
    """Return an augmented batch: some crops as in the clips, and many readable numbers.

    Roles are learnt from the former only, so that the network's belief keeps the frequencies of
    real crops.

    Args:
        crops: Where to draw from.
        size: Crops in the batch.
        natural: Share of them that is as in the clips.
        rng: Source of all randomness.

    Returns:
        `crops` uint8 `(size, height, width, 3)` and an int64 `(size,)` for each of `HEADS`.

    Raises:
        InputError: No number in the crops can be read.
    """
    count = round(size * natural)
    legible = _legible(crops)
    numbers = legible[rng.integers(len(legible), size=size - count)]
    samples = [_natural_sample(crops, int(i), rng) for i in rng.integers(len(crops), size=count)]
    return _batch(samples + [_number_sample(crops, int(i), rng) for i in numbers])


def _natural_sample(crops: CropSet, index: int, rng: np.random.Generator) -> Sample:
    patch, attributes = crops.pixels[index].copy(), crops.attributes[index].copy()
    visible = int(crops.number_visible[index])
    if attributes[NUMBER] < 0 and rng.random() < 0.6:  # new clothes would hide a true number
        kit = augment.dress(int(attributes[ROLE]), rng)
        paint(patch, crops.masks[index], kit)
        attributes[SHIRT : SHORTS + 1] = kit_attributes(kit)
    _occlude(patch, crops, crops.number_box[index], rng)
    return _finish(patch, rng), attributes, visible


def _number_sample(crops: CropSet, index: int, rng: np.random.Generator) -> Sample:
    patch, attributes = crops.pixels[index].copy(), crops.attributes[index].copy()
    visible = int(crops.number_visible[index])
    if visible == 1 and rng.random() < _SYNTHETIC:
        box, number = crops.number_box[index], _draw_value(rng)
        augment.erase_number(patch, box)
        if rng.random() < _REPAINTED:
            kit = augment.dress(int(attributes[ROLE]), rng)
            paint(patch, crops.masks[index], kit)
            attributes[SHIRT : SHORTS + 1] = kit_attributes(kit)
        else:
            patch = augment.exchange_colours(patch, rng)
            attributes[SHIRT : SHORTS + 1] = IGNORED
        augment.draw_number(patch, box, number, rng)
        attributes[NUMBER] = number
        if rng.random() < _LONG_HAIR:
            visible = _cover(augment.grow_hair(patch, box, rng), attributes)
    else:  # true digits are few: in their own colours the wearer is learnt, not the number
        patch = augment.exchange_colours(patch, rng)
        attributes[SHIRT : SHORTS + 1] = IGNORED
    attributes[ROLE] = IGNORED
    _occlude(patch, crops, crops.number_box[index], rng)
    return _finish(patch, rng), attributes, visible


def _cover(share: float, attributes: NDArray[np.int16]) -> int:
    """Return what becomes of `number_visible` under hair; what is hidden has no digits, either."""
    if share > _HIDDEN_COVER:
        attributes[NUMBER] = IGNORED
        return 0
    return 1 if share < _READABLE_COVER else IGNORED


def _occlude(
    patch: Pixels, crops: CropSet, number_box: NDArray[np.float32], rng: np.random.Generator
) -> None:
    if rng.random() < _OCCLUDED:
        augment.occlude(patch, crops.pixels[rng.integers(len(crops))], rng, keep=number_box)


def close_up_batch(crops: CropSet, size: int, rng: np.random.Generator) -> Batch:
    """Return `size` windows about back numbers at the scale of whole crops, as `whole_batch` does.

    Raises:
        InputError: No number in the crops can be read.
    """
    legible = _legible(crops)
    rows = legible[rng.integers(len(legible), size=size)]
    return _batch([_close_up(crops, int(row), rng) for row in rows])


def _legible(crops: CropSet) -> NDArray[np.int64]:
    rows = np.flatnonzero(crops.attributes[:, NUMBER] >= 0)
    if not len(rows):
        raise InputError("clips.train: expected clips in which some back numbers can be read")
    return rows


def _close_up(crops: CropSet, index: int, rng: np.random.Generator) -> Sample:
    box, attributes = crops.number_box[index], np.full(6, IGNORED, np.int16)
    attributes[NUMBER] = crops.attributes[index, NUMBER]
    centre = (box[:2] + box[2:]) / 2 + rng.normal(0, 3, 2)
    limit = np.array([PATCH_WIDTH, PATCH_HEIGHT]) - _CLOSE_UP_SIDE
    left, top = np.clip(centre - _CLOSE_UP_SIDE / 2, 0, limit).astype(int)
    whole = crops.pixels[index, top : top + _CLOSE_UP_SIDE, left : left + _CLOSE_UP_SIDE]
    window = augment.exchange_colours(whole, rng)
    if crops.number_visible[index] == 1 and rng.random() < _SYNTHETIC:
        box = box - np.array([left, top, left, top], np.float32)
        attributes[NUMBER] = _draw_value(rng)
        augment.erase_number(window, box)
        augment.draw_number(window, box, int(attributes[NUMBER]), rng)
        if rng.random() < _LONG_HAIR:
            _cover(augment.grow_hair(window, box, rng), attributes)
    fy, fx = JERSEY_CROP[0] / PATCH_HEIGHT * GROWTH, JERSEY_CROP[1] / PATCH_WIDTH * GROWTH
    scaled = np.asarray(cv2.resize(window, None, fx=fx, fy=fy), np.uint8)
    return augment.degrade(scaled, rng), attributes, IGNORED


def _batch(samples: list[Sample]) -> Batch:
    pixels, attributes, visible = zip(*samples, strict=True)
    crops = torch.from_numpy(np.stack(pixels))
    return {"crops": crops} | targets(np.stack(attributes), np.array(visible, np.int8))


def _draw_value(rng: np.random.Generator) -> int:
    return int(rng.integers(1, 10 if rng.random() < _ONE_DIGIT else 100))


def _finish(patch: Pixels, rng: np.random.Generator) -> Pixels:
    return augment.degrade(augment.cut(patch, JERSEY_CROP, rng), rng)


def targets(attributes: NDArray[np.int16], visible: NDArray[np.int8]) -> dict[str, Tensor]:
    """Return the target of every head, int64 `(n,)`, -1 where nothing is known.

    Args:
        attributes: As of `CropSet`, `(n, 6)`.
        visible: Its `number_visible`, `(n,)`.
    """
    number = attributes[:, NUMBER]
    columns = {
        "number_visible": visible,
        "tens": np.select([number < 0, number > 9], [IGNORED, number // 10], NO_TENS),
        "units": np.where(number < 0, IGNORED, number % 10),
        "role": attributes[:, ROLE],
        "kit_colour": attributes[:, SHIRT],
    }
    return {name: torch.from_numpy(column.astype(np.int64)) for name, column in columns.items()}
