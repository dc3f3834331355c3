"""What the detector finds in a frame."""

from dataclasses import dataclass
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from orchestrator.types.pictures import Boxes


@dataclass(frozen=True, slots=True)
class Detections:
    """People and ball candidates of one frame.

    Attributes:
        xyxy: Boxes, shape `(n, 4)`.
        confidence: float32 `(n,)` in `[0, 1]`.
        label: Detector label of each row, one of the labels in the model's config.
    """

    xyxy: Boxes
    confidence: NDArray[np.float32]
    label: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.label)
        if self.xyxy.shape != (n, 4) or self.confidence.shape != (n,):
            raise ValueError(
                f"expected xyxy ({n}, 4) and confidence ({n},) for {n} labels, "
                f"got {self.xyxy.shape} and {self.confidence.shape}"
            )

    def __len__(self) -> int:
        return len(self.label)

    def where(self, keep: NDArray[np.bool_]) -> "Detections":
        """Return the rows for which `keep`, bool `(n,)`, is true."""
        labels = tuple(compress(self.label, keep.tolist()))
        return Detections(self.xyxy[keep], self.confidence[keep], labels)

    def labelled(self, label: str) -> "Detections":
        """Return the rows with one label."""
        return self.where(np.array([name == label for name in self.label], np.bool_))

    def unlabelled(self, label: str) -> "Detections":
        """Return the rows with any other label."""
        return self.where(np.array([name != label for name in self.label], np.bool_))

    @classmethod
    def joined(cls, *parts: "Detections") -> "Detections":
        """Return all rows of several, in their order; no part gives no rows."""
        return cls(
            np.concatenate([np.zeros((0, 4), np.float32), *(part.xyxy for part in parts)]),
            np.concatenate([np.zeros(0, np.float32), *(part.confidence for part in parts)]),
            tuple(name for part in parts for name in part.label),
        )
