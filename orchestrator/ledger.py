"""What the worker processes of a server use together: open streams, and how far rates are spent.

Each account is a small file beside the workers' sockets that all of them map; a server of a single
process has it in its own memory. Check and change take turns by a file lock, held for microseconds.
What a worker has open counts for as long as it holds a lock of its own, which the kernel frees
however the worker ends: nobody has to clean up after one that was killed.
"""

import contextlib
import fcntl
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TypeAlias

from orchestrator.settings import ServerSettings

Numbers: TypeAlias = "memoryview[float]"

_LEVELS = 4
"""Numbers of an account behind the counts of the workers: two for each of two token buckets."""
_SUFFIX = ".account"


def new_numbers(count: int) -> Numbers:
    """Return so many zeros, in this process's own memory."""
    return memoryview(bytearray(8 * count)).cast("d")


class Ledger:
    """The accounts of a server, as one of its worker processes sees them.

    Args:
        settings: Which worker this is, of how many, and where they meet.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._directory = settings.worker_directory
        self.worker = settings.worker or 0
        self.workers = settings.workers
        self._turn: IO[bytes] | None = None
        self._life: IO[bytes] | None = None
        if self._directory is not None:
            self._turn = (self._directory / "turn.lock").open("ab")
            self._begin_life(self._directory)

    def account(self, name: str) -> "Account":
        """Return an account.

        Args:
            name: Fit for a file name; the same account for all workers.
        """
        count = self.workers + _LEVELS
        if self._directory is None:
            return Account(self, new_numbers(count))
        return Account(self, _mapped(self._directory / f"{name}{_SUFFIX}", count))

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Hold this, without awaiting, while numbers of an account are looked at and changed."""
        if self._turn is None:
            yield
            return
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def lives(self, worker: int) -> bool:
        """Whether another worker process is there."""
        if self._directory is None:
            return False
        try:
            with _life(self._directory, worker).open("rb") as life:
                fcntl.flock(life, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:  # not started yet
            return False
        return False

    def close(self) -> None:
        """Leave: what this worker has open counts no more."""
        for lock in (self._turn, self._life):
            if lock is not None:
                lock.close()

    def _begin_life(self, directory: Path) -> None:
        """Clear what a worker before this one of the same number left, then count."""
        for path in directory.glob(f"*{_SUFFIX}"):
            _mapped(path, self.workers + _LEVELS)[self.worker] = 0
        self._life = _life(directory, self.worker).open("ab")
        fcntl.flock(self._life, fcntl.LOCK_EX)


class Account:
    """What one tenant, say, uses of a server.

    Attributes:
        levels: Room for the state of rates, zeros at first; look at it and change it in `turn`.
    """

    def __init__(self, ledger: Ledger, numbers: Numbers) -> None:
        self.levels = numbers[ledger.workers :]
        self.turn = ledger.turn
        self._open = numbers[: ledger.workers]
        self._ledger = ledger

    def take_place(self, most: int | None) -> bool:
        """Count one more open stream and return True; False if `most` are open already."""
        with self.turn():
            if most is not None and self._open_everywhere() >= most:
                return False
            self._open[self._ledger.worker] += 1
        return True

    def give_place_back(self) -> None:
        """Count one open stream less; only this worker changes its number."""
        self._open[self._ledger.worker] -= 1

    def _open_everywhere(self) -> float:
        own = self._ledger.worker
        return self._open[own] + sum(
            count
            for worker, count in enumerate(self._open)
            if count and worker != own and self._ledger.lives(worker)
        )


def _life(directory: Path, worker: int) -> Path:
    return directory / f"{worker}.life"


def _mapped(path: Path, count: int) -> Numbers:
    """Map a file of numbers; whoever comes first makes it, with zeros."""
    with path.open("ab+") as file:
        os.posix_fallocate(file.fileno(), 0, 8 * count)  # a full disk is an error here, not later
        return memoryview(mmap.mmap(file.fileno(), 8 * count)).cast("d")
