"""Calls under way to one server: bounded in time, ended together, and one of them heard out.

Triton tells only after a second that a model's process is dead. Callers in a hurry are gone by then
and none of them would ever know, so one call at a time may go on without its caller.
"""

import asyncio
from collections.abc import Awaitable, Callable

from orchestrator.triton.codec import Tensor
from orchestrator.triton.wire import Request

Outputs = dict[str, Tensor]


class Calls:
    """Calls under way to one server.

    Args:
        exchange: Sends a request and returns its answer.
        patience_s: How long one is heard out, in seconds.
        on_heard: Told how a call ended that was heard out: its error, or None.
    """

    def __init__(
        self,
        exchange: Callable[[Request], Awaitable[Outputs]],
        patience_s: float,
        on_heard: Callable[[BaseException | None], None],
    ) -> None:
        self._exchange = exchange
        self._patience_s = patience_s
        self._on_heard = on_heard
        self._waits: set[asyncio.Timeout] = set()
        self._heard_out: asyncio.Task[Outputs] | None = None

    async def send(self, request: Request, seconds: float, *, hear_out: bool) -> Outputs:
        """Send a request and wait for its answer.

        Args:
            request: Whose own times are not looked at.
            seconds: Longest wait.
            hear_out: Whether to learn how it ends even if the caller leaves; nothing is done for it
                while another call is heard out.

        Raises:
            TimeoutError: There was no answer in time, or `drop` was called.
            ModelError: As `exchange`.
        """
        async with asyncio.timeout(seconds) as wait:
            self._waits.add(wait)
            try:
                if not hear_out or self._heard_out is not None:
                    return await self._exchange(request)
                return await self._send_heard_out(request)
            finally:
                self._waits.discard(wait)

    def drop(self) -> None:
        """End all calls: they have no chance of an answer."""
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(now)
        self.close()

    def close(self) -> None:
        """Hear nobody out any more."""
        if self._heard_out is not None:
            self._heard_out.cancel()

    async def _send_heard_out(self, request: Request) -> Outputs:
        call = self._heard_out = asyncio.create_task(self._bounded(request))
        call.add_done_callback(self._hear)
        await asyncio.wait([call])  # a caller who leaves ends this wait, and not the call
        if call.cancelled():
            raise TimeoutError
        return call.result()

    async def _bounded(self, request: Request) -> Outputs:
        async with asyncio.timeout(self._patience_s):
            return await self._exchange(request)

    def _hear(self, call: asyncio.Task[Outputs]) -> None:
        self._heard_out = None
        if not call.cancelled():
            self._on_heard(call.exception())
