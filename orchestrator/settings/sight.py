"""What can be seen from outside: metrics, traces, logs, profiles."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from orchestrator.settings.group import Group


class MetricsSettings(Group):
    """The HTTP port with `/metrics`, `/healthz` and `/readyz`."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` inside a pod."""
    port: int | None = Field(default=None, ge=0, le=65535)
    """TCP port of the first worker process, the next ones use those above; 0 takes a free one,
    None serves nothing."""


class TracingSettings(Group):
    """OpenTelemetry traces of single frames."""

    endpoint: str | None = Field(default=None, pattern="^https?://")
    """URL that takes OTLP over HTTP, such as `http://collector:4318/v1/traces`; None is off."""
    sample_ratio: float = Field(default=0.01, ge=0, le=1)
    """Share of the frames that are traced."""
    service_name: str = "touchline"
    """How traces name this process."""


class LoggingSettings(Group):
    """What is logged, to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severity that is logged."""
    format: Literal["human", "json"] = "human"
    """`json` writes one object a line."""


class ProfilingSettings(Group):
    """A profile of the running process on SIGUSR2."""

    directory: Path | None = None
    """Where profiles are written; without one the signal does nothing."""
    duration_s: float = Field(default=60.0, gt=0, le=600)
    """A profile ends by itself after this many seconds."""
    max_files: int = Field(default=8, ge=1)
    """Profiles kept in the directory; the oldest goes first."""
