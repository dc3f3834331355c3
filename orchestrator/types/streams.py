"""What a client's stream is, and on whose behalf it asks."""

from dataclasses import dataclass, field

from orchestrator.types.frames import Encoding
from orchestrator.types.people import TeamSheet


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a model is asked: tenants share it by weight, a tenant's streams evenly."""

    stream: str
    tenant: str = "default"
    weight: float = 1.0
    """The tenant's share relative to other tenants, more than 0."""


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
    team_a: TeamSheet = field(default_factory=TeamSheet)
    team_b: TeamSheet = field(default_factory=TeamSheet)
