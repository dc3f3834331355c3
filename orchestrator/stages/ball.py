"""Which of the ball candidates is the ball: the likely one near where it was going."""

import numpy as np
from numpy.typing import NDArray

from orchestrator.types import Ball, Detections

_REACH_PER_FRAME = 0.04
"""How far the ball may stray from its predicted place in a frame, as a share of the width."""
_FAR_PENALTY = 0.35
"""Factor on the confidence of a candidate out of reach."""
_MEMORY_FRAMES = 15


class BallFollower:
    """Follows the one ball of a stream through its candidates. It never invents a position."""

    def __init__(self) -> None:
        self._centre: NDArray[np.float32] | None = None
        self._velocity = np.zeros(2, np.float32)
        self._missed = 0

    def follow(self, candidates: Detections, *, width: int) -> Ball | None:
        """Choose the ball of the next frame.

        Args:
            candidates: Detections labelled ball.
            width: Width of the picture in pixels.

        Returns:
            The ball, or None where no candidate is good enough.
        """
        if not len(candidates):
            self._miss()
            return None
        centres = (candidates.xyxy[:, :2] + candidates.xyxy[:, 2:]) / 2
        score = candidates.confidence.copy()
        if self._centre is not None:
            predicted = self._centre + self._velocity * (self._missed + 1)
            distance = np.linalg.norm(centres - predicted, axis=1)
            reach = _REACH_PER_FRAME * width * (self._missed + 1)
            score[distance > reach] *= _FAR_PENALTY
        best = int(score.argmax())
        self._hit(centres[best])
        return Ball(candidates.xyxy[best], float(candidates.confidence[best]))

    def _hit(self, centre: NDArray[np.float32]) -> None:
        if self._centre is not None:
            self._velocity = (centre - self._centre) / (self._missed + 1)
        self._centre, self._missed = centre, 0

    def _miss(self) -> None:
        self._missed += 1
        if self._missed > _MEMORY_FRAMES:
            self._centre, self._velocity = None, np.zeros(2, np.float32)
