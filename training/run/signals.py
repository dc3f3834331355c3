"""Stopping between two steps and not within one."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Whether SIGINT or SIGTERM has arrived."""

    def __init__(self) -> None:
        self.is_wanted = False


@contextmanager
def deferred() -> Iterator[Interruption]:
    """Note the first signal instead of dying of it; a second one acts as it always did."""
    interruption = Interruption()
    before = {one: signal.getsignal(one) for one in _SIGNALS}

    def restore() -> None:
        for one, handler in before.items():
            signal.signal(one, handler)

    def note(_number: int, _frame: FrameType | None) -> None:
        interruption.is_wanted = True
        restore()

    for one in _SIGNALS:
        signal.signal(one, note)
    try:
        yield interruption
    finally:
        restore()


@contextmanager
def handed_on(process: subprocess.Popen[str]) -> Iterator[None]:
    """Pass every signal on to a child, which saves its state, instead of dying before it has.

    The child must be in a process group of its own, or a terminal would signal it a second time.
    """
    before = {one: signal.getsignal(one) for one in _SIGNALS}
    for one in _SIGNALS:
        signal.signal(one, lambda number, _frame: process.send_signal(number))
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def ignore_in_worker(_worker: int) -> None:
    """Leave signals to the training process, which shuts its workers down itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
