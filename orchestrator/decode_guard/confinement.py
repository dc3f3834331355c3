"""What a process gives up before it touches strangers' bytes."""

import contextlib
import ctypes
import mmap
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

_NO_NEW_PRIVILEGES = 38
"""PR_SET_NO_NEW_PRIVS of <linux/prctl.h>."""


def confine(memory_bytes: int) -> None:
    """Give up all that decoding does not need; there is no way back.

    What is open stays open, but no file, connection or process can be opened from here on, nothing
    can be written to files, and standard input and output lead nowhere.

    Args:
        memory_bytes: Most memory that may be taken beyond what is mapped now.
    """
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(silence, descriptor)
    os.close(silence)
    with contextlib.suppress(OSError):
        # When memory runs out after all, the kernel shall take this process first.
        Path("/proc/self/oom_score_adj").write_text("1000")
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes,) * 2)
    for nothing in (
        resource.RLIMIT_CORE,  # a dump would hold frames
        resource.RLIMIT_FSIZE,
        resource.RLIMIT_NPROC,
        resource.RLIMIT_NOFILE,
    ):
        resource.setrlimit(nothing, (0, 0))


@contextlib.contextmanager
def cpu_limited(seconds: float) -> Iterator[None]:
    """Let the kernel end this process by SIGPROF if the block takes more CPU time than allowed."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
