"""The living state of one object that is followed."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from orchestrator.stages.segmenting import Segment
from orchestrator.types.pictures import Boxes, Mask

_VELOCITY_BLEND = 0.25
"""Weight of the newest motion in the steady one, once there is a steady one."""
_LARGEST_SURPRISE = 0.15
"""Most that a person departs from the expected place in a frame, in body heights; what goes beyond
is a box that two people share, or that lacks a part."""
_COASTING_DECAY = 0.9
_CLOTHES_BLEND = 0.1
_SENIOR_HITS = 25
_SUPPORT_SCORE = 0.5
"""Least SAM2 score for a mask alone to vouch for a person."""


@dataclass(slots=True)
class Tracklet:
    """The living state of one object."""

    object_id: int
    xyxy: Boxes
    label: str
    confidence: float
    velocity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(2, np.float32))
    """The object's own motion, the camera's apart, in pixels per frame."""
    hits: int = 0
    """Frames with a detection."""
    misses: int = 0
    """Frames since the last detection."""
    away: int = 0
    """Frames since the first without a detection, with those that were lost on their way here."""
    elapsed: int = 1
    """By how many frames the newest follows the one before it."""
    support: float = 0.0
    """SAM2's score in this frame, 0 without a mask."""
    mask: Mask | None = None
    is_astray: bool = False
    """The mask has left the person: SAM2 must be told anew."""
    is_shared: bool = False
    """A detection shows the person together with another."""
    clothes: NDArray[np.float32] | None = None
    """What the person wears, as of `appearance.clothes`, steady over the last second."""
    prompted_frames_ago: int = 0
    covered: int = 0
    """Frames in which a senior track lay on the same place, without a break."""

    @property
    def seniority(self) -> float:
        """How well founded the track is, 0 to 1."""
        return min(self.hits, _SENIOR_HITS) / _SENIOR_HITS

    @property
    def height(self) -> float:
        """Height of the box in pixels."""
        return float(self.xyxy[3] - self.xyxy[1])

    @property
    def is_vouched(self) -> bool:
        """Whether the mask alone can be believed."""
        return self.support >= _SUPPORT_SCORE

    def wear(self, clothes: NDArray[np.float32]) -> None:
        """Take note of the clothes, as of `appearance.clothes`, if they are in sight."""
        if np.isnan(clothes).any():
            return
        before = clothes if self.clothes is None else self.clothes
        self.clothes = before + _CLOTHES_BLEND * (clothes - before)

    def advance(self, carried: Boxes, elapsed: int) -> None:
        """Go to where the object is expected in the next frame.

        Args:
            carried: Where the camera's motion alone takes its box, `(4,)`.
            elapsed: By how many frames that frame follows the last one.
        """
        self.elapsed = elapsed
        # In frames that were lost, too, it goes on ever slower.
        way = self.velocity * ((1 - _COASTING_DECAY**elapsed) / (1 - _COASTING_DECAY))
        self.xyxy = carried + np.concatenate((way, way), dtype=np.float32)

    def confirm(self, xyxy: Boxes, label: str, confidence: float) -> None:
        """Take note of a detection of the object."""
        self._move(xyxy)
        self.hits += 1
        self.misses = self.away = 0
        self.label, self.confidence = label, confidence

    def coast(self, segment: Segment | None) -> None:
        """Go on without a detection: by a mask that can be believed, else ever slower."""
        self.away += self.elapsed if self.misses else 1
        self.misses += 1
        if segment is not None and self.is_vouched:
            self._move(segment.xyxy.copy())
            self.confidence = self.support
        else:
            self.velocity *= _COASTING_DECAY**self.elapsed

    def _move(self, xyxy: Boxes) -> None:
        """Take note of where the object is after all, and of how it moves."""
        measured, expected = (xyxy[:2] + xyxy[2:]) / 2, (self.xyxy[:2] + self.xyxy[2:]) / 2
        most = _LARGEST_SURPRISE * self.height
        surprise = np.clip((measured - expected) / self.elapsed, -most, most)
        if self.hits:
            self.velocity += max(_VELOCITY_BLEND, 1 / (1 + self.hits)) * surprise
        self.xyxy = xyxy
