"""Quotas of a server with two worker processes, under the real supervisor."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from deploy.local.ports import free_ports
from orchestrator.cli.scrape import merged, read
from orchestrator.settings import ServerSettings
from orchestrator.supervisor import Supervisor
from tests.stream.streams import gaps, play, recognitions
from tests.unit.test_session import GOOD
from tests.unit.test_supervisor import supervising
from tests.unit.test_tenants import CONFIG, LIVE

COMMAND = (sys.executable, "-m", "tests.unit.scripted_worker")


@dataclass
class Server:
    """A server: where all its workers listen, what each has of its own, and its tenants' file."""

    target: str
    workers: list[str]
    pids: list[int]
    metrics: list[str]
    tenants: Path

    def quota(self, text: str) -> None:
        self.tenants.write_text(f"[tenants.default]\nquota = {{{text}}}\n")


@pytest.fixture
async def server(tmp_path, monkeypatch, capsys):
    tenants = tmp_path / "tenants.toml"
    tenants.write_text("")
    monkeypatch.setenv("TOUCHLINE_SECURITY__TENANTS_FILE", str(tenants))
    monkeypatch.setenv("TOUCHLINE_SECURITY__RELOAD_S", "0.001")
    monkeypatch.setenv("TOUCHLINE_SERVER__WORKERS", "2")
    monkeypatch.setenv("TOUCHLINE_DECODE__ISOLATION", "thread")
    port = free_ports().metrics
    monkeypatch.setenv("TOUCHLINE_METRICS__PORT", str(port))
    supervisor = Supervisor(ServerSettings(port=0, workers=2, drain_s=1), COMMAND)
    async with supervising(supervisor, capsys) as (_, target):
        pids = [supervisor._processes[number].pid for number in (0, 1)]
        directory = environment(pids[0])["TOUCHLINE_SERVER__WORKER_DIRECTORY"]
        sockets = [f"unix:{directory}/{number}.sock" for number in (0, 1)]
        ports = [f"127.0.0.1:{port + number}" for number in (0, 1)]
        yield Server(target, sockets, pids, ports, tenants)


def environment(pid: int) -> dict[str, str]:
    variables = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(variable.split("=", 1) for variable in variables if "=" in variable)


@contextlib.asynccontextmanager
async def stream(target: str):
    """Open a stream and hold it; a connection of its own goes to any worker."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        call = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream()
        await call.write(pb.RecognizeStreamRequest(config=CONFIG))
        yield await call.read()


async def refusal(target: str) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with stream(target):
            pass
    return f"{caught.value.code().name} {caught.value.details()}"


async def held(stack: contextlib.AsyncExitStack, target: str) -> pb.RecognizeStreamResponse:
    """Open a stream as soon as there is a place for it."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                return await stack.enter_async_context(stream(target))
            await asyncio.sleep(0.01)


async def test_streams_count_over_all_workers_and_a_killed_one_gives_its_own_back(server):
    server.quota("streams = 3")
    full = "RESOURCE_EXHAUSTED quota.streams: tenant default may have 3 and has reached that"
    async with contextlib.AsyncExitStack() as stack:
        for number in (0, 1, 1):
            response = await held(stack, server.workers[number])
            assert response.started.resume_token.startswith(f"{number}.")
        for target in (*server.workers, *[server.target] * 6):
            assert await refusal(target) == full
        os.kill(server.pids[1], signal.SIGKILL)
        for _ in range(2):
            await held(stack, server.workers[0])
        assert await refusal(server.workers[0]) == full


async def test_live_streams_in_different_workers_share_one_rate_and_each_tells_of_its_own(server):
    server.quota("frames_per_s = 0.1")  # two at once, one in advance, one more every ten seconds
    begun = time.monotonic()
    frames = [pb.Frame(frame_index=i, data=GOOD) for i in range(12)]
    played = await asyncio.gather(*(play(worker, LIVE, frames) for worker in server.workers))
    seconds = time.monotonic() - begun
    recognized = sum(len(recognitions(responses)) for responses in played)
    assert 2 <= recognized <= 3 + 0.1 * seconds
    lost = [gap for responses in played for gap in gaps(responses)]
    assert {reason for _, reason in lost} == {"QUOTA_EXCEEDED"}
    assert len(lost) + recognized == 24
    for ports, frames_received in ((server.metrics[:1], 12), (server.metrics, 24)):
        scrape = await read(ports)
        reading = merged(scrape.at, scrape.processes.values())
        assert reading.total("touchline_frames_received_total", tenant="default") == frames_received
