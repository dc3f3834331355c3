"""What a process counts and measures, as Prometheus objects; a leaf that anybody may import.

Label values are bounded: models come from the contracts, tenants from the configuration (never from
a request), all others from the enumerations named in the help texts. Each worker process has its
own registry and its own port, see `orchestrator.metrics_server`.
"""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# One more series for each counter and histogram, and nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]

_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.16, 0.24, 0.32, 0.5, 0.75),
    *(1.0, 1.5, 2.5, 5.0, 10.0, 30.0),
)
"""From a millisecond to half a minute; finest where one frame at 25 or 50 a second matters."""

MODEL_IN_FLIGHT = Gauge(
    "touchline_model_in_flight", "Requests sent to a model's replicas and not answered.", ["model"]
)
MODEL_QUEUED = Gauge(
    "touchline_model_queued", "Requests that wait here for a place at a replica.", ["model"]
)
MODEL_REQUESTS = Counter(
    "touchline_model_requests_total",
    "Requests to a model by outcome: ok, or why not.",
    ["model", "outcome"],
)
MODEL_QUEUE_SECONDS = Histogram(
    "touchline_model_queue_seconds",
    "Wait of a request here before it was sent to a replica.",
    ["model"],
    buckets=_BUCKETS_S,
)
MODEL_SERVICE_SECONDS = Histogram(
    "touchline_model_service_seconds",
    "From sending a request to a replica until its answer.",
    ["model"],
    buckets=_BUCKETS_S,
)
MODEL_REPLICAS = Gauge(
    "touchline_model_replicas",
    "Replicas of a model by state, all seen alike by every process: take the maximum over them.",
    ["model", "state"],
)
MODEL_ROWS_PER_SECOND = Gauge(
    "touchline_model_rows_per_second",
    "Batch rows that a model answered to this process, over the last ten seconds.",
    ["model"],
)
MODEL_CAPACITY = Gauge(
    "touchline_model_capacity_rows_per_second",
    "Batch rows that the ready replicas can answer to this process; absent before it was known.",
    ["model"],
)
MODEL_EJECTIONS = Counter(
    "touchline_model_ejections_total", "Replicas taken out of use by reason.", ["model", "reason"]
)
MODEL_REPAIRS = Counter(
    "touchline_model_repairs_total",
    "Attempts to reload a broken replica's model by outcome.",
    ["model", "outcome"],
)

TRACKER_SLOTS = Gauge(
    "touchline_tracker_slots",
    "Streams that the ready tracker replicas can follow, for all processes: take the maximum.",
)
TRACKER_SLOTS_USED = Gauge(
    "touchline_tracker_slots_used",
    "Streams of this process that the ready tracker replicas follow.",
)
TRACKER_STARTS_REFUSED = Counter(
    "touchline_tracker_starts_refused_total",
    "Stream starts that a tracker replica had no slot for.",
)
TRACKER_REBUILDS = Counter(
    "touchline_tracker_rebuilds_total", "Streams whose tracker state was rebuilt from last masks."
)

STREAMS = Gauge("touchline_streams", "Streams open now.", ["tenant"])
STREAM_STARTS = Counter(
    "touchline_stream_starts_total",
    "Stream starts by outcome: accepted, or why refused; of an empty tenant, before it was known.",
    ["tenant", "outcome"],
)
STREAMS_RESUMED = Counter("touchline_streams_resumed_total", "Streams that went on by token.")

FRAMES_RECEIVED = Counter(
    "touchline_frames_received_total", "Frames that clients sent.", ["tenant"]
)
FRAMES_RECOGNIZED = Counter(
    "touchline_frames_recognized_total", "Frames answered by a recognition.", ["tenant"]
)
FRAMES_LOST = Counter(
    "touchline_frames_lost_total",
    "Frames answered by a gap, by the gap's reason.",
    ["tenant", "reason"],
)
BYTES_RECEIVED = Counter(
    "touchline_bytes_received_total", "Encoded bytes of the frames received.", ["tenant"]
)
STAGE_SECONDS = Histogram(
    "touchline_stage_seconds",
    "Time that recognised frames took per stage; total is from arrival to answer.",
    ["stage"],
    buckets=_BUCKETS_S,
)
DEADLINE_MISSES = Counter(
    "touchline_deadline_misses_total",
    "Frames answered after their deadline, or lost because they could not make it.",
)
DEGRADATION_LEVEL = Gauge(
    "touchline_degradation_level",
    "Step of the overload ladder: 0 normal, then identify, number, segment less, boxes only, thin.",
)
DEGRADED_FRAMES = Counter(
    "touchline_degraded_frames_total",
    "Recognitions that lack something, by what they lack.",
    ["degradation"],
)
TRACKS = Gauge("touchline_tracks", "People tracked now in all streams.")
IDENTITY_UPDATES = Counter(
    "touchline_identity_updates_total",
    "Revisions of earlier answers by changed field, or merged: two tracks found to be one.",
    ["field"],
)

_EJECTION_REASONS = ("down", "not_ready", "hang", "timeout", "failures", "stub_died")
_REPAIR_OUTCOMES = ("ok", "failed")


def expose_model(model: str) -> None:
    """Expose a model's rare counters while they are 0.

    An alert on growth misses the first event of a series that begins with it.
    """
    for reason in _EJECTION_REASONS:
        MODEL_EJECTIONS.labels(model, reason)
    for outcome in _REPAIR_OUTCOMES:
        MODEL_REPAIRS.labels(model, outcome)


def expose_tenant(tenant: str, gap_reasons: Iterable[str]) -> None:
    """Expose a tenant's counters while they are 0, for the same reason."""
    FRAMES_RECOGNIZED.labels(tenant)
    for reason in gap_reasons:
        FRAMES_LOST.labels(tenant, reason)
