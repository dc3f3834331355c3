"""The one who looks after a replica: lets it join, probes it, has it repaired, brings it back."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from tritonclient.utils import InferenceServerException

from orchestrator import metrics
from orchestrator.errors import ModelError
from orchestrator.settings import TritonSettings
from orchestrator.triton.codec import LiveModel
from orchestrator.triton.connection import Connection
from orchestrator.triton.faults import ReplicaDownError
from orchestrator.triton.probe import Answer
from orchestrator.triton.repair import reload
from orchestrator.triton.replica import Replica
from orchestrator.triton.silence import hangs

_MISSED_PROBES = 2
_LOOK_S = 0.1
"""How often it is looked whether a replica has fallen silent, in seconds."""

log = logging.getLogger(__name__)


class Pool(Protocol):
    """What an attendant needs to know of the replica's pool."""

    def admit(self, replica: Replica, model: LiveModel) -> None:
        """Let a replica in whose model is `model`; TensorContractError if it does not fit."""

    def refuse(self, replica: Replica, error: ModelError) -> None:
        """Note that a replica cannot be used as it is."""

    def another(self, replica: Replica) -> Replica | None:
        """Return some other replica that could take over, if there is one."""

    def witness(self, replica: Replica) -> Connection | None:
        """Return another server to compare the replica's with, if there is one."""


class Attendant:
    """Looks after one replica for as long as `run` runs."""

    def __init__(self, name: str, replica: Replica, pool: Pool, settings: TritonSettings) -> None:
        self._name = name
        self._replica = replica
        self._pool = pool
        self._settings = settings
        self._missed = 0
        self._silent_since = 0.0

    async def run(self) -> None:
        """Look after the replica until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._turn))
            group.create_task(self._repeat(self._listen))

    async def _repeat(self, turn: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await turn()
            except asyncio.CancelledError:
                if _is_cancelled():
                    raise
                # Else a server left while it was asked: a closed channel cancels what waits on it.
            except Exception:  # a bug must not leave the replica alone for good
                log.exception("%s at %s", self._name, self._replica.address)
                await asyncio.sleep(self._settings.probe_interval_s)

    async def _listen(self) -> None:
        """Have a replica judged that answers no request."""
        await self._replica.busy.wait()
        await asyncio.sleep(_LOOK_S)
        if self._replica.is_silent and await self._hangs() and self._replica.is_silent:
            self._eject_hung()

    async def _hangs(self) -> bool:
        """Whether its server says nothing, beside another that does.

        Where no other replica could take over, a mistake costs more: it gets four times as long.
        """
        replica, timeout_s = self._replica, self._settings.probe_timeout_s
        has_successor = self._pool.another(replica) is not None
        for seconds in [timeout_s / 2] if has_successor else [timeout_s, timeout_s]:
            witness = self._pool.witness(replica)
            if witness is None or not await hangs(replica.connection, witness, seconds):
                return False
        return True

    async def _turn(self) -> None:
        if self._replica.is_repairing:
            await self._repair()
        elif self._replica.health.is_out:
            await self._bring_back()
        else:
            await self._watch()

    async def _bring_back(self) -> None:
        """Ask whether the replica is fit again, once its time out is over."""
        health = self._replica.health
        await asyncio.sleep(health.remaining_s)
        try:
            self._pool.admit(self._replica, await self._replica.probe.model())
        except ReplicaDownError as error:
            health.stay_out(str(error))
        except ModelError as error:
            if str(error) != health.reason:
                log.warning("%s at %s is refused: %s", self._name, self._replica.address, error)
            health.stay_out(str(error))
            self._pool.refuse(self._replica, error)
        self._missed = 0

    async def _watch(self) -> None:
        """Probe a replica in use, at intervals; at once after a probe without answer."""
        replica = self._replica
        replica.shaken.clear()
        if not self._missed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.probe_interval_s):
                    await replica.shaken.wait()
                return
        asked_at = time.monotonic()
        answer = await replica.probe.is_ready()
        if answer is Answer.NONE:
            await self._count_silence(asked_at)
            return
        self._missed = 0
        if answer is Answer.ERROR:
            replica.eject("down", "a probe could not reach it")
        elif answer is Answer.NO and self._pool.another(replica):
            replica.eject("not_ready", "its model is not ready")

    async def _count_silence(self, asked_at: float) -> None:
        """Eject a replica that hangs: neither probes nor requests are answered."""
        self._silent_since = self._silent_since if self._missed else asked_at
        self._missed += 1
        replica, now = self._replica, time.monotonic()
        if replica.health.answered_at > self._silent_since:
            self._missed = 0
            return
        is_long = now - self._silent_since >= self._settings.infer_timeout_s
        if self._missed >= _MISSED_PROBES and (is_long or await self._hangs()):
            self._eject_hung()

    def _eject_hung(self) -> None:
        self._replica.eject("hang", "it answers neither probes nor requests", drops_calls=True)
        self._replica.connection.renew()
        self._missed = 0

    async def _repair(self) -> None:
        """Have the model loaded anew, a few times; whether it is fit then, `_bring_back` asks."""
        replica, attempts = self._replica, self._settings.repair_attempts
        for attempt in range(attempts):
            try:
                await reload(replica.connection.client, self._name, is_first=not attempt)
            except (InferenceServerException, TimeoutError) as error:
                metrics.MODEL_REPAIRS.labels(self._name, "failed").inc()
                log.warning("%s at %s is not repaired: %s", self._name, replica.address, error)
                await asyncio.sleep(self._settings.ejection_s * 2**attempt)
            else:
                metrics.MODEL_REPAIRS.labels(self._name, "ok").inc()
                log.info("%s at %s is loaded anew", self._name, replica.address)
                replica.health.stay_out("loaded anew")
                break
        else:
            replica.health.eject("its process died, and cannot be repaired", is_hopeless=True)
        replica.is_repairing = False


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
