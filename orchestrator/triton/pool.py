"""The replicas of a stateless model, any of which may answer any request."""

import random
from typing import Protocol

from orchestrator.errors import ModelUnavailableError
from orchestrator.settings import TritonSettings
from orchestrator.triton.codec import Tensor
from orchestrator.triton.faults import ReplicaDownError
from orchestrator.triton.lane import Lane, Traffic
from orchestrator.triton.members import Members
from orchestrator.triton.replica import Replica
from orchestrator.triton.snapshot import PoolSnapshot, ReplicaSnapshot, ReplicaState
from orchestrator.triton.wire import Request


class Pool(Protocol):
    """The replicas of one model."""

    @property
    def members(self) -> Members:
        """The replicas and what tends them."""

    async def infer(self, request: Request) -> dict[str, Tensor]:
        """Have a request answered; see the implementations."""

    def snapshot(self) -> PoolSnapshot:
        """Return the present state."""

    async def close(self) -> None:
        """Leave the replicas in good order."""


class StatelessPool:
    """Sends each request to the less loaded of two replicas drawn at random.

    Two choices keep the load within a constant of even, and unlike "the least loaded of all" they
    do not send everybody to a replica that has just joined (Mitzenmacher, 2001).
    """

    def __init__(self, members: Members, settings: TritonSettings) -> None:
        name = members.contract.name
        self.members = members
        self._traffic = Traffic(name)
        self._lane = Lane(
            name,
            self._pick,
            settings.max_queued,
            self._traffic,
            self._count_usable,
            pick_other=self._pick,
        )
        members.on_change = self._on_change

    async def infer(self, request: Request) -> dict[str, Tensor]:
        """Have a request answered, by a second replica where the first goes down with it.

        Raises:
            ModelUnavailableError: No replica lives, or none answered in time.
            ModelOverloadedError: It could not be sent in time, or the queue is full.
            ModelError: As the server says.
        """
        try:
            return await self._ask(request)
        except ReplicaDownError:  # that one is out of use now, so it is not picked again
            return await self._ask(request)

    def snapshot(self) -> PoolSnapshot:
        """Return the present state."""
        replicas = tuple(
            ReplicaSnapshot(replica.address, replica.state, replica.in_flight)
            for replica in self.members.all
        )
        return pool_snapshot(
            self.members.contract.name,
            self._traffic,
            self._lane.queued,
            self._lane.replica_rows_per_s,
            replicas,
        )

    async def close(self) -> None:
        """Leave the replicas."""
        await self.members.close()

    async def _ask(self, request: Request) -> dict[str, Tensor]:
        if self.members.is_hopeless:
            raise self._nobody()
        return await self._lane.ask(request)

    def _pick(self, rows: int, unlike: Replica | None = None) -> Replica | None:
        """Reserve room at a replica; `unlike` names one that is not wanted."""
        roomy = [r for r in self.members.usable if r is not unlike and r.has_room(rows)]
        if not roomy:
            return None
        roomy = [replica for replica in roomy if not replica.is_suspect] or roomy
        drawn = random.sample(roomy, 2) if len(roomy) > 1 else roomy
        chosen = min(drawn, key=lambda replica: replica.load)
        chosen.reserve(rows)
        return chosen

    def _count_usable(self) -> int:
        return len(self.members.usable)

    def _on_change(self) -> None:
        if self.members.is_hopeless:
            self._lane.refuse(self._nobody())
        else:
            self._lane.pump()

    def _nobody(self) -> ModelUnavailableError:
        return nobody(self.members)


def nobody(members: Members) -> ModelUnavailableError:
    """Return the error of a request that no replica is there for."""
    reasons = "; ".join(f"{r.address}: {r.health.reason}" for r in members.all)
    return ModelUnavailableError(members.contract.name, f"no replica ({reasons or 'no endpoint'})")


def pool_snapshot(
    name: str,
    traffic: Traffic,
    queued: int,
    each: float | None,
    replicas: tuple[ReplicaSnapshot, ...],
) -> PoolSnapshot:
    """Put a pool's figures together; `each` is what one replica can do, in rows per second."""
    states = [replica.state for replica in replicas]
    return PoolSnapshot(
        name=name,
        in_flight=sum(replica.in_flight for replica in replicas),
        queued=queued,
        rows_per_s=traffic.rate.per_s(),
        capacity_rows_per_s=None if each is None else each * states.count(ReplicaState.READY),
        is_available=ReplicaState.READY in states or ReplicaState.DRAINING in states,
        replicas=replicas,
    )
