"""What a stream is told: who is where in each frame, and what of it is revised later."""

from dataclasses import dataclass, field
from enum import Enum, auto

from orchestrator.types.frames import FrameHeader
from orchestrator.types.people import Identity
from orchestrator.types.pictures import Boxes
from orchestrator.types.tracks import Track


@dataclass(frozen=True, slots=True)
class Player:
    """One recognised person in one frame."""

    track_id: int
    """Id of the person within the stream, 1 or more."""
    track: Track
    identity: Identity


@dataclass(frozen=True, slots=True)
class Ball:
    """The ball in one frame: box float32 `(4,)`, confidence in `[0, 1]`."""

    xyxy: Boxes
    confidence: float


class Degradation(Enum):
    """Something that a result lacks because a part of the cluster is missing or overloaded."""

    UNTRAINED_WEIGHTS = auto()
    TRACKER_UNAVAILABLE = auto()
    IDENTIFICATION_UNAVAILABLE = auto()
    NUMBERS_UNAVAILABLE = auto()
    IDENTIFIED_LESS_OFTEN = auto()
    NUMBERED_LESS_OFTEN = auto()
    SEGMENTED_LESS_OFTEN = auto()
    BOXES_ONLY = auto()
    BALL_UNAVAILABLE = auto()


@dataclass(frozen=True, slots=True)
class Recognition:
    """The result of one frame."""

    header: FrameHeader
    width: int
    height: int
    players: tuple[Player, ...]
    ball: Ball | None
    degradations: frozenset[Degradation] = frozenset()
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each stage, by stage name, and `total` from arrival to result."""


@dataclass(frozen=True, slots=True)
class IdentityUpdate:
    """A revision of what was said about a track, valid from `frame_index` on."""

    track_id: int
    frame_index: int
    identity: Identity
    changed: tuple[str, ...]
    """Names of the fields of `identity` that changed."""
    merged_into_track_id: int | None = None
    """The earlier track that this person is reported as from now on."""
