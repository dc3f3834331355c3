"""What one replica is given to do: the targets of the autoscalers, by Little's law."""

import math
from dataclasses import dataclass

from deploy.capacity.profile import STATELESS, TRACKER, Profile
from deploy.capacity.queueing import BatchServer
from orchestrator.errors import CapacityError
from orchestrator.settings import Settings


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica can do, and what it is given.

    Attributes:
        capacity: Requests per second within the objective; streams for tracker and orchestrator.
        load: What of that a replica is given.
        target: Value of the autoscaler's metric at that load: requests in flight, or streams.
    """

    capacity: float
    load: float
    target: float


def server(profile: Profile, name: str) -> BatchServer:
    """Return a stateless model's instance, for requests of the size that streams make."""
    model, rows = profile.models[name], profile.rows_per_request[name]
    most = max(1, int(model.max_batch // rows))
    return BatchServer(tuple(model.latency(count * rows) for count in range(1, most + 1)))


def stateless_share(profile: Profile, name: str) -> Share:
    """Return the share of a model that is asked request by request.

    Raises:
        CapacityError: Even a lone request takes longer than the objective on this GPU.
    """
    model = profile.models[name]
    objective_s = profile.table["objective_ms"][name] / 1000
    one = server(profile, name)
    transport_s = profile.table["transport_ms"] / 1000
    rate = one.highest_rate(
        # A busy instance finds its next batch waiting; only an idle one waits for company.
        objective_s - model.queue_delay_s,
        transport_s=transport_s,
        window=window(profile, name),
    )
    if not rate:
        raise CapacityError(
            f"{name}: a lone request takes {one.seconds[0] * 1000:.1f} ms on {profile.gpu}, "
            f"expected less than its objective of {objective_s * 1000:g} ms, transport included"
        )
    load = rate * profile.share("requests")
    count = model.instances
    in_flight = one.in_server(load) + load * transport_s
    return Share(rate * count, load * count, in_flight * count)


def window(profile: Profile, name: str) -> float:
    """Return the requests that an orchestrator has under way at one instance, at most."""
    batches = Settings.model_fields["triton"].default.batches_in_flight
    return float(batches * profile.models[name].max_batch / profile.rows_per_request[name])


def tracker_share(profile: Profile) -> Share:
    """Return the share of the tracker: streams whose people it looks for within a frame's time.

    Raises:
        CapacityError: It cannot follow even one stream on this GPU; says how many people it can.
    """
    model = profile.models[TRACKER]
    people = observed(profile)
    streams = min(model.slots, model.max_batch, trackable(profile, people))
    if not streams:
        most = next((n for n in range(people, 0, -1) if trackable(profile, n)), 0)
        raise CapacityError(
            f"{TRACKER}: {profile.gpu} looks for at most {most} people in a frame of a stream, "
            f"expected {people}; --observed {most} plans for that (parameter max_observed)"
        )
    load = streams * profile.share("slots")
    return Share(streams, load, load)


def observed(profile: Profile) -> int:
    """Return how many people a tracker looks for in each frame."""
    people = int(profile.table["workload"]["people"])
    limit = int(profile.table["workload"].get("observed", profile.models[TRACKER].max_observed))
    return min(people, limit) if limit else people


def trackable(profile: Profile, people: int) -> int:
    """Return how many streams a tracker's GPU follows, by time alone."""
    latency = profile.models[TRACKER].latency
    budget_s = profile.share("frame") / profile.table["workload"]["frame_rate"]
    streams = 0
    while latency((streams + 1) * people) <= budget_s:
        streams += 1
    return streams


def orchestrator_share(profile: Profile) -> Share:
    """Return the share of an orchestrator pod, in streams."""
    table = profile.table["orchestrator"]
    cpu_s = profile.table["workload"]["frame_rate"] * table["cpu_ms_per_frame"] / 1000
    streams = table["cores"] / cpu_s
    load = streams * profile.share("cpu")
    return Share(streams, load, load)


def replicas(profile: Profile) -> dict[str, int]:
    """Return how many replicas of everything that scales the streams of `[workload]` need."""
    least = int(profile.table["autoscaling"]["min_replicas"])
    streams = int(profile.table["workload"]["streams"])
    rate = streams * profile.table["workload"]["frame_rate"]
    loads = {
        name: rate * profile.requests_per_frame[name] / stateless_share(profile, name).load
        for name in STATELESS
    }
    loads[TRACKER] = streams / tracker_share(profile).load
    loads["orchestrator"] = streams / orchestrator_share(profile).load
    return {name: max(least, math.ceil(load)) for name, load in loads.items()}
