"""Pictures, and what lies where in them.

Boxes are `xyxy`, that is `(x_min, y_min, x_max, y_max)` in pixels of the source frame, float32,
with the origin at the top left corner and `max` exclusive.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""An RGB picture, uint8, shape `(height, width, 3)`."""

Boxes = NDArray[np.float32]
"""Boxes as described above, float32, shape `(n, 4)`."""


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask of the whole frame in COCO compressed run-length form.

    Attributes:
        is_predicted: Whether it was carried on by motion: SAM2 did not look in this frame.
    """

    height: int
    width: int
    rle_counts: str
    is_predicted: bool = False


@dataclass(frozen=True, slots=True)
class Shift:
    """How the scene moved in the picture from one frame to the next.

    Attributes:
        affine: float32 `(2, 3)`, from pixels of the frame before to pixels of this one.
        zoom: How much larger things are than in the frame before.
    """

    affine: NDArray[np.float32]
    zoom: float = field(init=False)

    def __post_init__(self) -> None:
        zoom = float(np.sqrt(max(np.linalg.det(self.affine[:, :2]), 1e-6)))
        object.__setattr__(self, "zoom", zoom)  # once per frame, and not for everybody in it

    def moved(self, xyxy: Boxes) -> Boxes:
        """Return boxes of the frame before, `(..., 4)`, as they lie in this one if they rested."""
        centre, half = (xyxy[..., :2] + xyxy[..., 2:]) / 2, (xyxy[..., 2:] - xyxy[..., :2]) / 2
        centre = centre @ self.affine[:, :2].T + self.affine[:, 2]
        half = half * self.zoom
        return np.asarray(np.concatenate((centre - half, centre + half), axis=-1), np.float32)


AT_REST = Shift(np.eye(2, 3, dtype=np.float32))
"""The scene did not move."""
