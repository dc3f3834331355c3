"""The orchestrator process: models checked, port opened, signals obeyed."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.contracts import CONTRACTS
from orchestrator.errors import ClusterError
from orchestrator.servicer import PlayerRecognitionServicer
from orchestrator.settings import ServerSettings, Settings
from orchestrator.triton.client import TritonClient

SERVICE = pb.DESCRIPTOR.services_by_name["PlayerRecognitionService"].full_name

_OVERSIZE_FACTOR = 4
"""An oversized frame up to this factor is read and answered by a gap; beyond, the call ends."""

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

    async def drain(self, grace_s: float) -> None:
        """Refuse new streams, tell open ones, and stop when they end or after `grace_s`."""
        await self.health.enter_graceful_shutdown()
        self.servicer.drain()
        await self.server.stop(grace_s)


@contextlib.asynccontextmanager
async def running_server(settings: Settings) -> AsyncIterator[RunningServer]:
    """Serve for as long as the context is open.

    Raises:
        ModelUnavailableError: A model was not ready in time.
        TensorContractError: A live model differs from its contract.
        ClusterError: The port cannot be had.
    """
    async with TritonClient(settings.triton, CONTRACTS) as triton:
        transport = "shared memory" if triton.uses_shared_memory else "gRPC"
        log.info("models ready; large tensors travel by %s", transport)
        servicer = PlayerRecognitionServicer(triton, settings)
        server = grpc.aio.server(options=_options(settings.server))
        pb_grpc.add_PlayerRecognitionServiceServicer_to_server(servicer, server)
        checks = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        address = f"{settings.server.host}:{settings.server.port}"
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise ClusterError(f"server.port: cannot listen on {address}: {error}") from error
        await server.start()
        for name in ("", SERVICE):
            await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        running = RunningServer(f"{settings.server.host}:{port}", servicer, checks, server)
        log.info("serving on %s", running.target)
        try:
            yield running
        finally:
            await server.stop(None)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with running_server(settings) as running:
        sys.stdout.write(f"listening {running.target}\n")
        sys.stdout.flush()
        await stopping.wait()
        log.info("draining for at most %.0f s", settings.server.drain_s)
        await running.drain(settings.server.drain_s)


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", _OVERSIZE_FACTOR * settings.max_frame_bytes),
        ("grpc.max_send_message_length", settings.max_frame_bytes),
        ("grpc.so_reuseport", 0),
        # Clients behind NAT and half-open connections: find out within half a minute.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
