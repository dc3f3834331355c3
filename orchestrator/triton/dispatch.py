"""The queue in front of a model's replicas: bounded, fair, and never past a deadline.

Triton forms batches of whatever has arrived, in the order of arrival. So no more is sent than fills
the batches about to run; the rest waits here, where it can still be ordered, and dropped unseen.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from orchestrator.errors import DeadlinePassedError, ModelError, ModelOverloadedError
from orchestrator.triton.fair import FairQueue, Item, Path
from orchestrator.types.streams import Caller

_LIVE, _STORED = ("live", 15.0), ("stored", 1.0)
"""Live requests go before stored ones, but for a trickle that keeps these from starving."""


class Place(Protocol):
    """Room for a request at some replica."""

    def release(self, rows: int) -> None:
        """Give the room back."""


P = TypeVar("P", bound=Place)


class Dispatcher(Generic[P]):
    """Gives out places in turn: tenants by weight, their streams evenly, then by deadline.

    Args:
        model: Name for error texts.
        pick: Reserves room for a number of rows and returns the place; None if there is none. It is
            asked again whenever `pump` is called.
        max_queued: Most requests that wait. No stream may hold more of them than are free, so that
            a greedy one never shuts the others out.
    """

    def __init__(self, model: str, pick: Callable[[int], P | None], max_queued: int) -> None:
        self._model = model
        self._pick = pick
        self._max_queued = max_queued
        self._queue: FairQueue[asyncio.Future[P]] = FairQueue()
        self._held: Counter[Path] = Counter()

    @property
    def queued(self) -> int:
        """Requests that wait now."""
        return len(self._queue)

    async def turn(
        self, rows: int, caller: Caller, *, deadline: float = math.inf, service_s: float = 0.0
    ) -> P:
        """Wait for a place; the receiver releases it and calls `pump`.

        Args:
            rows: Rows of the request.
            caller: On whose behalf.
            deadline: When its answer is worth nothing any more, by `time.monotonic`.
            service_s: How long the answer will take from here; who waits leaves that much before
                the deadline.

        Raises:
            DeadlinePassedError: It could not be answered in time.
            ModelOverloadedError: The queue is full.
            ModelError: As told to `refuse` meanwhile.
        """
        if deadline <= time.monotonic():
            raise DeadlinePassedError(self._model, "the deadline had passed before the request")
        if not self._queue:
            place = self._pick(rows)
            if place is not None:
                return place
        return await self._wait(rows, _path(caller, deadline), deadline, service_s)

    def pump(self) -> None:
        """Let requests go as far as there is room; called whenever some became free."""
        while self._queue:
            head = self._queue.peek()
            place = self._pick(int(head.cost))
            if place is None:
                return
            self._queue.pop()
            self._left(head)
            head.value.set_result(place)

    def refuse(self, error: ModelError) -> None:
        """Turn away everybody who waits."""
        while self._queue:
            head = self._queue.pop()
            self._left(head)
            head.value.set_exception(error)

    async def _wait(self, rows: int, path: Path, deadline: float, service_s: float) -> P:
        if self._held[path] >= self._max_queued - len(self._queue):
            raise ModelOverloadedError(
                self._model, f"{self._held[path]} requests of this stream wait already"
            )
        turn: asyncio.Future[P] = asyncio.get_running_loop().create_future()
        item = self._queue.push(turn, path, cost=rows, rank=deadline)
        self._held[path] += 1
        patience = None if math.isinf(deadline) else deadline - service_s - time.monotonic()
        try:
            async with asyncio.timeout(patience):
                return await asyncio.shield(turn)  # only `_withdraw` may end it
        except BaseException as reason:
            self._withdraw(item)
            if isinstance(reason, TimeoutError):
                raise DeadlinePassedError(
                    self._model, "no replica had room before the deadline"
                ) from None
            raise

    def _withdraw(self, item: Item[asyncio.Future[P]]) -> None:
        """Undo a wait that ends early, even one whose turn has come in the same instant."""
        turn = item.value
        if not turn.done():
            turn.cancel()
            self._queue.remove(item)
            self._left(item)
        elif turn.exception() is None:
            turn.result().release(int(item.cost))
        self.pump()  # whoever stood behind may fit

    def _left(self, item: Item[asyncio.Future[P]]) -> None:
        self._held[item.path] -= 1
        if not self._held[item.path]:
            del self._held[item.path]


def _path(caller: Caller, deadline: float) -> Path:
    kind = _STORED if math.isinf(deadline) else _LIVE
    return (kind, (caller.tenant, caller.weight), (caller.stream, 1.0))
