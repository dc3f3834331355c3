"""The orchestrator process: models found, port opened, signals obeyed."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.contracts import CONTRACTS, RFDETR_DETECTOR
from orchestrator.decoding import prepare_decoding
from orchestrator.handover import own_socket
from orchestrator.metrics_server import serving_metrics
from orchestrator.security.guard import Guard
from orchestrator.servicer import PlayerRecognitionServicer
from orchestrator.settings import ServerSettings, Settings
from orchestrator.triton.client import TritonClient

SERVICE = pb.DESCRIPTOR.services_by_name["PlayerRecognitionService"].full_name

_OVERSIZE_FACTOR = 4
"""An oversized frame up to this factor is read and answered by a gap; beyond, the call ends."""

_MAX_METADATA_BYTES = 16 << 10
"""All headers of a call together; tokens of large organisations take up to half of it."""
_CLIENT_PING_MS = 5_000
"""Clients may probe a quiet connection this often."""
_LAST_WORDS_S = 1.0
"""For the status of a call that has just ended to reach its client."""
_LEAST_CALLS = 100
"""Calls that one connection may have open at once, on a server with few streams."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """An orchestrator that serves.

    Attributes:
        target: Address that clients connect to, `host:port`.
    """

    target: str
    servicer: PlayerRecognitionServicer
    health: health.aio.HealthServicer
    server: grpc.aio.Server

    async def drain(self, drain_s: float) -> None:
        """Refuse new streams, tell open ones, and stop when they end or after `drain_s`."""
        await self.health.enter_graceful_shutdown()
        # Closes the port, and tells connected clients to open new streams elsewhere.
        stopping = asyncio.create_task(self.server.stop(drain_s))
        await self.servicer.drain(drain_s)
        stopping.cancel()  # calls that watch the health would last until the end
        await self.server.stop(_LAST_WORDS_S)


@contextlib.asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[RunningServer]:
    """Serve for as long as the context is open.

    Raises:
        ModelUnavailableError: The detector was not ready in time; the other models may come later.
        TensorContractError: A live model differs from its contract.
        SettingError: The port cannot be had, or not be protected as set.
    """
    guard = Guard(settings)
    prepare_decoding(settings.decode)
    optional = tuple(contract for contract in CONTRACTS if contract is not RFDETR_DETECTOR)
    async with TritonClient(settings.triton, CONTRACTS, optional=optional) as triton:
        transport = "shared memory" if triton.uses_shared_memory else "gRPC"
        ready = ", ".join(model.contract.name for model in triton.models)
        log.info("%s ready; large tensors travel by %s", ready, transport)
        async with (
            listening(triton, settings, guard) as running,
            serving_metrics(
                settings.metrics,
                worker=settings.server.worker or 0,
                pools=triton.snapshot,
                is_ready=lambda: not running.servicer.is_draining,
            ),
        ):
            yield running


@contextlib.asynccontextmanager
async def listening(
    triton: TritonClient, settings: Settings, guard: Guard
) -> AsyncIterator[RunningServer]:
    """Serve with models that are there already; see `running_server`."""
    servicer = PlayerRecognitionServicer(triton, settings, guard)
    server = grpc.aio.server(interceptors=guard.interceptors, options=_options(settings.server))
    pb_grpc.add_PlayerRecognitionServiceServicer_to_server(servicer, server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    if settings.security.reflection:
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
    port = guard.listen(server, f"{settings.server.host}:{settings.server.port}")
    if (socket := own_socket(settings.server)) is not None:
        server.add_insecure_port(socket)
    await server.start()
    for name in ("", SERVICE):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    running = RunningServer(f"{settings.server.host}:{port}", servicer, checks, server)
    log.info("serving on %s by %s", running.target, type(asyncio.get_running_loop()).__module__)
    try:
        yield running
    finally:
        await server.stop(None)
        guard.close()


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; one that comes before it serves just ends it."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(_threads(settings.server))
    cv2.setNumThreads(1)  # the streams of a server are its parallelism
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if settings.server.worker is not None:
        _end_with_supervisor(stopping)
    async with contextlib.AsyncExitStack() as held:
        try:
            async with _broken_off_by(stopping):
                running = await held.enter_async_context(running_server(settings))
        except TimeoutError:
            if not stopping.is_set():
                raise
            log.info("told to stop before it served")
            return
        gc.collect()
        gc.freeze()  # else every full collection would walk all this, and stop the loop meanwhile
        sys.stdout.write(f"listening {running.target}\n")
        sys.stdout.flush()
        await stopping.wait()
        log.info("draining for at most %.0f s", settings.server.drain_s)
        await running.drain(settings.server.drain_s)


@contextlib.asynccontextmanager
async def _broken_off_by(event: asyncio.Event) -> AsyncIterator[None]:
    """Break a block off with TimeoutError when an event is set."""

    async def watch(block: asyncio.Timeout) -> None:
        await event.wait()
        block.reschedule(asyncio.get_running_loop().time())

    async with asyncio.timeout(None) as block:
        watching = asyncio.create_task(watch(block))
        try:
            yield
        finally:
            watching.cancel()


def _end_with_supervisor(stopping: asyncio.Event) -> None:
    """Set an event when standard input ends: the supervisor, who holds it open, is gone."""
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def end() -> None:
        loop.remove_reader(stdin)
        stopping.set()

    loop.add_reader(stdin, end)


def _threads(settings: ServerSettings) -> ThreadPoolExecutor:
    """Make threads for work off the loop, one more for each stream: its decoder may stall it."""
    return ThreadPoolExecutor(settings.max_streams + (os.cpu_count() or 1) + 4, "work")


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", _OVERSIZE_FACTOR * settings.max_frame_bytes),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.max_concurrent_streams", max(_LEAST_CALLS, 2 * settings.max_streams)),
        ("grpc.so_reuseport", int(settings.workers > 1)),
        # Half-open connections, as those of a client that moved behind another NAT.
        ("grpc.keepalive_time_ms", round(1000 * settings.keepalive_s)),
        ("grpc.keepalive_timeout_ms", round(500 * settings.keepalive_s)),
        ("grpc.http2.ping_timeout_ms", round(500 * settings.keepalive_s)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", _CLIENT_PING_MS),
        ("grpc.http2.max_ping_strikes", 2),
        # Connections that never finish their handshake, or rest unused, cost memory.
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_connection_idle_ms", 900_000),
    ]
