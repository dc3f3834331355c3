"""The public port, and what its processes hold for clients."""

from pathlib import Path

from pydantic import Field

from orchestrator.settings.group import Group


class ServerSettings(Group):
    """The public gRPC port."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` inside a pod."""
    port: int = Field(default=50051, ge=0, le=65535)
    """TCP port; 0 takes a free one."""
    max_streams: int = Field(default=16, ge=1)
    """Streams and single images that a process serves at once; a further one gets
    RESOURCE_EXHAUSTED."""
    max_frame_bytes: int = Field(default=32 << 20, ge=1 << 10, lt=1 << 29)
    """Largest `Frame.data`; a larger frame becomes a gap. gRPC ends calls with messages over four
    times that."""
    max_frame_pixels: int = Field(default=8192 * 4320, ge=256)
    """Largest picture in pixels; checked before a picture is decoded."""
    drain_s: float = Field(default=30.0, ge=0)
    """Time that open streams get after SIGTERM, in seconds."""
    workers: int = Field(default=1, ge=1, le=256)
    """Processes that share the port, about one per core; a connection stays with one of them. The
    tenants' quotas and the tracker's slots are those of all together; what bounds memory holds for
    each: `max_streams`, `resume_streams`, `resume_bytes`, `overload.memory_bytes`."""
    worker: int | None = Field(default=None, ge=0)
    """Number of this process among them; set by their supervisor, as is `worker_directory`."""
    worker_directory: Path | None = None
    """Where the workers reach each other by Unix sockets, and count together what tenants use."""
    keepalive_s: float = Field(default=10.0, ge=1, le=600)
    """How often a quiet connection is probed, in seconds; one that is dead without knowing is found
    out within one and a half times that."""
    client_stall_s: float = Field(default=60.0, gt=0)
    """How long a client may leave an answer unread, in seconds, until its stream is broken off."""
    resume_s: float = Field(default=60.0, ge=0, le=3600)
    """How long a stream that broke off can be resumed, in seconds; 0 keeps none."""
    resume_streams: int = Field(default=32, ge=1)
    """Most streams kept to be resumed; the oldest go first."""
    resume_bytes: int = Field(default=512 << 20, ge=0)
    """Most memory of all streams kept to be resumed."""
