"""Every knob of the orchestrator, frozen; read once at start from `TOUCHLINE_*` variables.

Nested fields are joined by two underscores: `TOUCHLINE_SERVER__PORT=50051`.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

JwtAlgorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ServerSettings(_Group):
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


class JwtSettings(_Group):
    """Tokens of an OpenID Connect provider; taken once `jwks_file` is set."""

    jwks_file: Path | None = None
    """JSON Web Key Set with the provider's public keys."""
    issuer: str = ""
    """What the claim `iss` must say; needed with `jwks_file`."""
    audience: str = ""
    """What the claim `aud` must hold; needed with `jwks_file`."""
    tenant_claim: str = Field(default="tenant", min_length=1)
    """Claim that names the tenant."""
    algorithms: tuple[JwtAlgorithm, ...] = Field(default=("RS256", "ES256", "EdDSA"), min_length=1)
    """Signatures that are accepted; all have a public key, so nothing here is worth stealing."""
    leeway_s: float = Field(default=30.0, ge=0, le=300)
    """How far the provider's clock may differ from ours, in seconds."""
    stream_grace_s: float = Field(default=4 * 3600.0, ge=0)
    """How long a running stream may outlive its token, in seconds: a match outlasts most tokens."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.jwks_file is None and (self.issuer or self.audience):
            raise ValueError("jwks_file: expected with issuer and audience")
        return self


class SecuritySettings(_Group):
    """Who may connect and how the connection is protected. Secrets are files, never values.

    All files are read again when they change; a file that became unusable leaves the old one valid.
    """

    certificate_file: Path | None = None
    """PEM chain of the public port, leaf first; with `private_key_file` it turns TLS on."""
    private_key_file: Path | None = None
    """PEM private key of `certificate_file`, without a passphrase."""
    client_ca_file: Path | None = None
    """PEM certificates that sign those of clients; with `require_client_certificate`."""
    require_client_certificate: bool = False
    """Whether clients without a certificate of `client_ca_file` are turned away (mutual TLS)."""
    api_keys_file: Path | None = None
    """Hashed API keys, written by `touchline keys`."""
    jwt: JwtSettings = JwtSettings()
    tenants_file: Path | None = None
    """TOML with the tenants, their weights and quotas; needed with API keys or tokens. Quotas hold
    for a server with all its workers; further servers (pods) grant the same again."""
    allow_plaintext: bool = False
    """Listen beyond this host without TLS: for pods whose mesh or proxy encrypts."""
    allow_anonymous: bool = False
    """Listen beyond this host without API keys, tokens or client certificates: for a port that the
    network itself guards."""
    reflection: bool = True
    """Whether gRPC reflection is served."""
    audit_file: Path | None = None
    """Where the audit log goes, one JSON object a line; None writes it to standard error."""
    reload_s: float = Field(default=5.0, gt=0)
    """How often files are looked at for changes, and running streams for withdrawn credentials, in
    seconds."""


class TritonTlsSettings(_Group):
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


class TritonSettings(_Group):
    """Where the models are served, how they are reached, and how replicas share the work.

    An address is `HOST:PORT`, or stands for replicas that come and go: `dns:///HOST:PORT` for all
    addresses of a name, `k8s:///NAMESPACE/SERVICE:PORT-NAME` for a service's EndpointSlices.
    """

    url: str = "127.0.0.1:8001"
    """gRPC address of the servers that have all models not listed in `urls`."""
    urls: dict[str, str | list[str]] = {}
    """gRPC addresses by model name, for models served apart; several are replicas."""
    tls: TritonTlsSettings = TritonTlsSettings()
    transport: Literal["auto", "shared_memory", "grpc"] = "auto"
    """How large tensors travel. `auto` probes whether a server sees this host's shared memory."""
    shared_memory_bytes: int = Field(default=512 << 20, ge=0)
    """Most bytes held in /dev/shm; tensors beyond it travel by gRPC."""
    connect_timeout_s: float = Field(default=60.0, gt=0)
    """Time for the models to become ready at start, in seconds."""
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


class DecodeSettings(_Group):
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


class StreamSettings(_Group):
    """Flow of one stream."""

    credit_frame_count: int = Field(default=8, ge=2, le=256)
    """Frames that a client may have under way; bounds a stream's memory."""
    detect_ahead: int = Field(default=2, ge=1, le=32)
    """Frames detected while an earlier one is still tracked."""


class OverloadSettings(_Group):
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
    mask_only_s: float = Field(default=0.3, ge=0)
    """How long a person is still reported where only the mask says so, in seconds; twice as long
    finds nobody more."""
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
    min_votes: float = Field(default=0.3, gt=0)
    """Least weight of readings, one clear reading being 1, before a number is said."""
    min_readings: int = Field(default=2, ge=1)
    """Least number of readings in which a number was in sight, before one is said."""
    min_confidence: float = Field(default=0.3, gt=0, le=1)
    """Least share of the votes for the number that is said."""
    min_lead: float = Field(default=1.5, ge=1)
    """How many times the votes of the next likeliest number it must have."""
    role_min_readings: float = Field(default=3.0, gt=0)
    """Least number of readings before a role is said."""
    role_min_confidence: float = Field(default=0.6, gt=0, le=1)
    """Least mean probability of the role that is said."""


class MetricsSettings(_Group):
    """The HTTP port with `/metrics`, `/healthz` and `/readyz`."""

    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` inside a pod."""
    port: int | None = Field(default=None, ge=0, le=65535)
    """TCP port of the first worker process, the next ones use those above; 0 takes a free one,
    None serves nothing."""


class TracingSettings(_Group):
    """OpenTelemetry traces of single frames."""

    endpoint: str | None = Field(default=None, pattern="^https?://")
    """URL that takes OTLP over HTTP, such as `http://collector:4318/v1/traces`; None is off."""
    sample_ratio: float = Field(default=0.01, ge=0, le=1)
    """Share of the frames that are traced."""
    service_name: str = "touchline"
    """How traces name this process."""


class LoggingSettings(_Group):
    """What is logged, to standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severity that is logged."""
    format: Literal["human", "json"] = "human"
    """`json` writes one object a line."""


class ProfilingSettings(_Group):
    """A profile of the running process on SIGUSR2."""

    directory: Path | None = None
    """Where profiles are written; without one the signal does nothing."""
    duration_s: float = Field(default=60.0, gt=0, le=600)
    """A profile ends by itself after this many seconds."""
    max_files: int = Field(default=8, ge=1)
    """Profiles kept in the directory; the oldest goes first."""


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
