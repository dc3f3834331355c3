"""SIGTERM, treated as Ctrl-C is: what a command has begun is cleaned up before it ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM interrupt the block as SIGINT does; commands may handle it otherwise within.

    Signals are the main thread's: in another one nothing changes.

    Raises:
        Terminated: It came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    is_terminated = False

    def interrupt(_number: int, frame: FrameType | None) -> None:
        nonlocal is_terminated
        is_terminated = True
        handler = signal.getsignal(signal.SIGINT)  # asyncio's own cancels the main task
        if not callable(handler):  # ignored, as in the background of a script
            handler = signal.default_int_handler
        handler(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        if is_terminated:
            raise Terminated from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
