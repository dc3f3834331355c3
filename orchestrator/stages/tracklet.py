"""The living state of one object that is followed."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orchestrator.types import Boxes, Mask

VELOCITY_BLEND = 0.5
"""Weight of the newest motion in the steady one."""
_SHIRT_BLEND = 0.1
_SENIOR_HITS = 25


@dataclass(slots=True)
class Tracklet:
    """The living state of one object."""

    object_id: int
    xyxy: Boxes
    label: str
    confidence: float
    velocity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(2, np.float32))
    """Motion in the picture, the camera's steady motion included, in pixels per frame."""
    hits: int = 0
    """Frames with a detection."""
    misses: int = 0
    """Frames since the last detection."""
    support: float = 0.0
    """SAM2's score in this frame, 0 without a mask."""
    mask: Mask | None = None
    needs_prompt: bool = True
    """SAM2 does not know the object, or has lost it."""
    shirt: NDArray[np.float32] | None = None
    """Colour of the shirt, `(3,)`, steady over the last second."""
    prompted_frames_ago: int = 0
    covered: int = 0
    """Frames in a row in which a senior track lay on the same place."""

    @property
    def seniority(self) -> float:
        """How well founded the track is, 0 to 1."""
        return min(self.hits, _SENIOR_HITS) / _SENIOR_HITS

    def wear(self, shirt: NDArray[np.float32]) -> None:
        """Take note of the colour of the shirt."""
        before = shirt if self.shirt is None else self.shirt
        self.shirt = before + _SHIRT_BLEND * (shirt - before)

    def predicted(self, jerk: NDArray[np.float32]) -> Boxes:
        """Return where the object is expected next, given a jerk of the camera in pixels."""
        return self.xyxy + np.tile(self.velocity + jerk, 2)

    def move(self, xyxy: Boxes) -> None:
        """Take note of where the object is now, and of how it moves."""
        centre, before = (xyxy[:2] + xyxy[2:]) / 2, (self.xyxy[:2] + self.xyxy[2:]) / 2
        measured = centre - before
        self.velocity += VELOCITY_BLEND * (measured - self.velocity)
        self.xyxy = xyxy
