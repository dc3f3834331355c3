"""Whom the tracker follows, frame by frame."""

from dataclasses import dataclass
from enum import Enum, auto

from orchestrator.types.pictures import AT_REST, Boxes, Mask, Shift


class TrackState(Enum):
    """How well a track is founded in the current frame."""

    TENTATIVE = auto()
    """Too young to be trusted."""
    CONFIRMED = auto()
    """Seen by the detector in this frame."""
    COASTING = auto()
    """Not seen by the detector in this frame; the box comes from the tracker."""


@dataclass(frozen=True, slots=True)
class Track:
    """One person in one frame as the tracker follows it, before identity is known.

    Attributes:
        object_id: The tracker's id of the object within the stream, 1 or more. One person may have
            had earlier objects; `Player.track_id` joins them.
        xyxy: Box, float32 `(4,)`.
        confidence: Belief that this is a person and still the same one, in `[0, 1]`.
        label: Detector label of the matched detection, None while coasting.
        is_new: Whether the track was born in this frame.
        is_cut_off: Whether the box lies at the picture's edge, which may hide a part.
    """

    object_id: int
    xyxy: Boxes
    confidence: float
    state: TrackState
    label: str | None
    mask: Mask | None
    is_new: bool
    is_cut_off: bool = False


@dataclass(frozen=True, slots=True)
class Tracks:
    """Everybody followed in one frame.

    Attributes:
        seen: Tracks that a detection or a mask supports in this frame, by ascending object id.
        ended: Objects that were given up in this frame.
        is_degraded: Whether the frame had to do without masks.
        is_cut: Whether the camera cut here, so that earlier places mean nothing.
        shift: How the scene moved in the picture since the last frame.
    """

    seen: tuple[Track, ...]
    ended: tuple[int, ...] = ()
    is_degraded: bool = False
    is_cut: bool = False
    shift: Shift = AT_REST
