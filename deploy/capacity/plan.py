"""What a number of streams needs on one kind of GPU, and what that costs."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from deploy.capacity.profile import STATELESS, TRACKER, Profile
from deploy.capacity.targets import (
    Share,
    observed,
    orchestrator_share,
    replicas,
    stateless_share,
    tracker_share,
)


@dataclass(frozen=True, slots=True)
class Need:
    """What one part of the cluster needs.

    Attributes:
        name: The model's, or `orchestrator`.
        unit: Of load and capacity: `requests/s`, or `streams`.
        load: Of all streams together.
        capacity: Of one replica.
        replicas: Pods; those of models take a GPU each.
        has_gpu: Whether they do.
    """

    name: str
    unit: str
    load: float
    capacity: float
    replicas: int
    has_gpu: bool

    @property
    def headroom(self) -> float:
        """Share of the capacity that is left, 0 to 1."""
        return 1 - self.load / (self.replicas * self.capacity)


@dataclass(frozen=True, slots=True)
class Plan:
    """What all streams need.

    Attributes:
        gpu: Kind of GPU.
        streams: Live at the same time.
        frame_rate: Of each, per second.
        observed: People that a tracker looks for in each frame.
        slots: Streams that a tracker lets in, by its config; more than it can follow degrades them.
        needs: By part.
        is_measured: Whether every latency behind this was measured on this GPU.
        gpu_hour_price: Of one GPU.
        is_example: Whether that price is the profile's example.
    """

    gpu: str
    streams: int
    frame_rate: float
    observed: int
    slots: int
    needs: tuple[Need, ...]
    is_measured: bool
    gpu_hour_price: float
    is_example: bool

    @property
    def gpus(self) -> int:
        """GPUs of all models together, whole ones."""
        return sum(need.replicas for need in self.needs if need.has_gpu)

    @property
    def stream_hour_price(self) -> float:
        """Price of the GPUs for one stream and hour while all streams run; CPUs not included."""
        return self.gpus * self.gpu_hour_price / self.streams

    def as_json(self) -> dict[str, Any]:
        """Return all of it, the sums included, for `json.dumps`."""
        return {**asdict(self), "gpus": self.gpus, "stream_hour_price": self.stream_hour_price}


def make_plan(profile: Profile, gpu_hour_price: float | None = None) -> Plan:
    """Compute what the streams of the profile's workload need.

    Args:
        profile: Its GPU and workload.
        gpu_hour_price: Of one GPU; None takes the profile's example.

    Raises:
        CapacityError: The GPU cannot serve such streams at all; says what it could.
    """
    workload = profile.table["workload"]
    example = float(profile.table["gpu_hour_price"][profile.gpu])
    return Plan(
        gpu=profile.gpu,
        streams=workload["streams"],
        frame_rate=workload["frame_rate"],
        observed=observed(profile),
        slots=profile.models[TRACKER].slots,
        needs=tuple(_needs(profile)),
        is_measured=all(model.latency.is_measured for model in profile.models.values()),
        gpu_hour_price=example if gpu_hour_price is None else gpu_hour_price,
        is_example=gpu_hour_price is None,
    )


def _needs(profile: Profile) -> Iterator[Need]:
    counts, streams = replicas(profile), profile.table["workload"]["streams"]

    def need(name: str, unit: str, load: float, share: Share) -> Need:
        return Need(name, unit, load, share.capacity, counts[name], name != "orchestrator")

    for name in STATELESS:
        rate = streams * profile.table["workload"]["frame_rate"] * profile.requests_per_frame[name]
        yield need(name, "requests/s", rate, stateless_share(profile, name))
    yield need(TRACKER, "streams", streams, tracker_share(profile))
    yield need("orchestrator", "streams", streams, orchestrator_share(profile))
