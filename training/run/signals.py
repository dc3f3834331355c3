"""Stopping between two steps and not within one."""

import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether SIGINT or SIGTERM has arrived."""

    def __init__(self) -> None:
        self.is_wanted = False


@contextmanager
def deferred() -> Iterator[Interruption]:
    """Note the first signal instead of dying of it; a second one acts as it always did."""
    interruption = Interruption()
    before = _handlers()

    def note(_number: int, _frame: FrameType | None) -> None:
        interruption.is_wanted = True
        _restore(before)

    with _handled_by(note):
        yield interruption


@contextmanager
def handed_on(process: subprocess.Popen[str]) -> Iterator[None]:
    """Pass every signal on to a child, which saves its state, instead of dying before it has.

    The child must be in a process group of its own, or a terminal would signal it a second time.
    """
    with _handled_by(lambda number, _frame: process.send_signal(number)):
        yield


def ignore_in_worker(_worker: int) -> None:
    """Leave signals to the training process, which shuts its workers down itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = _handlers()
    for one in _SIGNALS:
        signal.signal(one, handler)
    try:
        yield
    finally:
        _restore(before)


def _handlers() -> dict[signal.Signals, Any]:
    return {one: signal.getsignal(one) for one in _SIGNALS}


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for one, handler in handlers.items():
        signal.signal(one, handler)
