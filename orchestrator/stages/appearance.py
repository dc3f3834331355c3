"""What somebody's shirt looks like, cheap enough for every person in every frame."""

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.types.pictures import Boxes, Pixels

Shirts = NDArray[np.float32]
"""Mean colours of shirts in CIELAB as OpenCV scales it, float32 `(n, 3)`."""

_TORSO = np.array((0.3, 0.18, 0.7, 0.5), np.float32)
"""The part of a box that shows the shirt, xyxy as shares of the box."""
_ALIKE = 30.0
"""Distance in colour at which likeness has fallen to 1/e; two kits are 60 or more apart."""


def shirts(pixels: Pixels, xyxy: Boxes) -> Shirts:
    """Return the mean colour of each person's shirt.

    Args:
        pixels: The picture.
        xyxy: Boxes inside it.
    """
    if not len(xyxy):
        return np.zeros((0, 3), np.float32)
    low, size = xyxy[:, [0, 1, 0, 1]], np.tile(xyxy[:, 2:] - xyxy[:, :2], 2)
    torsos = (low + _TORSO * size).round().astype(int).tolist()
    colours = np.zeros((len(xyxy), 1, 3), np.uint8)
    for row, (x0, y0, x1, y1) in enumerate(torsos):
        torso = pixels[max(y0, 0) : max(y1, y0 + 1), max(x0, 0) : max(x1, x0 + 1)]
        if torso.size:
            colours[row, 0] = np.divide(cv2.sumElems(torso)[:3], torso.shape[0] * torso.shape[1])
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_RGB2LAB)[:, 0], np.float32)


def likeness(a: Shirts, b: Shirts) -> NDArray[np.float32]:
    """Return how alike each shirt of `a` is to each of `b`, float32 `(len(a), len(b))`, 0 to 1."""
    distance = np.linalg.norm(a[:, np.newaxis] - b[np.newaxis], axis=2)
    return np.asarray(np.exp(-distance / _ALIKE), np.float32)
