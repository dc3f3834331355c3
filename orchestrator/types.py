"""The domain types that travel between the stages; frozen, without protobuf and without Triton.

Boxes are `xyxy`, that is `(x_min, y_min, x_max, y_max)` in pixels of the source frame, float32,
with the origin at the top left corner and `max` exclusive.
"""

import math
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""An RGB picture, uint8, shape `(height, width, 3)`."""

Boxes = NDArray[np.float32]
"""Boxes as described above, float32, shape `(n, 4)`."""


class Encoding(Enum):
    """How the bytes of a frame are coded."""

    JPEG = auto()
    PNG = auto()
    RGB24 = auto()
    H264 = auto()
    HEVC = auto()

    @property
    def is_video(self) -> bool:
        """Whether a frame may need earlier frames to be decoded."""
        return self in {Encoding.H264, Encoding.HEVC}


class Role(Enum):
    """What a person does on the pitch."""

    PLAYER = auto()
    GOALKEEPER = auto()
    REFEREE = auto()
    OTHER = auto()


class Team(Enum):
    """One of the two sides of a match."""

    A = auto()
    B = auto()


class TrackState(Enum):
    """How well a track is founded in the current frame."""

    TENTATIVE = auto()
    """Too young to be trusted."""
    CONFIRMED = auto()
    """Seen by the detector in this frame."""
    COASTING = auto()
    """Not seen by the detector in this frame; the box comes from the tracker."""


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


class GapReason(Enum):
    """Why frames have no recognition."""

    DECODE_ERROR = auto()
    INVALID_FRAME = auto()
    RESOLUTION_CHANGED = auto()
    MODEL_UNAVAILABLE = auto()
    OVERLOADED = auto()
    INTERNAL = auto()
    QUOTA_EXCEEDED = auto()


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a model is asked: tenants share it by weight, a tenant's streams evenly."""

    stream: str
    tenant: str = "default"
    weight: float = 1.0
    """The tenant's share relative to other tenants, more than 0."""


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """What the client said about a frame; echoed as it came."""

    frame_index: int
    """Presentation index, 0 or more, strictly rising within a stream (decode order excepted)."""
    pts: int | None = None
    """Presentation time in units of the stream's time base; None if the client sent none."""
    timecode: str = ""
    """SMPTE timecode, opaque to the server."""
    capture_time: tuple[int, int] | None = None
    """Wall-clock time of capture as sent, seconds and nanoseconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One frame as the client sent it."""

    header: FrameHeader
    data: bytes
    is_answered: bool = False
    """Whether it is here only because later ones cannot be decoded without it."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame."""

    header: FrameHeader
    pixels: Pixels
    deadline: float = math.inf
    """When its result is worth nothing any more, in seconds of `time.monotonic`."""

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])


@dataclass(frozen=True, slots=True)
class LostFrame:
    """A frame that will never be recognised, and why."""

    header: FrameHeader
    reason: GapReason
    detail: str


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
        labels = tuple(name for name, kept in zip(self.label, keep, strict=True) if kept)
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
    shift: Shift = Shift(np.eye(2, 3, dtype=np.float32))


@dataclass(frozen=True, slots=True)
class NumberReading:
    """What one crop says about a person.

    Attributes:
        visible: Probability that the number can be read in the crop, in `[0, 1]`.
        numbers: float32 `(100,)`, probability of each shirt number given that it can be read;
            index 0 is never a number.
        roles: float32 `(4,)`, probability of each `Role` in order of definition.
    """

    visible: float
    numbers: NDArray[np.float32]
    roles: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Identity:
    """What is believed about a track; every belief abstains (None) until it is founded."""

    role: Role | None = None
    role_confidence: float = 0.0
    team: Team | None = None
    team_confidence: float = 0.0
    jersey_number: int | None = None
    jersey_number_confidence: float = 0.0
    player_id: str = ""


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


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """One person of a team sheet."""

    player_id: str
    jersey_number: int
    role: Role
    name: str = ""


@dataclass(frozen=True, slots=True)
class TeamSheet:
    """What the client knows about one side."""

    name: str = ""
    kit_description: str = ""
    roster: tuple[RosterEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class StreamConfig:
    """How a client's stream is coded and what it wants; validated by `convert`."""

    stream_name: str
    encoding: Encoding
    width: int | None = None
    height: int | None = None
    frame_rate: float = 25.0
    """Frames per second, more than 0, at most 240."""
    rotation_degrees: int = 0
    """Clockwise rotation to apply after decoding: 0, 90, 180 or 270."""
    is_live: bool = False
    latency_budget_s: float | None = None
    wants_masks: bool = False
    wants_stage_timings: bool = False
    team_a: TeamSheet = TeamSheet()
    team_b: TeamSheet = TeamSheet()
