"""How an object is shown to the network: by a box, by clicks, or by its mask."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLICK_OUTSIDE, CLICK_INSIDE = 0, 1
BOX_CORNERS = (2, 3)
"""Labels of points. Source: sam2 1.1.0, `PromptEncoder._embed_points`."""


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """Points on an object, or its mask, in the picture that the network is given.

    Attributes:
        points: xy in pixels of the picture, float32 `(p, 2)`; the corners of a box come first.
        labels: int32 `(p,)`: 1 a click on the object, 0 a click beside it, 2 and 3 the upper left
            and the lower right corner of its box.
        mask: bool `(size, size)` with the sides of the picture; it takes the place of the points.

    Raises:
        ValueError: The shapes do not fit, or there is neither a point nor a mask.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int32]
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.points.shape != (*self.labels.shape, 2) or self.labels.ndim != 1:
            raise ValueError(
                f"prompt: expected points (p, 2) with labels (p,), got {self.points.shape} and "
                f"{self.labels.shape}"
            )
        if self.mask is None and not len(self.points):
            raise ValueError("prompt: expected a point or a mask")

    @classmethod
    def box(cls, xyxy: NDArray[np.float32]) -> "Prompt":
        """The box around an object, xyxy float32 `(4,)`."""
        return cls(np.asarray(xyxy, np.float32).reshape(2, 2), np.array(BOX_CORNERS, np.int32))

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> "Prompt":
        """The pixels of an object, bool `(size, size)`."""
        return cls(np.empty((0, 2), np.float32), np.empty(0, np.int32), mask)

    @property
    def kind(self) -> int | None:
        """Prompts of equal kind can be decoded in one batch: the number of points, None a mask."""
        return len(self.points) if self.mask is None else None

    def with_clicks(self, points: NDArray[np.float32], labels: NDArray[np.int32]) -> "Prompt":
        """Add clicks `(p, 2)` with labels `(p,)`, 1 on the object and 0 beside it."""
        return Prompt(
            np.concatenate([self.points, points]).astype(np.float32),
            np.concatenate([self.labels, labels]).astype(np.int32),
            self.mask,
        )
