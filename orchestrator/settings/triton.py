"""The models' servers, and how replicas share the work."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from orchestrator.settings.group import Group


class TritonTlsSettings(Group):
    """TLS towards Triton; on as soon as one file is named. PEM files, read when connecting."""

    ca: Path | None = None
    """Certificates that sign those of the servers; None takes the system's."""
    cert: Path | None = None
    """This client's certificate, for servers that ask for one; needs `key`."""
    key: Path | None = None
    """Private key of `cert`, without a passphrase."""
    server_name: str = ""
    """Name that the servers' certificates carry, where they are reached by IP address."""

    @model_validator(mode="after")
    def _cert_has_key(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key: expected both or neither")
        return self


class TritonSettings(Group):
    """Where the models are served, how they are reached, and how replicas share the work.

    An address is `HOST:PORT`, or stands for replicas that come and go: `dns:///HOST:PORT` for all
    addresses of a name, `k8s:///NAMESPACE/SERVICE:PORT-NAME` for a service's EndpointSlices.
    """

    url: str = "127.0.0.1:8001"
    """gRPC address of the servers that have all models not listed in `urls`."""
    urls: dict[str, str | list[str]] = Field(default={})
    """gRPC addresses by model name, for models served apart; several are replicas."""
    tls: TritonTlsSettings = TritonTlsSettings()
    transport: Literal["auto", "shared_memory", "grpc"] = "auto"
    """How large tensors travel. `auto` probes whether a server sees this host's shared memory."""
    shared_memory_bytes: int = Field(default=512 << 20, ge=0)
    """Most bytes held in /dev/shm; tensors beyond it travel by gRPC."""
    connect_timeout_s: float = Field(default=60.0, gt=0)
    """Time for the detector to become ready at start, in seconds. Models that are not there
    `patience_s` after it may come later; results say what they lack until then."""
    infer_timeout_s: float = Field(default=10.0, gt=0)
    """Longest wait for one inference, in seconds from when it is sent to a replica."""
    resolve_interval_s: float = Field(default=5.0, gt=0)
    """How often `dns:///` names are resolved anew, in seconds."""
    batches_in_flight: int = Field(default=2, ge=1, le=16)
    """Full batches sent to each instance of a replica at once: one runs, the next are formed."""
    max_queued: int = Field(default=512, ge=2)
    """Most requests that wait for one model; no caller may hold more of them than are free."""
    patience_s: float = Field(default=2.0, ge=0)
    """How long requests still wait once a model's last replica is lost, in seconds after that."""
    probe_interval_s: float = Field(default=2.0, gt=0)
    """How often each replica is asked whether its model is ready, in seconds."""
    probe_timeout_s: float = Field(default=1.0, gt=0)
    """Longest wait for a probe's answer, in seconds; a replica that misses two hangs. Where
    requests wait in vain and another replica's server answers meanwhile, half of it is enough;
    where there is no other replica, twice all of it, beside another model's server."""
    eject_after: int = Field(default=5, ge=1)
    """Failed requests in a row that take a replica out of use; a lost connection always does."""
    ejection_s: float = Field(default=1.0, gt=0)
    """How long a replica stays out at least, in seconds; doubled each time that it fails again."""
    max_ejection_s: float = Field(default=30.0, gt=0)
    """Longest time that a replica stays out without being probed, in seconds."""
    repair_attempts: int = Field(default=3, ge=0, le=10)
    """How often a model whose process died is reloaded through Triton's model control before the
    replica is left to others to restart; 0 where servers run without model control."""
