"""An event loop whose time passes only while everybody waits, for closed loops of minutes."""

import asyncio
import selectors
import time
import types
from collections.abc import Coroutine
from typing import Any

import pytest

_TIMED = (
    "orchestrator.arrivals",
    "orchestrator.flow",
    "orchestrator.overload.control",
    "orchestrator.overload.profile",
)


class _Selector(selectors.DefaultSelector):
    """Never waits: it moves the clock to when something is due."""

    now = 1000.0

    def select(self, timeout: float | None = None):
        assert timeout is not None, "everybody waits, and for nothing"
        self.now += max(timeout, 0.0)
        return super().select(0)


async def _at_once(function, /, *args, **kwargs):
    return function(*args, **kwargs)


def run(patch: pytest.MonkeyPatch, main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in simulated time, in which threads take none."""
    selector = _Selector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    clock = types.SimpleNamespace(**{**vars(time), "monotonic": loop.time})
    for module in _TIMED:
        patch.setattr(f"{module}.time", clock)
    patch.setattr(asyncio, "to_thread", _at_once)
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()
