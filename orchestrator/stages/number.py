"""ResNet: a few crops of people a second become readings of shirt numbers and roles."""

import asyncio

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from orchestrator.contracts import JERSEY_CROP, RESNET_JERSEY
from orchestrator.imaging import crops, stacked
from orchestrator.settings import NumberSettings
from orchestrator.stages.cadence import Cadence
from orchestrator.triton.client import TritonClient
from orchestrator.types.frames import Frame
from orchestrator.types.people import NumberReading
from orchestrator.types.tracks import Tracks


class NumberReader:
    """Reads the numbers and roles of one stream's people at a cadence."""

    def __init__(
        self, triton: TritonClient, settings: NumberSettings, *, frame_rate: float
    ) -> None:
        self._triton = triton
        self._cadence = Cadence(
            interval_s=settings.interval_s,
            frame_rate=frame_rate,
            max_crops=settings.max_crops_per_frame,
        )

    async def read(
        self, frame: Frame, tracks: Tracks, frame_count: int, *, stretch: int = 1
    ) -> dict[int, NumberReading]:
        """Read the tracks that are due, by the frame's deadline; arguments as of `Cadence.due`.

        Returns:
            Reading by object id, all of them finite; empty if nobody is due.

        Raises:
            ModelError: The reader gave no answer.
        """
        due = self._cadence.due(tracks.seen, frame_count, stretch)
        if not due:
            return {}
        boxes = stacked([track.xyxy for track in due])
        pixels = await asyncio.to_thread(crops, frame.pixels, boxes, *JERSEY_CROP)
        reply = await self._triton.infer(RESNET_JERSEY, {"crops": pixels}, deadline=frame.deadline)
        return {
            track.object_id: reading
            for track, reading in zip(due, _readings(reply), strict=True)
            if _is_finite(reading)
        }


def _readings(reply: dict[str, NDArray[np.generic]]) -> list[NumberReading]:
    """Read all rows at once: scipy's calls cost far more than their work on so few numbers."""
    logits = {name: array.astype(np.float32) for name, array in reply.items()}
    visible = expit(logits["number_visible"][:, 0]).tolist()
    numbers = number_probabilities(logits["tens"], logits["units"])
    return list(map(NumberReading, visible, numbers, softmax(logits["role"], axis=1)))


def _is_finite(reading: NumberReading) -> bool:
    """Whether a reading is sound: another would spoil a person's votes for good."""
    spoilt = (reading.visible, reading.numbers.sum(), reading.roles.sum())
    return bool(np.isfinite(spoilt).all())


def number_probabilities(
    tens: NDArray[np.float32], units: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Combine digit logits into one distribution over shirt numbers.

    Args:
        tens: Logits of tens digits 0-9 and, in column 10, of no tens digit; `(..., 11)`.
        units: Logits of units digits; `(..., 10)`.

    Returns:
        Probabilities float32 `(..., 100)`, sum 1; index 0 ("0", "00") is impossible. A leading zero
        counts as no tens digit. All are 0 where nothing else can be read.
    """
    p_tens, p_units = softmax(tens, axis=-1), softmax(units, axis=-1)
    first = p_tens[..., :10].copy()
    first[..., 0] += p_tens[..., 10]
    joint = (first[..., np.newaxis] * p_units[..., np.newaxis, :]).reshape(*tens.shape[:-1], 100)
    joint[..., 0] = 0.0
    total = np.maximum(joint.sum(axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    return np.asarray(joint / total, np.float32)
