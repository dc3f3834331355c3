"""A sampling profile of the running process on SIGUSR2; off by default.

The first signal starts a profile, the second, or the time limit, ends it. The file holds one line a
stack, `outermost;...;innermost COUNT`, as flame graph viewers read it. Sampling costs about one
per cent of a core while it runs, and nothing otherwise.
"""

import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from orchestrator.settings import ProfilingSettings

_INTERVAL_S = 0.01
_MAX_DEPTH = 64
"""Innermost calls that are kept of a stack."""
_MAX_STACKS = 20_000
"""Different stacks that are kept; what else comes is counted as one."""
_REST = "(other stacks)"

log = logging.getLogger(__name__)


@contextmanager
def profiling_on_signal(settings: ProfilingSettings) -> Iterator[None]:
    """Obey SIGUSR2 for as long as the context is open; without a directory it is ignored.

    Main thread only, as all signal handling.
    """
    profiler = Profiler(settings)
    before = signal.signal(signal.SIGUSR2, lambda *_: profiler.toggle())
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)
        profiler.stop()


class Profiler:
    """Takes at most one profile at a time, of all threads of this process."""

    def __init__(self, settings: ProfilingSettings) -> None:
        self._settings = settings
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def toggle(self) -> None:
        """Start a profile, or end the one that runs."""
        if self._settings.directory is None:
            log.info("profiling.directory is not set: no profile")
        elif self._thread is not None and self._thread.is_alive():
            self._ending.set()
        else:
            self._ending.clear()
            self._thread = threading.Thread(
                target=self._record, args=(self._settings.directory,), name="profiler", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End the profile that runs, if any, and wait until it is written."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()

    def _record(self, directory: Path) -> None:
        log.info("profile started, for at most %.0f s", self._settings.duration_s)
        stacks = self._sample()
        try:
            path = _write(directory, stacks)
            _drop_oldest(directory, self._settings.max_files)
        except OSError as error:
            log.warning("profiling.directory: cannot write a profile: %s", error)
        else:
            log.info("profile of %d samples written to %s", stacks.total(), path)

    def _sample(self) -> Counter[str]:
        stacks: Counter[str] = Counter()
        until = time.monotonic() + self._settings.duration_s
        while time.monotonic() < until and not self._ending.wait(_INTERVAL_S):
            for thread, frame in sys._current_frames().items():
                if thread != threading.get_ident():
                    stack = _stack(frame)
                    stacks[stack if stack in stacks or len(stacks) < _MAX_STACKS else _REST] += 1
        return stacks


def _stack(frame: FrameType | None) -> str:
    calls: list[str] = []
    while frame is not None and len(calls) < _MAX_DEPTH:
        code = frame.f_code
        calls.append(f"{Path(code.co_filename).stem}.{code.co_qualname}")
        frame = frame.f_back
    return ";".join(reversed(calls))


def _write(directory: Path, stacks: Counter[str]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"profile-{time.time_ns()}-{os.getpid()}.txt"
    lines = (f"{stack} {count}\n" for stack, count in stacks.most_common())
    path.write_text("".join(lines))
    return path


def _drop_oldest(directory: Path, most: int) -> None:
    newest_first = sorted(directory.glob("profile-*.txt"), reverse=True)
    for path in itertools.islice(newest_first, most, None):
        path.unlink(missing_ok=True)
