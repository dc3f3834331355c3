"""How a server ends: streams are warned, go on for a while, and are then told to move.

SIGTERM ─▶ warned, refused if new ─▶ nothing more is read; what was received is answered ─▶ end
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from orchestrator.errors import DrainingError

_READING_SHARE = 0.8
"""Share of the time in which frames are still read; the rest is for answering them."""

_T = TypeVar("_T")


class Drain:
    """The end of one server; has not begun until `begin`."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()
        self._closes_at = 0.0
        self._is_closed = False
        self._reads: set[asyncio.Timeout] = set()
        self._holds = 0
        self._free = asyncio.Event()
        self._free.set()

    def begin(self, drain_s: float) -> None:
        """Begin; all streams have ended `drain_s` seconds from now."""
        reading_s = _READING_SHARE * drain_s
        self._closes_at = time.monotonic() + reading_s
        asyncio.get_running_loop().call_later(reading_s, self._close)
        self._begun.set()

    @property
    def has_begun(self) -> bool:
        """Whether new streams must go elsewhere."""
        return self._begun.is_set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Have the server wait with its end for as long as the context is open."""
        self._holds += 1
        self._free.clear()
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                self._free.set()

    async def until_free(self) -> None:
        """Wait until nothing holds the server."""
        await self._free.wait()

    async def warning(self) -> float:
        """Wait until the end begins; return for how long frames will still be read, in seconds."""
        await self._begun.wait()
        return max(0.0, self._closes_at - time.monotonic())

    async def next(self, requests: AsyncIterator[_T]) -> _T | None:
        """Return the next request of a stream; None after the last.

        Raises:
            DrainingError: The stream must move; what it received so far is still answered.
        """
        if self._is_closed:
            raise DrainingError
        read = asyncio.timeout(None)
        self._reads.add(read)
        try:
            async with read:
                return await anext(requests, None)
        except TimeoutError:
            if not read.expired():
                raise
            raise DrainingError from None
        finally:
            self._reads.remove(read)

    def _close(self) -> None:
        self._is_closed = True
        for read in self._reads:
            read.reschedule(asyncio.get_running_loop().time())
