"""System shared memory for tensors that are too large to travel by gRPC.

Regions are plain files under /dev/shm, made on demand in powers of two, reused, and bounded in sum.
Their names carry the owner's process id, so that what a killed process left can be swept.
"""

import contextlib
import mmap
import os
import secrets
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_DIRECTORY = Path("/dev/shm")
_PREFIX = "touchline-frames"
_SMALLEST = 1 << 16


@dataclass(frozen=True, slots=True)
class Region:
    """One shared-memory region.

    Attributes:
        name: Name under which servers know it; also the POSIX key without its slash.
        buffer: Writable view of all its bytes, uint8.
    """

    name: str
    buffer: NDArray[np.uint8]

    @property
    def byte_size(self) -> int:
        """Size in bytes."""
        return self.buffer.nbytes


class SharedMemoryPool:
    """Hands out shared-memory regions and takes them back. Not thread-safe: one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._prefix = f"{_PREFIX}-{os.getpid()}-{secrets.token_hex(4)}"
        self._free: defaultdict[int, list[Region]] = defaultdict(list)
        self._regions: list[Region] = []
        sweep_dead_owners()

    def acquire(self, byte_size: int) -> Region | None:
        """Return a region of at least `byte_size` bytes; None if all that may be are in use."""
        size = max(_SMALLEST, 1 << (byte_size - 1).bit_length())
        if self._free[size]:
            return self._free[size].pop()
        if self._bytes + size <= self._max_bytes:
            return self._create(size)
        larger = min((s for s, free in self._free.items() if free and s > size), default=None)
        return self._free[larger].pop() if larger else None

    def release(self, region: Region) -> None:
        """Take a region back for reuse."""
        self._free[region.byte_size].append(region)

    def close(self) -> None:
        """Remove every region of this pool; open requests may still hold their mapping."""
        for region in self._regions:
            (_DIRECTORY / region.name).unlink(missing_ok=True)
        self._regions.clear()
        self._free.clear()

    def _create(self, size: int) -> Region | None:
        name = f"{self._prefix}-{len(self._regions)}"
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
        path = _DIRECTORY / name
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError:
            return None
        try:
            # Reserving now turns a full /dev/shm into an error here instead of a SIGBUS later.
            os.posix_fallocate(descriptor, 0, size)
            memory = mmap.mmap(descriptor, size)
        except OSError:
            path.unlink()
            return None
        finally:
            os.close(descriptor)
        region = Region(name, np.frombuffer(memory, np.uint8))
        self._regions.append(region)
        self._bytes += size
        return region


def sweep_dead_owners() -> None:
    """Remove regions whose owning process is gone, but for those of other users."""
    for path in _DIRECTORY.glob(f"{_PREFIX}-*"):
        owner = path.name.removeprefix(f"{_PREFIX}-").split("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            with contextlib.suppress(PermissionError):
                path.unlink(missing_ok=True)
