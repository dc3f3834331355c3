"""Every knob of the orchestrator, frozen; read once at start from `TOUCHLINE_*` variables.

Nested fields are joined by two underscores: `TOUCHLINE_SERVER__PORT=50051`.
"""

from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.settings.security import JwtSettings, SecuritySettings
from orchestrator.settings.server import ServerSettings
from orchestrator.settings.sight import (
    LoggingSettings,
    MetricsSettings,
    ProfilingSettings,
    TracingSettings,
)
from orchestrator.settings.stages import (
    DetectSettings,
    IdentifySettings,
    NumberSettings,
    TrackSettings,
)
from orchestrator.settings.stream import DecodeSettings, OverloadSettings, StreamSettings
from orchestrator.settings.triton import TritonSettings, TritonTlsSettings

__all__ = [
    "DecodeSettings",
    "DetectSettings",
    "IdentifySettings",
    "JwtSettings",
    "LoggingSettings",
    "MetricsSettings",
    "NumberSettings",
    "OverloadSettings",
    "ProfilingSettings",
    "SecuritySettings",
    "ServerSettings",
    "Settings",
    "StreamSettings",
    "TracingSettings",
    "TrackSettings",
    "TritonSettings",
    "TritonTlsSettings",
]


class Settings(BaseSettings):
    """All settings of one orchestrator process."""

    model_config = SettingsConfigDict(
        env_prefix="TOUCHLINE_", env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    server: ServerSettings = ServerSettings()
    security: SecuritySettings = SecuritySettings()
    triton: TritonSettings = TritonSettings()
    decode: DecodeSettings = DecodeSettings()
    stream: StreamSettings = StreamSettings()
    overload: OverloadSettings = OverloadSettings()
    detect: DetectSettings = DetectSettings()
    track: TrackSettings = TrackSettings()
    identify: IdentifySettings = IdentifySettings()
    number: NumberSettings = NumberSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    logging: LoggingSettings = LoggingSettings()
    profiling: ProfilingSettings = ProfilingSettings()
