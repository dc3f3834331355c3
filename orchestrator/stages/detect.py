"""RF-DETR: one frame becomes people and ball candidates; one square of it, a closer look."""

import asyncio
import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from orchestrator.contracts import RFDETR_DETECTOR
from orchestrator.errors import TensorContractError
from orchestrator.imaging import (
    clip_boxes,
    is_sound,
    merge_tiles,
    resized,
    square_tiles,
    to_source,
)
from orchestrator.settings import DetectSettings
from orchestrator.triton.client import TritonClient
from orchestrator.triton.codec import LiveModel
from orchestrator.types.detections import Detections
from orchestrator.types.frames import Frame
from orchestrator.types.pictures import Boxes

_Number = TypeVar("_Number", int, float)

BALL = "ball"
_HINT_SHARE = 0.3
"""Share of the ball's least confidence that makes a place worth a closer look."""


class Detector:
    """Finds people and the ball; holds no state of a stream.

    What belongs to the weights comes from the model's config parameters: `labels` (comma list),
    `thresholds` (least confidence of each label) and `tiles` (squares that a frame is cut into).

    Raises:
        TensorContractError: A parameter is missing or does not fit the others.
    """

    def __init__(self, triton: TritonClient, settings: DetectSettings) -> None:
        model = triton.model(RFDETR_DETECTOR)
        self._triton = triton
        self._settings = settings
        self._size = model.sizes["R"]
        self._labels = _parameter(model, "labels")
        self._thresholds = np.array(_numbers(model, "thresholds", float, least=0), np.float32)
        self._columns = _numbers(model, "tiles", int, least=1)[0]
        self._is_ball = np.array([label == BALL for label in self._labels])
        self._bars = np.where(self._is_ball, _HINT_SHARE, 1.0) * self._thresholds
        if not model.sizes["L"] - 1 == len(self._labels) == len(self._thresholds):
            raise TensorContractError(
                model.contract.name,
                f"parameters labels and thresholds: expected {model.sizes['L'] - 1} entries each, "
                f"got {len(self._labels)} and {len(self._thresholds)}",
            )

    @property
    def ball_threshold(self) -> float:
        """Least confidence of a ball; infinite for weights that know none."""
        return float(self._thresholds[self._is_ball].min(initial=np.inf))

    async def detect(self, frame: Frame) -> Detections:
        """Find people and hints of the ball in one frame.

        Returns:
            Detections in source-frame pixels, clipped to the frame, people above their label's
            threshold, the ball from 0.3 of its own on. Boxes that are not finite or have no area
            are dropped.

        Raises:
            ModelError: The detector gave no usable answer.
        """
        tiles, regions = await asyncio.to_thread(
            square_tiles, frame.pixels, self._columns, self._size
        )
        found = await self._infer(tiles, regions, frame.deadline)
        return self._sound(merge_tiles(found, regions), frame)

    async def look_for_ball(self, frame: Frame, window: Boxes) -> Detections:
        """Look for the ball in one square of a frame, at the detector's full resolution.

        Args:
            frame: The frame.
            window: The square, whole source-frame pixels xyxy `(4,)` inside the frame.

        Returns:
            Ball candidates as from `detect`; none for weights that know no ball.

        Raises:
            ModelError: The detector gave no usable answer.
        """
        if not self._is_ball.any():
            return Detections.joined()
        x0, y0, x1, y1 = window.astype(int)
        square = await asyncio.to_thread(
            resized, frame.pixels[y0:y1, x0:x1], self._size, self._size
        )
        (found,) = await self._infer(square[np.newaxis], window[np.newaxis], frame.deadline)
        return self._sound(found.labelled(BALL), frame)

    async def _infer(
        self, tiles: NDArray[np.uint8], regions: Boxes, deadline: float
    ) -> list[Detections]:
        reply = await self._triton.infer(RFDETR_DETECTOR, {"image": tiles}, deadline=deadline)
        return [
            self._decode(boxes, logits, region)
            for boxes, logits, region in zip(
                reply["boxes"].astype(np.float32),
                reply["logits"].astype(np.float32),
                regions,
                strict=True,
            )
        ]

    def _decode(
        self, boxes: NDArray[np.float32], logits: NDArray[np.float32], region: Boxes
    ) -> Detections:
        """Decode one tile.

        Source: RF-DETR's post-processing (rfdetr/models/postprocess.py): sigmoid per label, the
        background column dropped, no non-maximum suppression. There a query may yield several
        labels; here only its best, since nobody is a player and a referee at once.
        """
        confidence = expit(logits[:, :-1])
        label = confidence.argmax(axis=1)
        best = confidence[np.arange(len(label)), label]
        # A NaN confidence compares false and goes, too.
        is_finite = np.isfinite(boxes).all(axis=1)
        kept = np.flatnonzero(is_finite & (best >= self._bars[label]))
        return Detections(
            to_source(boxes[kept], region),
            best[kept].astype(np.float32),
            tuple(self._labels[number] for number in label[kept].tolist()),
        )

    def _sound(self, found: Detections, frame: Frame) -> Detections:
        keep = is_sound(found.xyxy, frame.width, frame.height)
        found = found.where(keep)
        clipped = clip_boxes(found.xyxy, frame.width, frame.height)
        sides = clipped[:, 2:] - clipped[:, :2]
        large = (sides >= self._settings.min_box_px).all(axis=1)
        return Detections(clipped, found.confidence, found.label).where(large)


def _parameter(model: LiveModel, name: str) -> tuple[str, ...]:
    try:
        return tuple(part.strip() for part in model.parameters[name].split(","))
    except KeyError as error:
        raise TensorContractError(
            model.contract.name, f"config parameter {name!r} is missing"
        ) from error


def _numbers(
    model: LiveModel, name: str, kind: Callable[[str], _Number], *, least: int
) -> list[_Number]:
    """Read a parameter of numbers, none of them below the least."""
    texts = _parameter(model, name)
    try:
        numbers = [kind(text) for text in texts]
        if all(least <= number < math.inf for number in numbers):
            return numbers
    except ValueError:
        pass
    raise TensorContractError(
        model.contract.name,
        f"config parameter {name!r}: expected numbers from {least} on, got {','.join(texts)!r}",
    )
