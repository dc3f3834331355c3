"""The real gRPC server in this process, in front of scripted models."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Literal

from orchestrator.security.guard import Guard
from orchestrator.server import RunningServer, listening
from orchestrator.settings import DecodeSettings, SecuritySettings, ServerSettings, Settings
from tests.unit.scripted_triton import ScriptedTriton

PERSON = (0.25, 0.5, 0.1, 0.4, 0, 3.0)


@contextlib.asynccontextmanager
async def scripted_server(
    *,
    security: SecuritySettings | None = None,
    triton: ScriptedTriton | None = None,
    isolation: Literal["process", "thread"] = "thread",
    **server: Any,
) -> AsyncIterator[RunningServer]:
    settings = Settings(
        server=ServerSettings(port=0, **server),
        security=security or SecuritySettings(),
        decode=DecodeSettings(isolation=isolation),
    )
    triton = triton or ScriptedTriton(scene=lambda call: [PERSON])
    async with listening(triton, settings, Guard(settings)) as running:
        yield running
