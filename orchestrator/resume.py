"""Streams that can be resumed by token: those being served, and those that broke off of late.

A stream has one token for life, bound to its owner. Whoever shows it last has the stream: an older
call still at it mostly hangs on a connection that is dead without knowing, and is ended first.
"""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from orchestrator.errors import SupersededError

MAX_TOKEN_CHARACTERS = 128

_SECRET_BYTES = 24
_TAKE_OVER_S = 15.0
"""A call that cannot be ended within this time keeps its stream; its successor starts afresh."""
_TICK_S = 0.02
"""Timers of the event loop may come early by so much."""


class Resumable(Protocol):
    """What a stream must tell to be kept."""

    @property
    def token(self) -> str:
        """Its resume token."""
        ...

    @property
    def owner(self) -> str:
        """Who alone may resume it."""
        ...

    @property
    def size_bytes(self) -> int:
        """Memory that it holds, roughly."""
        ...


StreamT = TypeVar("StreamT", bound=Resumable)


def new_token(worker: int) -> str:
    """Return an unguessable token that names the worker process holding the stream."""
    return f"{worker}.{secrets.token_urlsafe(_SECRET_BYTES)}"


def worker_of(token: str) -> int | None:
    """Return the number of the worker process that a token names; None if it is no token."""
    number, separator, _ = token[:MAX_TOKEN_CHARACTERS].partition(".")
    return int(number) if separator and number.isascii() and number.isdigit() else None


@dataclass(frozen=True, slots=True)
class _Kept(Generic[StreamT]):
    stream: StreamT
    size_bytes: int
    until: float


class KeptStreams(Generic[StreamT]):
    """Streams that broke off: few, small in sum, and for a limited time. The oldest go first.

    Args:
        keep_s: How long each is kept, in seconds; 0 keeps none.
        max_streams: Most streams kept.
        max_bytes: Most memory of all together; a larger stream is not kept.
        clock: Returns monotonic seconds.
    """

    def __init__(
        self,
        *,
        keep_s: float,
        max_streams: int,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keep_s = keep_s
        self._max_streams, self._max_bytes = max_streams, max_bytes
        self._clock = clock
        self._kept: OrderedDict[str, _Kept[StreamT]] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, stream: StreamT) -> None:
        """Keep a stream for its time, at the cost of older ones."""
        self.drop_expired()
        self._drop(stream.token)
        size = stream.size_bytes
        if self.keep_s <= 0 or size > self._max_bytes:
            return
        while len(self) >= self._max_streams or self.size_bytes + size > self._max_bytes:
            self._drop(next(iter(self._kept)))
        self._kept[stream.token] = _Kept(stream, size, self._clock() + self.keep_s)
        self.size_bytes += size

    def find(self, token: str, owner: str) -> StreamT | None:
        """Return the stream of a token, which stays kept; None to anybody but its owner."""
        self.drop_expired()
        kept = self._kept.get(token)
        return kept.stream if kept is not None and kept.stream.owner == owner else None

    def take(self, token: str, owner: str) -> StreamT | None:
        """Return the stream of a token, once, to its owner."""
        stream = self.find(token, owner)
        if stream is not None:
            self._drop(token)
        return stream

    def drop_expired(self) -> None:
        """Free the streams whose time is over."""
        now = self._clock()
        while self._kept:
            token, oldest = next(iter(self._kept.items()))
            if oldest.until > now:
                return
            self._drop(token)

    def _drop(self, token: str) -> None:
        dropped = self._kept.pop(token, None)
        if dropped is not None:
            self.size_bytes -= dropped.size_bytes


@dataclass(eq=False, slots=True)
class _Call(Generic[StreamT]):
    """One call at a stream."""

    stream: StreamT
    task: asyncio.Task[Any]
    is_superseded: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def supersede(self) -> None:
        """Have the call ended soon."""
        if not self.is_superseded:
            self.is_superseded = True
            self.task.cancel()


class StreamRegistry(Generic[StreamT]):
    """All streams of a process by token."""

    def __init__(self, kept: KeptStreams[StreamT]) -> None:
        self._kept = kept
        self._calls: dict[str, _Call[StreamT]] = {}

    @contextmanager
    def served(self, stream: StreamT) -> Iterator[None]:
        """Have a stream for as long as the context is open.

        When a successor wants it, the block is cancelled; it must then `keep` the stream.

        Args:
            stream: A new stream, or one that was taken.

        Raises:
            SupersededError: A successor has it now.
        """
        task = asyncio.current_task()
        assert task is not None
        call = self._calls[stream.token] = _Call(stream, task)
        try:
            yield
        except asyncio.CancelledError:
            if not call.is_superseded:
                raise
            task.uncancel()
            raise SupersededError from None
        finally:
            del self._calls[stream.token]
            call.ended.set()

    def keep(self, stream: StreamT) -> None:
        """Keep a stream that broke off."""
        self._kept.keep(stream)
        # Memory is freed on time, too, when nobody asks any more.
        due_s = self._kept.keep_s + _TICK_S
        asyncio.get_running_loop().call_later(due_s, self._kept.drop_expired)

    def find(self, token: str, owner: str) -> StreamT | None:
        """Return the stream of a token, served or kept; None to anybody but its owner."""
        call = self._calls.get(token)
        if call is not None:
            return call.stream if call.stream.owner == owner else None
        return self._kept.find(token, owner)

    async def take(self, token: str, owner: str) -> StreamT | None:
        """Return the stream of a token, once, to its owner; a call that serves it is ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_TAKE_OVER_S):
                while (call := self._calls.get(token)) is not None and call.stream.owner == owner:
                    call.supersede()
                    await call.ended.wait()
        return self._kept.take(token, owner)
