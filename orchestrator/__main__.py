"""Process entry: settings from the environment; then serve, or supervise those who do.

The first line on standard output is `listening HOST:PORT`, for whoever started the process.
"""

import asyncio
import contextlib
import ctypes
import sys

import uvloop

from orchestrator.environment import read_settings
from orchestrator.errors import TouchlineError
from orchestrator.logs import configure_logging
from orchestrator.profiling import profiling_on_signal
from orchestrator.server import serve
from orchestrator.supervisor import supervise
from orchestrator.tracing import tracing_to

_M_ARENA_MAX = -8
"""Of glibc's malloc.h."""
_MOST_HEAPS = 2


def share_heaps() -> None:
    """Let all threads allocate from two heaps, where the C library is glibc.

    It would give each thread its own, up to eight a core, and what one has free no other can use: a
    tenth more memory, growing for half an hour. Call it before there are threads.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _MOST_HEAPS)


def main() -> int:
    """Run the orchestrator; return the exit code."""
    try:
        settings = read_settings()
        share_heaps()
        configure_logging(settings.logging)
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        if settings.server.workers > 1 and settings.server.worker is None:
            asyncio.run(supervise(settings.server))
            return 0
        with profiling_on_signal(settings.profiling), tracing_to(settings.tracing):
            asyncio.run(serve(settings))
    except TouchlineError as error:
        sys.stderr.write(f"touchline: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
