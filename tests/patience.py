"""Waiting for what comes true in its own time."""

import asyncio
from collections.abc import Callable


async def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until a condition holds; the bound, in seconds, is for a machine that is very busy.

    Raises:
        TimeoutError: It does not hold yet.
    """
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
