"""Every knob of the orchestrator, frozen; read once at start from `TOUCHLINE_*` variables.

Nested fields are joined by two underscores: `TOUCHLINE_SERVER__PORT=50051`.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(_Group):
    """The public gRPC port."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` inside a pod."""
    port: int = Field(default=50051, ge=0, le=65535)
    """TCP port; 0 takes a free one."""
    max_streams: int = Field(default=16, ge=1)
    """Streams and single images served at once; a further one gets RESOURCE_EXHAUSTED."""
    max_frame_bytes: int = Field(default=32 << 20, ge=1 << 10)
    """Largest `Frame.data`; a larger frame becomes a gap. gRPC ends calls with messages over four
    times that."""
    max_frame_pixels: int = Field(default=8192 * 4320, ge=256)
    """Largest picture in pixels; checked before a picture is decoded."""
    drain_s: float = Field(default=30.0, ge=0)
    """Time that open streams get after SIGTERM, in seconds."""


class TritonSettings(_Group):
    """Where the models are served and how they are reached."""

    url: str = "127.0.0.1:8001"
    """gRPC address of the server that has all models not listed in `urls`."""
    urls: dict[str, str] = {}
    """gRPC address by model name, for models served apart."""
    transport: Literal["auto", "shared_memory", "grpc"] = "auto"
    """How large tensors travel. `auto` probes whether a server sees this host's shared memory."""
    shared_memory_bytes: int = Field(default=512 << 20, ge=0)
    """Most bytes held in /dev/shm; tensors beyond it travel by gRPC."""
    connect_timeout_s: float = Field(default=60.0, gt=0)
    """Time for the models to become ready at start, in seconds."""
    infer_timeout_s: float = Field(default=10.0, gt=0)
    """Longest wait for one inference, in seconds."""


class StreamSettings(_Group):
    """Flow of one stream."""

    credit_frame_count: int = Field(default=8, ge=2, le=256)
    """Frames that a client may have under way; bounds a stream's memory."""
    detect_ahead: int = Field(default=2, ge=1, le=32)
    """Frames detected while an earlier one is still tracked."""


class DetectSettings(_Group):
    """What counts as a detection."""

    min_box_px: float = Field(default=2.0, ge=0)
    """Boxes narrower or lower than this many source pixels are dropped."""


class TrackSettings(_Group):
    """Birth, confirmation and death of tracks."""

    match_iou: float = Field(default=0.2, gt=0, lt=1)
    """Least overlap of a detection with a track's box to belong to it."""
    birth_confidence: float = Field(default=0.5, ge=0, le=1)
    """Least detector confidence that starts a track."""
    birth_overlap_iou: float = Field(default=0.4, gt=0, lt=1)
    """A detection that overlaps a live track more than this starts none."""
    confirm_frames: int = Field(default=3, ge=1)
    """Frames with a detection until a track is confirmed."""
    coast_s: float = Field(default=1.0, gt=0)
    """How long a confirmed track lives without a detection, in seconds."""
    mask_only_s: float = Field(default=0.12, ge=0)
    """How long a person is still reported where only the mask says so, in seconds; masks alone
    stray: after three frames half of them are on nobody, after eight nearly all."""
    duplicate_iou: float = Field(default=0.7, gt=0, lt=1)
    """Of two tracks that overlap more than this for a while, the one with fewer detections ends."""
    correct_iou: float = Field(default=0.4, ge=0, lt=1)
    """Below this overlap of mask and detection the tracker is prompted with the detection again."""
    max_objects: int = Field(default=48, ge=1, le=64)
    """Most tracks alive at once in a stream."""


class IdentifySettings(_Group):
    """How often people are embedded, and what makes a team."""

    interval_s: float = Field(default=0.5, gt=0)
    """Time between two embeddings of a track, in seconds."""
    max_crops_per_frame: int = Field(default=8, ge=1)
    """Most crops embedded in one frame; the longest waiting go first."""
    team_margin: float = Field(default=0.15, ge=0)
    """How much nearer (cosine) one side's centre must be than the other's to name a side."""
    reidentify_s: float = Field(default=20.0, ge=0)
    """How long a lost track may be found again, in seconds."""
    reidentify_similarity: float = Field(default=0.5, ge=-1, le=1)
    """Least cosine similarity to a lost track."""


class NumberSettings(_Group):
    """How often numbers are read, and when one is said."""

    interval_s: float = Field(default=0.12, gt=0)
    """Time between two readings of a track, in seconds."""
    max_crops_per_frame: int = Field(default=12, ge=1)
    """Most crops read in one frame; the longest waiting go first."""
    min_votes: float = Field(default=1.0, gt=0)
    """Least weight of readings, one clear reading being 1, before a number is said."""
    min_readings: int = Field(default=2, ge=1)
    """Least number of readings in which a number was in sight, before one is said."""
    min_confidence: float = Field(default=0.35, gt=0, le=1)
    """Least share of the votes for the number that is said."""
    min_lead: float = Field(default=2.0, ge=1)
    """How many times the votes of the next likeliest number it must have."""
    role_min_readings: float = Field(default=3.0, gt=0)
    """Least number of readings before a role is said."""
    role_min_confidence: float = Field(default=0.6, gt=0, le=1)
    """Least mean probability of the role that is said."""


class Settings(BaseSettings):
    """All settings of one orchestrator process."""

    model_config = SettingsConfigDict(
        env_prefix="TOUCHLINE_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    server: ServerSettings = ServerSettings()
    triton: TritonSettings = TritonSettings()
    stream: StreamSettings = StreamSettings()
    detect: DetectSettings = DetectSettings()
    track: TrackSettings = TrackSettings()
    identify: IdentifySettings = IdentifySettings()
    number: NumberSettings = NumberSettings()
