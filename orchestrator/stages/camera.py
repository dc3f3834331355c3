"""How the camera moves from frame to frame, so that people's own motion can be told from it."""

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.types import Pixels

_WIDTH = 320
"""Pictures are compared at this width: enough for a few pixels' accuracy, at 2 ms a frame."""
_LEAST_RESPONSE = 0.1
"""Below this the pictures do not match: a cut, or nothing to hold on to."""


class CameraMotion:
    """Measures the shift between one frame of a stream and the next."""

    def __init__(self) -> None:
        self._previous: NDArray[np.float32] | None = None

    def shift(self, pixels: Pixels) -> NDArray[np.float32]:
        """Return how far the scene moved in the picture since the last call, `(dx, dy)` in pixels.

        Zero for the first frame, and where the two frames do not match. Pans and tilts only; zoom
        and rotation are not measured.

        Source: phase correlation, Kuglin and Hines 1975, as in OpenCV.
        """
        height, width = pixels.shape[:2]
        size = (_WIDTH, max(16, round(height * _WIDTH / width)))
        small = cv2.resize(pixels[:, :, 1], size, interpolation=cv2.INTER_AREA).astype(np.float32)
        previous, self._previous = self._previous, small
        if previous is None or previous.shape != small.shape:
            return np.zeros(2, np.float32)
        window = cv2.createHanningWindow(size, cv2.CV_32F)
        moved, response = cv2.phaseCorrelate(previous, small, window)
        if response < _LEAST_RESPONSE:
            return np.zeros(2, np.float32)
        return np.asarray(moved, np.float32) * np.float32(width / _WIDTH)
