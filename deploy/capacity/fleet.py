"""The replicas of one model, and how a model behaves under load: parts of the simulation."""

from dataclasses import dataclass

import numpy as np

from deploy.capacity.autoscaler import Autoscaler
from deploy.capacity.profile import Profile
from deploy.capacity.targets import server, stateless_share, window


@dataclass(slots=True)
class Fleet:
    """The replicas of one model.

    Attributes:
        scaler: Decides how many there are.
        ready: Replicas that answer.
        starting: Replicas that will.
        surplus: Of those, the ones that were taken back before they answered.
    """

    scaler: Autoscaler
    ready: int
    starting: int = 0
    surplus: int = 0

    @property
    def paid(self) -> int:
        """Replicas that take a GPU."""
        return self.ready + self.starting

    def resize(self, count: int) -> int:
        """Come to that many replicas; return how many of them begin to start."""
        more = max(0, count - self.paid)
        self.starting += more
        for _ in range(max(0, self.paid - count)):
            if self.starting:  # ReplicaSets take pods first that are not ready yet
                self.starting -= 1
                self.surplus += 1
            else:
                self.ready -= 1
        return more

    def arrive(self, _: float) -> None:
        """A replica that was ordered answers now, unless it was taken back."""
        if self.surplus:
            self.surplus -= 1
        else:
            self.starting -= 1
            self.ready += 1


@dataclass(slots=True)
class Response:
    """How a model behaves under load, read off the queue's solution.

    Attributes:
        capacity: Requests per second of one replica.
        rates: Rising rates up to that,
        in_flight: and the requests in flight at each.
        full: Requests in flight at a replica that is given too much.
        per_stream: Requests per second of one stream.
    """

    capacity: float
    rates: tuple[float, ...]
    in_flight: tuple[float, ...]
    full: float
    per_stream: float

    def demand(self, streams: int, ready: int) -> float:
        """Requests in flight and waiting, of all replicas."""
        rate = streams * self.per_stream / ready
        if rate > self.capacity:
            return ready * self.full * rate / self.capacity
        return ready * float(np.interp(rate, self.rates, self.in_flight))

    def shortfall(self, streams: int, ready: int) -> float:
        """Share of the requests that cannot be answered in time."""
        return max(0.0, 1 - ready * self.capacity / max(streams * self.per_stream, 1e-9))


def response(profile: Profile, name: str) -> Response:
    """Compute how a stateless model behaves under load."""
    share, one = stateless_share(profile, name), server(profile, name)
    transport_s = profile.table["transport_ms"] / 1000
    rates = tuple(float(rate) for rate in np.linspace(0.02, 1, 40) * share.capacity)
    instances = profile.models[name].instances
    per_stream = profile.table["workload"]["frame_rate"] * profile.requests_per_frame[name]
    return Response(
        capacity=share.capacity,
        rates=(0.0, *rates),
        in_flight=(
            0.0,
            *(one.in_server(rate / instances) * instances + rate * transport_s for rate in rates),
        ),
        full=window(profile, name) * instances,
        per_stream=per_stream,
    )
