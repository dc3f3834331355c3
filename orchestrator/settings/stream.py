"""What frames of a stream may cost, and what load means for them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from orchestrator.settings.group import Group


class DecodeSettings(Group):
    """How clients' bytes are decoded, and what one frame may cost."""

    isolation: Literal["process", "thread"] = "process"
    """`process` decodes each stream in a confined process of its own, which hostile data can crash
    without harm to others; `thread` decodes within the server, for data from trusted hands."""
    cpu_limit_s: float = Field(default=2.0, gt=0, le=60)
    """Most CPU time for one frame or access unit, in seconds; one that needs more is lost."""
    timeout_s: float = Field(default=10.0, gt=0)
    """Longest wait for a decoded frame, in seconds of wall time."""
    memory_bytes: int = Field(default=1 << 30, ge=64 << 20)
    """Most memory that a decoding process may take for its stream, pictures handed on excluded."""
    max_worker_losses: int = Field(default=3, ge=1)
    """Processes that a stream's data may end, within 1000 frames, before its frames are refused."""


class StreamSettings(Group):
    """Flow of one stream."""

    credit_frame_count: int = Field(default=8, ge=2, le=256)
    """Frames that a client may have under way; bounds a stream's memory."""
    detect_ahead: int = Field(default=2, ge=1, le=32)
    """Frames detected while an earlier one is still tracked."""


class OverloadSettings(Group):
    """When live streams get less, and which streams are let in."""

    headroom: float = Field(default=0.9, gt=0, le=1)
    """Share of a model's measured capacity that admitted live streams may need by their declared
    frame rates."""
    first_streams: int = Field(default=8, ge=1)
    """Live streams that are let in at once while no model's capacity is known; every five seconds
    as many again as are served already, unless something is left out for these."""
    memory_bytes: int = Field(default=8 << 30, ge=1 << 20)
    """Most memory that the frames under way of all streams of a process may need."""
    profile_window_s: float = Field(default=2.0, gt=0)
    """How long a measured stage time counts, in seconds."""
    probe_interval_s: float = Field(default=0.4, gt=0)
    """Time after which some stream tries a frame that is not expected to be in time, in seconds."""
    high_mark: float = Field(default=1.0, gt=0)
    """Strain of live frames above which less is done for each; 1 is what their streams can bear."""
    low_mark: float = Field(default=0.6, gt=0)
    """Strain below which more is done again."""
    ladder_window_s: float = Field(default=0.5, gt=0)
    """How long the strain of a frame counts, in seconds."""
    raise_after_s: float = Field(default=1.0, ge=0)
    """How long strain must be high for a step up, in seconds; divided by the strain for further
    steps of one climb. A burst echoes for `ladder_window_s`."""
    lower_after_s: float = Field(default=5.0, gt=0)
    """How long strain must be low for a step down, in seconds; up to 16 times that where earlier
    steps down had to be taken back."""
    stretch: int = Field(default=4, ge=2)
    """Factor on the time between two looks at a person, once they are looked at less often."""
    max_observed: int = Field(default=8, ge=1)
    """Most people that SAM2 looks for in a frame, once it looks for some only."""

    @model_validator(mode="after")
    def _marks_are_apart(self) -> Self:
        if self.low_mark >= self.high_mark:
            raise ValueError("low_mark: expected less than high_mark")
        return self
