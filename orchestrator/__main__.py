"""Process entry: settings from the environment, then serve until told to stop.

The first line on standard output is `listening HOST:PORT`, for whoever started the process.
"""

import asyncio
import sys

import cv2
import uvloop

from orchestrator.errors import TouchlineError
from orchestrator.server import serve
from orchestrator.settings import Settings
from orchestrator.telemetry import configure_logging


def main() -> int:
    """Run the orchestrator; return the exit code."""
    configure_logging()
    cv2.setNumThreads(1)  # a server's streams are its parallelism
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    try:
        asyncio.run(serve(Settings()))
    except TouchlineError as error:
        sys.stderr.write(f"touchline: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
