"""Calls are heard out to their first message a few at a time: until then nothing bounds them.

What a call costs is known from its first message, which may be as large as gRPC takes; so no place
and no quota is taken while it comes in.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from orchestrator.errors import InvalidRequestError, OverloadedError

_AT_ONCE = 8
"""A config comes with its call, in a packet; an image takes a second, over a slow line."""
_MOST_WAITING = 256
_MESSAGE_S = 30.0
"""How long a caller may take to send its first message, or wait for its turn, in seconds."""

_T = TypeVar("_T")


class Hearing:
    """Hears the callers of one tenant, over all their connections to this process."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def first(self, requests: AsyncIterator[_T]) -> _T | None:
        """Return the first message of a call, None if it has none. Nothing is read before its turn.

        Raises:
            InvalidRequestError: It does not come.
            OverloadedError: Too many others are heard and wait to be.
        """
        await self._turn()
        try:
            async with asyncio.timeout(_MESSAGE_S):
                return await anext(aiter(requests), None)
        except TimeoutError as error:
            expected = f"expected the first message within {_MESSAGE_S:g} s"
            raise InvalidRequestError("request", expected) from error
        finally:
            self._turns.release()

    async def _turn(self) -> None:
        if self._waiting >= _MOST_WAITING:
            raise OverloadedError(f"{_MOST_WAITING} calls wait to send their first message")
        self._waiting += 1
        try:
            async with asyncio.timeout(_MESSAGE_S):
                await self._turns.acquire()
        except TimeoutError:
            raise OverloadedError("other calls have yet to send their first message") from None
        finally:
            self._waiting -= 1
