"""One server as seen by the pool of one model: what is under way there, and how it fares."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable

from orchestrator import metrics
from orchestrator.contracts import ModelContract
from orchestrator.errors import DeadlinePassedError, ModelError, ModelUnavailableError
from orchestrator.settings import TritonSettings
from orchestrator.triton.calls import Calls
from orchestrator.triton.codec import LiveModel, Tensor, decode
from orchestrator.triton.connection import Connection
from orchestrator.triton.faults import FAILURES, ReplicaDownError, StubDiedError
from orchestrator.triton.health import Health
from orchestrator.triton.probe import Probe
from orchestrator.triton.snapshot import ReplicaState
from orchestrator.triton.transport import SharedMemoryPool
from orchestrator.triton.wire import Request, Wire

_SUSPICIOUS_S = 0.5
"""After that long without an answer, a call is heard out even when its caller has gone."""
_SILENT_S = 0.25
"""After that long without an answer, the server is asked whether it lives."""

log = logging.getLogger(__name__)


class Replica:
    """A server's copy of one model.

    Attributes:
        health: Its record of failures.
        model: What it said of the model when it last joined; None before.
        in_flight: Requests sent and not answered.
        epoch: Rises whenever it is taken out of use: sequences of an earlier epoch are lost.
        is_terminating: Whether it is announced to end soon.
        is_repairing: Whether its model must be, or is being, loaded anew.
        is_gone: Whether it has left the pool for good.
        shaken: Set when its state changes, for whoever tends it.
        busy: Set while something is in flight.
        probe: Asks its server about the model.
    """

    def __init__(
        self,
        contract: ModelContract,
        connection: Connection,
        memory: SharedMemoryPool,
        settings: TritonSettings,
        on_change: Callable[[], None],
    ) -> None:
        self.health = Health(settings)
        self.model: LiveModel | None = None
        self.in_flight = 0
        self.epoch = 0
        self.is_terminating = False
        self.is_repairing = False
        self.is_gone = False
        self.shaken = asyncio.Event()
        self.busy = asyncio.Event()
        self.connection = connection
        self.probe = Probe(contract, connection, memory, settings)
        self._name = contract.name
        self._settings = settings
        self._on_change = on_change
        self._rows = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._wire = Wire(contract.name, connection, memory)
        self._calls = Calls(self._exchange, settings.infer_timeout_s, self._heard)

    @property
    def address(self) -> str:
        """Its endpoint, `host:port`."""
        return self.connection.address

    @property
    def state(self) -> ReplicaState:
        """What it is good for."""
        if self.is_repairing:
            return ReplicaState.REPAIRING
        if not self.is_usable:
            return ReplicaState.EJECTED
        return ReplicaState.DRAINING if self.is_terminating else ReplicaState.READY

    @property
    def is_usable(self) -> bool:
        """Whether it takes requests, be it as the last resort."""
        return not (self.is_repairing or self.is_gone or self.health.is_out)

    @property
    def is_suspect(self) -> bool:
        """Whether it may be dead: no answer lately, and one is awaited that will tell."""
        return self.in_flight > 0 and self.health.silent_s > _SUSPICIOUS_S

    @property
    def is_silent(self) -> bool:
        """Whether it may hang: requests wait there, and none was answered for a while."""
        return self.is_usable and self.in_flight > 0 and self.health.silent_s >= _SILENT_S

    @property
    def load(self) -> float:
        """Rows in flight as a share of what is sent at most."""
        return self._rows / self._most_rows

    @property
    def slots(self) -> int:
        """Most sequences of all processes, as its model says; 0 if it says nothing."""
        return int(self.model.parameters.get("slots", 0)) if self.model else 0

    @property
    def _most_rows(self) -> int:
        assert self.model is not None
        batch = max(1, self.model.max_batch_size)
        return batch * self.model.instances * self._settings.batches_in_flight

    def has_room(self, rows: int) -> bool:
        """Whether that many rows may be sent now."""
        return self.is_usable and self._rows + rows <= self._most_rows

    def reserve(self, rows: int) -> None:
        """Take room for a request; see `release`."""
        self._rows += rows
        self.in_flight += 1
        self._idle.clear()
        self.busy.set()

    def release(self, rows: int) -> None:
        """Give back the room of a request that was answered, or never sent."""
        self._rows -= rows
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()
            self.busy.clear()

    async def settled(self, seconds: float) -> None:
        """Wait until nothing is in flight, at most that long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()

    async def infer(self, request: Request) -> dict[str, Tensor]:
        """Run the model on one batch.

        A sequence's step is not cut off by its deadline: the tracker's state would be lost.

        Raises:
            ReplicaDownError: This replica could not answer; it is out of use from here on.
            DeadlinePassedError: The deadline came before the answer.
            ModelUnavailableError: No answer in time.
            TensorContractError: The answer breaks the contract.
            ModelError: As the server says.
        """
        left = math.inf if request.step else request.deadline - time.monotonic()
        is_hurried = request.deadline < math.inf
        hear_out = is_hurried and self.health.silent_s >= _SUSPICIOUS_S
        try:
            seconds = min(request.timeout_s, left)
            outputs = await self._calls.send(request, seconds, hear_out=hear_out)
        except TimeoutError:
            raise self._unanswered(request, is_late=left < request.timeout_s) from None
        except ModelError as error:
            self._note(error)
            raise
        self.health.answered()
        return outputs

    def come_back(self, model: LiveModel) -> None:
        """Put it in use."""
        self.model = model
        self.health.come_back()
        log.info("%s at %s is ready", self._name, self.address)
        self._changed()

    def eject(
        self, kind: str, detail: str, *, drops_calls: bool = False, is_hopeless: bool = False
    ) -> None:
        """Take it out of use.

        Args:
            kind: The metrics' word for why.
            detail: Why, for people.
            drops_calls: Whether calls under way have no chance of an answer.
            is_hopeless: Whether only others can mend it.
        """
        if not self.is_usable:
            return
        log.warning("%s at %s is out of use: %s", self._name, self.address, detail)
        metrics.MODEL_EJECTIONS.labels(self._name, kind).inc()
        self.health.eject(detail, is_hopeless=is_hopeless)
        self.epoch += 1
        if drops_calls:
            self._calls.drop()
        self._changed()

    def retire(self) -> None:
        """It has left the pool; calls under way may finish."""
        self.is_gone = True
        self.epoch += 1
        self._changed()

    def close(self) -> None:
        """Nobody waits for an answer any more."""
        self._calls.close()

    async def _exchange(self, request: Request) -> dict[str, Tensor]:
        result = await self._wire.send(request)
        assert self.model is not None
        return decode(self.model, result, request.rows)

    def _changed(self) -> None:
        self.shaken.set()
        self._on_change()

    def _heard(self, error: BaseException | None) -> None:
        """Take note of how a call ended that was heard out, whether or not its caller waited."""
        if error is None:
            self.health.answered()
        elif isinstance(error, ReplicaDownError):
            self._note(error)
        elif isinstance(error, TimeoutError):
            seconds = self._settings.infer_timeout_s
            if self.health.silent_s >= seconds:
                self.eject("timeout", f"it answered nobody for {seconds:g} s")

    def _unanswered(self, request: Request, *, is_late: bool) -> ModelError:
        """Return the error of a call that ran out of time, or was dropped."""
        if not self.is_usable:
            return ReplicaDownError(self._name, f"{self.address}: {self.health.reason}")
        if is_late:  # which says nothing against the replica
            return DeadlinePassedError(self._name, "no answer before the deadline")
        detail = f"none in {request.timeout_s:g} s"
        if self.health.failed():
            self.eject("timeout", detail)
        return ModelUnavailableError(self._name, f"{self.address}: {detail}")

    def _note(self, error: ModelError) -> None:
        """Draw the consequences of a call that ended with an error."""
        if isinstance(error, StubDiedError):
            self._lose_stub(str(error))
        elif isinstance(error, ReplicaDownError):
            self.eject("down", str(error))
        elif not isinstance(error, (*FAILURES, ModelUnavailableError)):
            self.health.answered()  # a refusal is an answer
        elif self.health.failed():
            self.eject("failures", str(error))

    def _lose_stub(self, detail: str) -> None:
        """Have the model repaired; calls under way would each wait for the dead process."""
        if self.is_usable:
            repairs = self._settings.repair_attempts > 0
            self.eject("stub_died", detail, drops_calls=True, is_hopeless=not repairs)
            self.is_repairing = repairs
