"""A worker process as a supervisor starts it: the real server, in front of scripted models."""

import asyncio
import signal
import sys

from orchestrator.metrics_server import serving_metrics
from orchestrator.security.guard import Guard
from orchestrator.server import listening
from orchestrator.settings import Settings
from tests.unit.scripted_server import PERSON
from tests.unit.scripted_triton import ScriptedTriton


async def _serve() -> None:
    settings = Settings()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    triton = ScriptedTriton(scene=lambda call: [PERSON])
    async with (
        listening(triton, settings, Guard(settings)) as running,
        serving_metrics(settings.metrics, worker=settings.server.worker or 0),
    ):
        sys.stdout.write(f"listening {running.target}\n")
        sys.stdout.flush()
        await stopping.wait()


if __name__ == "__main__":
    asyncio.run(_serve())
