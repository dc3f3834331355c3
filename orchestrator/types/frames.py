"""A stream's frames: as the client sent them, decoded, or lost."""

import math
from dataclasses import dataclass
from enum import Enum, auto

from orchestrator.types.pictures import Pixels


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
class LostFrame:
    """A frame that will never be recognised, and why."""

    header: FrameHeader
    reason: GapReason
    detail: str
