"""What the pools tell of themselves: one consistent picture, for admission, metrics and people."""

from dataclasses import dataclass
from enum import Enum, auto


class ReplicaState(Enum):
    """What a replica is good for at the moment."""

    READY = auto()
    """Takes requests."""
    EJECTED = auto()
    """Out of use, not answering as it should or not yet; probed until it does."""
    REPAIRING = auto()
    """Out of use while its model is loaded anew."""
    DRAINING = auto()
    """About to end: finishes what it holds, and serves as the last resort."""


@dataclass(frozen=True, slots=True)
class ReplicaSnapshot:
    """One replica of a model.

    Attributes:
        endpoint: Its address, `host:port`.
        in_flight: Requests sent to it and not answered.
        slots_used: Sequences of this process that live there.
        slots: Most sequences that it holds, of all processes; 0 for stateless models.
    """

    endpoint: str
    state: ReplicaState
    in_flight: int
    slots_used: int = 0
    slots: int = 0


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """All replicas of a model.

    Attributes:
        name: The model.
        in_flight: Requests sent to replicas and not answered.
        queued: Requests that wait for a place at a replica.
        rows_per_s: Rows answered per second, over the last ten seconds.
        capacity_rows_per_s: What the ready replicas can do together, measured while at least one of
            them was saturated; None until then.
        is_available: Whether some replica can be used.
        replicas: In the order in which they were found.
    """

    name: str
    in_flight: int
    queued: int
    rows_per_s: float
    capacity_rows_per_s: float | None
    is_available: bool
    replicas: tuple[ReplicaSnapshot, ...]

    @property
    def slots(self) -> int:
        """Sequences that the ready replicas can hold, of all processes."""
        return sum(r.slots for r in self.replicas if r.state is ReplicaState.READY)

    @property
    def slots_used(self) -> int:
        """Sequences of this process that live on ready replicas."""
        return sum(r.slots_used for r in self.replicas if r.state is ReplicaState.READY)
