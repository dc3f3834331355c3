"""One real tritonserver process on 127.0.0.1, owned by an async context."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from deploy.local import die_with_parent, ownership, server_log, triton_wheel
from deploy.local.ports import HOST, Ports, free_ports, listens
from deploy.local.triton_wheel import TritonWheel
from orchestrator.errors import ClusterError

POLL_SECONDS = 0.1
DRAIN_SECONDS = 5
"""How long a stopping server waits for requests in flight."""
STOP_SECONDS = 15.0
"""How long a stopping server may take in all before it is killed."""

SHARED_PACKAGES = {"sim": (Path(__file__).parent / "sim" / "touchline_sim",)}
"""Python packages that the models of a variant import beside their own folders."""

_SHARED_MEMORY_BYTES = 1 << 20
"""First size and growth step of a model instance's shared memory region."""

# gRPC's own back-off grows to minutes; a server that starts is there within seconds.
_CHANNEL_ARGUMENTS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
]


class TritonServer:
    """A tritonserver with some models of a repository, under explicit model control.

    The server, its model processes, its directory and its shared memory end with the context. If
    this process is killed, so are they; the files then go with the next start's sweep.

    Attributes:
        models: The models that are ready when the context is entered.
        name: The server's id, as `ServerMetadata.name` tells it; its files' names begin with it.
        endpoint: `host:port` of gRPC.
        http_endpoint: `host:port` of HTTP.
        metrics_endpoint: `host:port` of Prometheus metrics, at `/metrics`.
        log: The server's log file; it exists within the context only.
    """

    def __init__(
        self,
        repository: Path,
        models: Sequence[str],
        *,
        variant: str = "cpu",
        threads: int = 1,
        startup_seconds: float = 120.0,
        trace_endpoint: str | None = None,
    ) -> None:
        """Describe a server; `start` starts it.

        Args:
            repository: A Triton model repository.
            models: Names of the models to load.
            variant: Models are loaded with `configs/<variant>.pbtxt`, or with `config.pbtxt` where
                that is missing, as for the variant `default`.
            threads: Native threads of each model process, 1 or more.
            startup_seconds: How long all models together may take to load.
            trace_endpoint: URL that takes OTLP over HTTP: spans of all requests with a
                `traceparent` are sent there.
        """
        self.models = tuple(models)
        self.name = ownership.owned_name()
        self.endpoint = ""
        self.http_endpoint = ""
        self.metrics_endpoint = ""
        self._directory = ownership.directory(self.name)
        self.log = self._directory / "tritonserver.log"
        self._repository = repository
        self._variant = variant
        self._threads = threads
        self._startup_seconds = startup_seconds
        self._trace_endpoint = trace_endpoint
        self._process: asyncio.subprocess.Process | None = None
        self._ports: Ports | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise ClusterError(f"tritonserver {self.name} is not started")
        return self._process.pid

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server and return when all models are ready.

        One that was stopped starts on the ports that it had, if they are free.

        Raises:
            ClusterError: A library is missing, a model failed to load, the server ended, or it was
                not ready in time; the text holds the reason or the log's last lines.
        """
        ownership.sweep()
        wheel = triton_wheel.installed_wheel()
        environment = wheel.environment(self._threads)
        for executable in (wheel.server, wheel.stub):
            await asyncio.to_thread(triton_wheel.require_libraries, executable, environment)
        async with contextlib.AsyncExitStack() as on_failure:
            on_failure.push_async_callback(self._discard)
            self._directory.mkdir(mode=0o700)
            wheel.link_backend(self._directory, SHARED_PACKAGES.get(self._variant, ()))
            await self._start_in_time(wheel, environment)
            on_failure.pop_all()

    async def stop(self) -> None:
        """Let requests in flight finish, end the server and remove its files; may be repeated."""
        process = self._process
        try:
            if process is not None and process.returncode is None:
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), STOP_SECONDS)
        finally:
            await self._discard()

    async def _start_in_time(self, wheel: TritonWheel, environment: dict[str, str]) -> None:
        try:
            async with asyncio.timeout(self._startup_seconds):
                ports = self._ports or free_ports()
                while not await self._start_on(ports, wheel, environment):
                    ports = free_ports()  # another process was quicker on one of them
                self._ports = ports
        except TimeoutError as error:
            raise ClusterError(
                f"tritonserver with {', '.join(self.models)} was not ready after "
                f"{self._startup_seconds:g} s; its log ends:\n{server_log.tail(self._read_log())}"
            ) from error

    async def _start_on(
        self, ports: Ports, wheel: TritonWheel, environment: dict[str, str]
    ) -> bool:
        """Start on the given ports; return False if one of them turns out to be taken."""
        self.endpoint = f"{HOST}:{ports.grpc}"
        self.http_endpoint = f"{HOST}:{ports.http}"
        self.metrics_endpoint = f"{HOST}:{ports.metrics}"
        process = await self._spawn(self._command(wheel, ports), environment)
        async with InferenceServerClient(self.endpoint, channel_args=_CHANNEL_ARGUMENTS) as client:
            while not (listens(process.pid, ports) and await self._is_ready(client)):
                exit_code = process.returncode  # read before the log, which is then complete
                log = self._read_log()
                if exit_code is not None and server_log.has_port_clash(log):
                    return False
                _raise_if_failed(exit_code, log)
                await asyncio.sleep(POLL_SECONDS)
        return True

    async def _is_ready(self, client: InferenceServerClient) -> bool:
        """Return whether OUR server answers with all models; a stranger may be on the port."""
        try:
            metadata = await client.get_server_metadata(client_timeout=1)
            if metadata.name != self.name:
                return False
            ready = [await client.is_model_ready(model, client_timeout=1) for model in self.models]
        except InferenceServerException:
            return False
        return all(ready)

    async def _spawn(
        self, command: list[str], environment: dict[str, str]
    ) -> asyncio.subprocess.Process:
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *die_with_parent.prefix(),
                *command,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C in a terminal is for the owner, who then stops the server in good order.
                start_new_session=True,
            )
        return self._process

    def _command(self, wheel: TritonWheel, ports: Ports) -> list[str]:
        options = {
            "id": self.name,
            "model-repository": self._repository,
            "model-config-name": self._variant,
            "backend-directory": self._directory,
            "cache-directory": wheel.root / "caches",
            "http-address": HOST,
            "http-port": ports.http,
            "grpc-address": HOST,
            "grpc-port": ports.grpc,
            "metrics-address": HOST,
            "metrics-port": ports.metrics,
            "model-control-mode": "explicit",
            # Otherwise one model that fails later makes the whole server "not ready" for good.
            "strict-readiness": "false",
            "exit-timeout-secs": DRAIN_SECONDS,
        }
        python_backend = {
            "shm-region-prefix-name": f"{self.name}-",
            "shm-default-byte-size": _SHARED_MEMORY_BYTES,
            "shm-growth-byte-size": _SHARED_MEMORY_BYTES,
            "stub-timeout-seconds": max(1, round(self._startup_seconds)),
        }
        return [
            str(wheel.server),
            "--disable-auto-complete-config",
            *(f"--{option}={value}" for option, value in options.items()),
            *(f"--backend-config=python,{key}={value}" for key, value in python_backend.items()),
            *(f"--trace-config={setting}" for setting in self._tracing()),
            *(f"--load-model={model}" for model in self.models),
        ]

    def _tracing(self) -> tuple[str, ...]:
        if self._trace_endpoint is None:
            return ()
        return (
            "mode=opentelemetry",
            f"opentelemetry,url={self._trace_endpoint}",
            "opentelemetry,resource=service.name=tritonserver",
            "opentelemetry,bsp_schedule_delay=500",
            "level=TIMESTAMPS",
            "rate=0",  # of requests without a parent; those with one are traced all the same
        )

    async def _discard(self) -> None:
        """Kill the server with its model processes if it still runs, and remove its files."""
        process = self._process
        try:
            if process is not None and process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        finally:
            ownership.remove(self.name)

    def _read_log(self) -> str:
        return self.log.read_text(errors="replace")


def _raise_if_failed(exit_code: int | None, log: str) -> None:
    failure = server_log.load_failure(log)
    if failure is not None:
        raise ClusterError(f"model {failure.model} failed to load: {failure.reason}")
    if exit_code is not None:
        raise ClusterError(
            f"tritonserver ended with exit code {exit_code}; its log ends:\n{server_log.tail(log)}"
        )
