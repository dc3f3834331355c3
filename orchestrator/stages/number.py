"""ResNet: a few crops of people a second become readings of shirt numbers and roles."""

import asyncio

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from orchestrator.contracts import RESNET_JERSEY
from orchestrator.imaging import crops
from orchestrator.settings import NumberSettings
from orchestrator.stages.cadence import Cadence
from orchestrator.triton.client import TritonClient
from orchestrator.types import Frame, NumberReading, Tracks

_HEIGHT, _WIDTH = 128, 64


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
        self, frame: Frame, tracks: Tracks, frame_count: int
    ) -> dict[int, NumberReading]:
        """Read the tracks that are due.

        Returns:
            Reading by object id; empty if nobody is due.

        Raises:
            ModelError: The reader gave no answer.
        """
        due = self._cadence.due(tracks.seen, frame_count)
        if not due:
            return {}
        boxes = np.stack([track.xyxy for track in due])
        pixels = await asyncio.to_thread(crops, frame.pixels, boxes, height=_HEIGHT, width=_WIDTH)
        reply = await self._triton.infer(RESNET_JERSEY, {"crops": pixels})
        return {track.object_id: _reading(reply, row) for row, track in enumerate(due)}


def _reading(reply: dict[str, NDArray[np.generic]], row: int) -> NumberReading:
    logits = {name: array[row].astype(np.float32) for name, array in reply.items()}
    return NumberReading(
        visible=float(expit(logits["number_visible"][0])),
        numbers=number_probabilities(logits["tens"], logits["units"]),
        roles=softmax(logits["role"]),
    )


def number_probabilities(
    tens: NDArray[np.float32], units: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Combine digit logits into one distribution over shirt numbers.

    Args:
        tens: Logits of tens digits 0-9 and, in column 10, of no tens digit; `(11,)`.
        units: Logits of units digits; `(10,)`.

    Returns:
        Probabilities float32 `(100,)`, sum 1; index 0 ("0", "00") is impossible. A leading zero
        counts as no tens digit.
    """
    p_tens, p_units = softmax(tens), softmax(units)
    first = np.concatenate([[p_tens[0] + p_tens[10]], p_tens[1:10]])
    joint = np.outer(first, p_units).reshape(100)
    joint[0] = 0.0
    return np.asarray(joint / joint.sum(), np.float32)
