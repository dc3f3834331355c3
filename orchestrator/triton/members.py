"""The replicas of one model: found by its endpoints, tended one by one, counted as they change."""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

from orchestrator.contracts import ModelContract
from orchestrator.errors import ModelError, ModelUnavailableError
from orchestrator.settings import TritonSettings, TritonTlsSettings
from orchestrator.triton.attendant import Attendant
from orchestrator.triton.codec import LiveModel
from orchestrator.triton.connection import Connection, Connections
from orchestrator.triton.endpoints import Endpoint, Snapshots
from orchestrator.triton.live_model import check_replica
from orchestrator.triton.replica import Replica
from orchestrator.triton.snapshot import ReplicaState
from orchestrator.triton.transport import SharedMemoryPool

_TICK_S = 0.02

log = logging.getLogger(__name__)


class Members:
    """All replicas of a model.

    Attributes:
        contract: The model's contract.
        on_change: Called whenever a replica changed its state, came or went, and when the wait for
            one has become hopeless.
    """

    def __init__(
        self,
        contract: ModelContract,
        settings: TritonSettings,
        snapshots: Snapshots,
        connections: Connections,
        memory: SharedMemoryPool,
    ) -> None:
        self.contract = contract
        self.on_change: Callable[[], None] = lambda: None
        self._settings = settings
        self._snapshots = snapshots
        self._connections = connections
        self._memory = memory
        self._model: LiveModel | None = None
        self._replicas: dict[str, Replica] = {}
        self._attendants: dict[Replica, asyncio.Task[None]] = {}
        self._refusals: dict[Replica, ModelError] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        self._turned = asyncio.Event()
        self._lost_at: float | None = None
        self._giving_up: asyncio.TimerHandle | None = None

    @property
    def model(self) -> LiveModel | None:
        """What the latest replica said of the model, its batch that of the first; None before."""
        return self._model

    @property
    def all(self) -> tuple[Replica, ...]:
        """All replicas, in the order in which they were found."""
        return tuple(self._replicas.values())

    @property
    def usable(self) -> list[Replica]:
        """Those that take requests: the ready ones, or else those that drain."""
        usable = [replica for replica in self._replicas.values() if replica.is_usable]
        return [replica for replica in usable if not replica.is_terminating] or usable

    @property
    def patience_s(self) -> float:
        """How long it is worth waiting for a replica: 0 when all have been lost for a while."""
        if self._lost_at is None:
            return self._settings.patience_s
        return max(0.0, self._lost_at + self._settings.patience_s - time.monotonic())

    @property
    def is_hopeless(self) -> bool:
        """Whether no replica is in use, and none was lately."""
        return self._lost_at is not None and not self.patience_s

    def open(self) -> None:
        """Begin to find replicas."""
        self._following = asyncio.create_task(self._follow())
        self._following.add_done_callback(lambda _: self._turned.set())

    async def until_ready(self, seconds: float, *, is_needed: bool = True) -> None:
        """Return when a replica is ready.

        Args:
            seconds: Longest wait.
            is_needed: Whether it is an error if none is by then; else one may come later.

        Raises:
            TensorContractError: All replicas differ from the contract.
            ModelUnavailableError: None was ready in time, or can be reached in the way asked for.
            SettingError: The addresses cannot be followed.
        """
        try:
            async with asyncio.timeout(seconds):
                while not self.usable:
                    self._raise_if_hopeless()
                    self._turned.clear()
                    await self._turned.wait()
        except TimeoutError:
            reasons = [f"{r.address} ({r.health.reason})" for r in self.all] or ["no endpoint"]
            error = ModelUnavailableError(
                self.contract.name,
                f"not ready in time at {', '.join(reasons)}, asked {_way(self._settings.tls)}",
            )
            if is_needed:
                raise error from None
            log.warning("%s; results lack its part until it comes", error)

    async def close(self) -> None:
        """Leave all replicas."""
        for replica in self.all:
            replica.close()
        tasks = [*self._attendants.values(), *self._leaving]
        if self._following is not None:
            tasks.append(self._following)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._giving_up is not None:
            self._giving_up.cancel()

    async def wait_for_one(self, seconds: float) -> None:
        """Wait until a replica is usable, at most that long."""
        try:
            async with asyncio.timeout(seconds):
                while not self.usable:
                    self._turned.clear()
                    await self._turned.wait()
        except TimeoutError:
            return

    def admit(self, replica: Replica, model: LiveModel) -> None:
        """Let a replica in; see `attendant.Pool`."""
        known = self._model or model
        check_replica(known, model)
        # Weights may be rolled out anew meanwhile: what goes with them is as the last one says.
        self._model = replace(model, max_batch_size=known.max_batch_size)
        self._refusals.pop(replica, None)
        replica.come_back(model)

    def refuse(self, replica: Replica, error: ModelError) -> None:
        """Note that a replica cannot be used as it is."""
        self._refusals[replica] = error
        self._changed()

    def another(self, replica: Replica) -> Replica | None:
        """Return some other replica that could take over, if there is one."""
        ready = [r for r in self.all if r is not replica and r.state is ReplicaState.READY]
        return random.choice(ready) if ready else None

    def witness(self, replica: Replica) -> Connection | None:
        """Return another server, one that has the same model if there is one."""
        other = self.another(replica)
        return other.connection if other else self._connections.another(replica.connection)

    async def _follow(self) -> None:
        try:
            async with aclosing(self._snapshots) as snapshots:
                async for endpoints in snapshots:
                    self._reconcile(endpoints)
        except Exception:
            log.exception("the endpoints of %s are followed no more", self.contract.name)
            raise

    def _reconcile(self, endpoints: frozenset[Endpoint]) -> None:
        """Make the replicas those of a snapshot."""
        wanted = {endpoint.address: endpoint for endpoint in endpoints}
        for address in self._replicas.keys() - wanted.keys():
            self._leave(self._replicas.pop(address))
        for address in sorted(wanted.keys() - self._replicas.keys()):
            self._replicas[address] = self._join(address)
        for address, endpoint in wanted.items():
            replica = self._replicas[address]
            if endpoint.is_terminating and not replica.is_terminating:
                log.info("%s at %s is terminating", self.contract.name, address)
            replica.is_terminating = endpoint.is_terminating
        self._changed()

    def _join(self, address: str) -> Replica:
        connection = self._connections.acquire(address)
        replica = Replica(self.contract, connection, self._memory, self._settings, self._changed)
        attendant = Attendant(self.contract.name, replica, self, self._settings)
        self._attendants[replica] = asyncio.create_task(attendant.run())
        return replica

    def _leave(self, replica: Replica) -> None:
        log.info("%s at %s has left", self.contract.name, replica.address)
        replica.retire()
        self._refusals.pop(replica, None)
        task = asyncio.create_task(self._part(replica, self._attendants.pop(replica)))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _part(self, replica: Replica, attendant: "asyncio.Task[None]") -> None:
        """Close a replica's connection once its last calls are over."""
        attendant.cancel()
        await asyncio.gather(attendant, return_exceptions=True)
        try:
            await replica.settled(self._settings.infer_timeout_s)
        finally:
            replica.close()
        await self._connections.release(replica.connection)

    def _changed(self) -> None:
        if self.usable:
            self._lost_at = None
        elif self._lost_at is None:
            self._lost_at = time.monotonic()
            self._giving_up = asyncio.get_running_loop().call_later(
                self._settings.patience_s + _TICK_S, lambda: self.on_change()
            )
        self._turned.set()
        self.on_change()

    def _raise_if_hopeless(self) -> None:
        """Before there was one: fail at once where waiting cannot help."""
        if self._following is not None and self._following.done():
            self._following.result()
        if self._refusals and len(self._refusals) == len(self._replicas):
            raise next(iter(self._refusals.values()))


def _way(tls: TritonTlsSettings) -> str:
    """Say how servers are asked: one that wants it otherwise closes the connection, and no more."""
    if tls.ca is None and tls.cert is None:
        return "without TLS"
    return f"by TLS {'with' if tls.cert else 'without'} a client certificate"
