"""The orchestrator as a process of its own on 127.0.0.1, as it is in production."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Self

from deploy.local import die_with_parent, ownership, server_log
from deploy.local.ports import HOST
from orchestrator.errors import ClusterError

STOP_SECONDS = 10.0


class OrchestratorProcess:
    """An orchestrator in front of running models; lives as long as the async context.

    Attributes:
        target: `host:port` of the public API, once the context is entered.
    """

    def __init__(
        self,
        endpoints: Mapping[str, str | list[str]],
        *,
        port: int = 0,
        settings: dict[str, str] | None = None,
        startup_seconds: float = 60.0,
    ) -> None:
        """Describe a process; entering the context starts it.

        Args:
            endpoints: `host:port` of gRPC by model name; several are replicas.
            port: TCP port of the public API; 0 takes a free one.
            settings: Further `TOUCHLINE_*` variables.
            startup_seconds: How long it may take until it listens.
        """
        self.target = ""
        self._name = ownership.owned_name()
        self._log = ownership.directory(self._name) / "orchestrator.log"
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "TOUCHLINE_SERVER__HOST": HOST,
            "TOUCHLINE_SERVER__PORT": str(port),
            "TOUCHLINE_TRITON__URLS": json.dumps(endpoints),
            **(settings or {}),
        }
        self._startup_seconds = startup_seconds
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process id of the running orchestrator."""
        if self._process is None:
            raise ClusterError("the orchestrator is not started")
        return self._process.pid

    async def wait(self) -> int:
        """Wait until it ends, as after a signal, and return its exit code."""
        if self._process is None:
            raise ClusterError("the orchestrator is not started")
        return await self._process.wait()

    def log_text(self) -> str:
        """What the orchestrator logged so far."""
        return self._log.read_text(errors="replace")

    async def __aenter__(self) -> Self:
        """Start and return once it listens.

        Raises:
            ClusterError: It ended or was not ready in time; the text holds the log's last lines.
        """
        ownership.directory(self._name).mkdir(mode=0o700)
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def _start(self) -> None:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *die_with_parent.prefix(),
                *(sys.executable, "-m", "orchestrator"),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        with contextlib.suppress(TimeoutError):
            line = await asyncio.wait_for(self._process.stdout.readline(), self._startup_seconds)
            if line.startswith(b"listening "):
                self.target = line.split()[1].decode()
                return
        raise ClusterError(
            f"the orchestrator did not start; its log ends:\n{server_log.tail(self.log_text())}"
        )

    async def _stop(self) -> None:
        process = self._process
        try:
            if process is not None and process.returncode is None:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), STOP_SECONDS)
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        finally:
            ownership.remove(self._name)
