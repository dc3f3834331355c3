"""The way of a request, measured: a turn in the queue, a place at a replica, the answer."""

import asyncio
import math
import time
from collections.abc import Callable

from orchestrator import metrics
from orchestrator.errors import ModelError
from orchestrator.triton.codec import Tensor
from orchestrator.triton.dispatch import Dispatcher
from orchestrator.triton.faults import FAILURES, outcome
from orchestrator.triton.meter import Capacity, Latency, Rate
from orchestrator.triton.replica import Replica
from orchestrator.triton.wire import Request

_HEDGE_S, _HEDGE_TIMES = 0.25, 5.0
"""A replica without an answer for that long, and that many times what answers take, is silent."""

PickOther = Callable[[int, Replica], Replica | None]


class Traffic:
    """What goes on between this process and all replicas of one model."""

    def __init__(self, model: str) -> None:
        self.service = Latency()
        self.rate = Rate()
        self._model = model
        self._queue_seconds = metrics.MODEL_QUEUE_SECONDS.labels(model)
        self._service_seconds = metrics.MODEL_SERVICE_SECONDS.labels(model)

    def waited(self, seconds: float) -> None:
        """A request got its place."""
        self._queue_seconds.observe(seconds)

    def served(self, seconds: float, rows: int) -> None:
        """A request was answered with a result."""
        self.service.add(seconds)
        self.rate.add(rows)
        self._service_seconds.observe(seconds)

    def ended(self, error: BaseException | None) -> None:
        """A request ended, one way or the other."""
        word = "ok" if error is None else outcome(error)
        metrics.MODEL_REQUESTS.labels(self._model, word).inc()


class Lane:
    """A queue and the replicas behind it.

    Args:
        model: Name of the model.
        pick: Reserves room for a number of rows and returns the replica, or None.
        max_queued: Most requests that wait.
        traffic: Where it is measured.
        replicas: Returns how many replicas share the work.
        pick_other: Like `pick`, for a second replica beside a given one; None where a request has
            but one that it can go to.
    """

    def __init__(
        self,
        model: str,
        pick: Callable[[int], Replica | None],
        max_queued: int,
        traffic: Traffic,
        replicas: Callable[[], int],
        pick_other: PickOther | None = None,
    ) -> None:
        self._dispatcher = Dispatcher(model, pick, max_queued)
        self._pick_other = pick_other
        self._traffic = traffic
        self._replicas = replicas
        self._capacity = Capacity()

    @property
    def replica_rows_per_s(self) -> float | None:
        """What one replica behind this queue can do; None until it was kept busy for a while."""
        return self._capacity.rows_per_s()

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return self._dispatcher.queued

    async def ask(self, request: Request) -> dict[str, Tensor]:
        """Have a request answered by the replica whose turn it gets.

        Raises:
            ModelOverloadedError: It never reached a replica.
            ModelError: As `Replica.infer`.
        """
        try:
            outputs = await self._ask(request)
        except (ModelError, asyncio.CancelledError) as error:
            self._traffic.ended(error)
            raise
        self._traffic.ended(None)
        return outputs

    def pump(self) -> None:
        """Let requests go as far as there is room."""
        self._dispatcher.pump()

    def refuse(self, error: ModelError) -> None:
        """Turn away everybody who waits."""
        self._dispatcher.refuse(error)

    async def _ask(self, request: Request) -> dict[str, Tensor]:
        rows, asked_at = request.rows, time.monotonic()
        replica = await self._dispatcher.turn(
            rows,
            request.caller,
            deadline=request.deadline,
            service_s=self._traffic.service.mean_s,
        )
        sent_at = time.monotonic()
        self._traffic.waited(sent_at - asked_at)
        try:
            outputs = await self._answer(replica, request)
        finally:
            replicas = self._replicas()
            is_saturated = replicas > 0 and self.queued > 0
            self._capacity.add(rows / max(1, replicas), is_saturated=is_saturated)
        self._traffic.served(time.monotonic() - sent_at, rows)
        return outputs

    async def _answer(self, replica: Replica, request: Request) -> dict[str, Tensor]:
        """Have a request answered by a replica that room was reserved at.

        If it fails, another one that has room may do better.
        """
        try:
            return await self._answer_soon(replica, request)
        except FAILURES:
            other = self._pick_other and self._pick_other(request.rows, replica)
            if not other:
                raise
            return await self._asked(other, request)

    async def _answer_soon(self, replica: Replica, request: Request) -> dict[str, Tensor]:
        """Have a request answered, if need be by two replicas at once.

        A request in a hurry does not wait for a replica that fell silent: if another one has room,
        it is asked as well, and the first answer counts.
        """
        if self._pick_other is None or request.deadline == math.inf or self._replicas() < 2:
            return await self._asked(replica, request)
        asking = {asyncio.create_task(self._asked(replica, request))}
        try:
            patience_s = max(_HEDGE_S, _HEDGE_TIMES * self._traffic.service.mean_s)
            await asyncio.wait(asking, timeout=patience_s)
            if replica.health.silent_s >= patience_s:
                other = self._pick_other(request.rows, replica)
                if other is not None:
                    asking.add(asyncio.create_task(self._asked(other, request)))
            return await _first_answer(asking)
        finally:
            for task in asking:
                task.cancel()

    async def _asked(self, replica: Replica, request: Request) -> dict[str, Tensor]:
        """Ask a replica; then, and however it ends, its room goes to whoever waits."""
        try:
            return await replica.infer(request)
        finally:
            replica.release(request.rows)
            self.pump()


async def _first_answer(asking: set[asyncio.Task[dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Return the first answer; raise the last error if there is none."""
    while True:
        done, asking = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        answers = [task for task in done if not task.exception()]
        if answers or not asking:
            return (answers or list(done))[0].result()
