"""How the camera moves from frame to frame, for tracks whose own motion cannot tell."""

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.types import Pixels

_WIDTH = 320
"""Pictures are compared at this width: enough for a few pixels' accuracy, at 2 ms a frame."""
_LEAST_RESPONSE = 0.1
"""Below this the pictures do not match: a cut, or nothing to hold on to."""
_NOISE_SHARE = 1 / 160
"""Motion below this share of the width is within the measurement's error and counts as none."""


class CameraMotion:
    """Follows the camera of one stream: pans and tilts, neither zoom nor rotation.

    Args:
        blend: Weight of the newest frame in the steady motion; that of the tracks' velocities.

    Attributes:
        pan: Steady motion of the scene in the picture, `(dx, dy)` in pixels per frame.
        jerk: What the newest frame moved beyond that, in pixels.
        likeness: How well the newest picture continues the last one, 0 to 1; 1 for the first.
    """

    def __init__(self, *, blend: float) -> None:
        self._blend = blend
        self._previous: NDArray[np.float32] | None = None
        self._window: NDArray[np.float32] | None = None
        self._steady = np.zeros(2, np.float32)
        self.pan = np.zeros(2, np.float32)
        self.jerk = np.zeros(2, np.float32)
        self.likeness = 1.0

    def advance(self, pixels: Pixels) -> None:
        """Take the next frame."""
        noise = _NOISE_SHARE * pixels.shape[1]
        surprise = self._shift(pixels) - self._steady
        self._steady = self._steady + self._blend * surprise
        self.jerk = _above(noise, surprise)
        self.pan = _above(noise, self._steady)

    def _shift(self, pixels: Pixels) -> NDArray[np.float32]:
        """Measure how far the scene moved since the last frame; zero where the two do not match.

        Source: phase correlation, Kuglin and Hines 1975, as in OpenCV.
        """
        height, width = pixels.shape[:2]
        size = (_WIDTH, max(16, round(height * _WIDTH / width)))
        small = cv2.resize(pixels[:, :, 1], size, interpolation=cv2.INTER_AREA).astype(np.float32)
        previous, self._previous = self._previous, small
        if previous is None or previous.shape != small.shape:
            self.likeness = 1.0
            return np.zeros(2, np.float32)
        if self._window is None or self._window.shape != small.shape:
            self._window = np.asarray(cv2.createHanningWindow(size, cv2.CV_32F), np.float32)
        moved, self.likeness = cv2.phaseCorrelate(previous, small, self._window)
        if self.likeness < _LEAST_RESPONSE:
            return np.zeros(2, np.float32)
        return np.asarray(moved, np.float32) * np.float32(width / _WIDTH)


def _above(least: float, motion: NDArray[np.float32]) -> NDArray[np.float32]:
    return motion if np.linalg.norm(motion) > least else np.zeros(2, np.float32)
