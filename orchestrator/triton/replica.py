"""One server as seen by the pool of one model: what is under way there, and how it fares."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from enum import Enum, auto

from tritonclient.grpc import InferResult
from tritonclient.utils import InferenceServerException

from orchestrator import metrics
from orchestrator.contracts import ModelContract
from orchestrator.errors import DeadlinePassedError, ModelError, ModelUnavailableError
from orchestrator.settings import TritonSettings
from orchestrator.triton.codec import LiveModel, Tensor, decode
from orchestrator.triton.connection import Connection
from orchestrator.triton.faults import (
    ReplicaDownError,
    ReplicaFailedError,
    StubDiedError,
)
from orchestrator.triton.health import Health
from orchestrator.triton.live_model import read_model
from orchestrator.triton.snapshot import ReplicaState
from orchestrator.triton.transport import SharedMemoryPool
from orchestrator.triton.wire import Request, Wire

_SUSPICIOUS_S = 0.5
"""After that long without an answer, a call is followed up even when its caller has gone."""
_SILENT_S = 0.25
"""After that long without an answer, the server is asked whether it lives."""

log = logging.getLogger(__name__)


class Verdict(Enum):
    """What a probe found."""

    READY = auto()
    NOT_READY = auto()
    SILENT = auto()
    DOWN = auto()


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
        self._contract = contract
        self._memory = memory
        self._wire = Wire(contract.name, connection, memory)
        self._settings = settings
        self._on_change = on_change
        self._rows = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._calls: set[asyncio.Timeout] = set()
        self._witness: asyncio.Task[InferResult] | None = None

    @property
    def address(self) -> str:
        """Its endpoint, `host:port`."""
        return self.connection.address

    @property
    def state(self) -> ReplicaState:
        """What it is good for."""
        if self.is_repairing:
            return ReplicaState.REPAIRING
        if self.health.is_out or self.is_gone:
            return ReplicaState.EJECTED
        return ReplicaState.DRAINING if self.is_terminating else ReplicaState.READY

    @property
    def is_usable(self) -> bool:
        """Whether it takes requests, be it as the last resort."""
        return self.state in {ReplicaState.READY, ReplicaState.DRAINING}

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
        assert self.model is not None
        left = math.inf if request.step else request.deadline - time.monotonic()
        try:
            async with self._droppable(min(request.timeout_s, left)):
                result = await self._send(request)
        except TimeoutError:
            raise self._unanswered(request, is_late=left < request.timeout_s) from None
        except ModelError as error:
            self._note(error)
            raise
        self.health.answered()
        return decode(self.model, result)

    async def join(self) -> LiveModel:
        """Find out whether the model can be used here, and what it is like.

        Raises:
            ModelUnavailableError: It is not ready, or the transport that the settings ask for does
                not work.
            TensorContractError: It differs from its contract.
        """
        name, timeout_s = self._contract.name, self._settings.probe_timeout_s
        try:
            client = self.connection.client
            if not await client.is_model_ready(name, client_timeout=timeout_s):
                raise ReplicaDownError(name, "not ready")
            model = await read_model(client, self._contract, timeout_s)
        except InferenceServerException as error:
            raise ReplicaDownError(name, error.message()) from error
        if self._settings.transport != "grpc":
            shares = await self.connection.probe_shared_memory(self._memory)
            if not shares and self._settings.transport == "shared_memory":
                raise ModelUnavailableError(
                    self.address,
                    "triton.transport is shared_memory, but this server cannot open a region of "
                    "this host; expected both in one IPC namespace with room in /dev/shm",
                )
        return model

    async def probe(self) -> Verdict:
        """Ask the server whether the model is ready."""
        try:
            is_ready = await self.connection.client.is_model_ready(
                self._contract.name, client_timeout=self._settings.probe_timeout_s
            )
        except InferenceServerException as error:
            return Verdict.SILENT if _is_late(error) else Verdict.DOWN
        return Verdict.READY if is_ready else Verdict.NOT_READY

    async def lives(self, timeout_s: float) -> bool:
        """Ask the server whether it lives; any word will do, also that it is about to end.

        It answers however busy its models are. Whether a model is ready it may have to ask the
        model's process for (Triton from 2026 on), which is no sign of life of its own.
        """
        try:
            await self.connection.client.is_server_live(client_timeout=timeout_s)
        except InferenceServerException as error:
            return not _is_late(error)
        return True

    def come_back(self, model: LiveModel) -> None:
        """Put it in use."""
        self.model = model
        self.health.come_back()
        log.info("%s at %s is ready", self._contract.name, self.address)
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
        log.warning("%s at %s is out of use: %s", self._contract.name, self.address, detail)
        metrics.MODEL_EJECTIONS.labels(self._contract.name, kind).inc()
        self.health.eject(detail, is_hopeless=is_hopeless)
        self.epoch += 1
        if drops_calls:
            self._drop_calls()
        self._changed()

    def retire(self) -> None:
        """It has left the pool; calls under way may finish."""
        self.is_gone = True
        self.epoch += 1
        if self._witness is not None:
            self._witness.cancel()
        self._changed()

    def _changed(self) -> None:
        self.shaken.set()
        self._on_change()

    async def _send(self, request: Request) -> InferResult:
        """Send a request; where nobody had an answer lately, learn how it ends whatever comes.

        Triton tells only after a second that a model's process is dead. Callers in a hurry are gone
        by then, and none of them would ever know.
        """
        is_patient = request.deadline == math.inf
        if is_patient or self._witness is not None or self.health.silent_s < _SUSPICIOUS_S:
            return await self._wire.send(request)
        self._witness = asyncio.create_task(self._witnessed(request))
        self._witness.add_done_callback(self._hear)
        return await asyncio.shield(self._witness)

    async def _witnessed(self, request: Request) -> InferResult:
        async with asyncio.timeout(request.timeout_s):
            return await self._wire.send(request)

    def _hear(self, witness: asyncio.Task[InferResult]) -> None:
        self._witness = None
        error = None if witness.cancelled() else witness.exception()
        if isinstance(error, ReplicaDownError):
            self._note(error)
        elif error is None and not witness.cancelled():
            self.health.answered()

    @contextlib.asynccontextmanager
    async def _droppable(self, seconds: float) -> AsyncIterator[None]:
        """Bound a call in time; `_drop_calls` may end it earlier."""
        async with asyncio.timeout(seconds) as call:
            self._calls.add(call)
            try:
                yield
            finally:
                self._calls.discard(call)

    def _drop_calls(self) -> None:
        now = asyncio.get_running_loop().time()
        for call in self._calls:
            if not call.expired():
                call.reschedule(now)

    def _unanswered(self, request: Request, *, is_late: bool) -> ModelError:
        """Return the error of a call that ran out of time, or was dropped."""
        name = self._contract.name
        if not self.is_usable:
            return ReplicaDownError(name, f"{self.address}: {self.health.reason}")
        detail = "no answer before the deadline" if is_late else f"none in {request.timeout_s:g} s"
        if is_late and self.health.silent_s < self._settings.infer_timeout_s:
            return DeadlinePassedError(name, detail)  # which says nothing against the replica
        if self.health.failed():
            self.eject("timeout", detail)
        return ModelUnavailableError(name, f"{self.address}: {detail}")

    def _note(self, error: ModelError) -> None:
        """Draw the consequences of an answer that is an error."""
        if isinstance(error, StubDiedError):
            self._lose_stub(str(error))
        elif isinstance(error, ReplicaDownError):
            self.eject("down", str(error))
        elif not isinstance(error, ReplicaFailedError):
            self.health.answered()
        elif self.health.failed():
            self.eject("failures", str(error))

    def _lose_stub(self, detail: str) -> None:
        """Have the model repaired; calls under way would each wait for the dead process."""
        if self.is_usable:
            repairs = self._settings.repair_attempts > 0
            self.eject("stub_died", detail, drops_calls=True, is_hopeless=not repairs)
            self.is_repairing = repairs


def _is_late(error: InferenceServerException) -> bool:
    return "DEADLINE_EXCEEDED" in (error.status() or "")
