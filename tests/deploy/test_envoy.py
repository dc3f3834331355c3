"""The Envoy of the cluster in front of a real orchestrator: TLS on both sides, long streams, drain.

The config is the cluster's own, with this machine's addresses, paths and names.
"""

import asyncio
import contextlib
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import yaml
from soccer.v1 import player_recognition_pb2 as pb

from deploy.local import die_with_parent
from deploy.local.cluster import LocalCluster
from deploy.local.orchestrator import OrchestratorProcess
from deploy.local.ports import HOST, Ports, free_ports
from orchestrator.client import RecognitionClient
from orchestrator.security.keys import add_key
from tests.deploy import promql
from tests.deploy.manifests import IS_REQUIRED, KUBERNETES, tool
from tests.stream.streams import stored_stream
from tests.unit.certificates import Authority

ENVOY = KUBERNETES / "components" / "envoy"
DEFAULT_ROUTE_TIMEOUT_S = 15
"""Envoy's own limit of a call, which a stream must outlive."""


@dataclass(frozen=True)
class Front:
    """A running Envoy.

    Attributes:
        ports: `http` is its status page, `grpc` the API, `metrics` its admin page.
        credentials: What clients trust.
        bearer: A key of the orchestrator.
    """

    ports: Ports
    credentials: grpc.ChannelCredentials
    bearer: str

    def client(self) -> RecognitionClient:
        return RecognitionClient(
            f"{HOST}:{self.ports.grpc}",
            credentials=self.credentials,
            bearer=lambda: self.bearer,
            max_reconnects=0,
        )

    def page(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.ports.http}{path}") as reply:
                return reply.read().decode()
        except urllib.error.URLError as error:
            return str(error)


def localized(text: str, ports: Ports, upstream: str, folder: Path) -> str:
    """The cluster's text with this machine's addresses, paths and names."""
    host, port = upstream.split(":")
    here = {
        "orchestrator-headless.touchline.svc.cluster.local": host,
        "orchestrator.touchline.svc": "localhost",
        "port_value: 50051": f"port_value: {port}",
        "0.0.0.0": HOST,
        "8443": str(ports.grpc),
        "9902": str(ports.http),
        "9901": str(ports.metrics),
        "/etc/envoy/": f"{folder}/",
        "/tls/": f"{folder}/",
    }
    for theirs, ours in here.items():
        text = text.replace(theirs, ours)
    return text


def write_config(folder: Path, ports: Ports, upstream: str) -> Path:
    for name in ("envoy.yaml", "sds-api.yaml"):
        text = localized((ENVOY / name).read_text(), ports, upstream, folder)
        (folder / name).write_text(text)
    return folder / "envoy.yaml"


@pytest.fixture
def folder(tmp_path):
    """A folder with the certificates of both sides."""
    authority = Authority.new()
    authority.issue(tmp_path / "api")
    authority.issue(tmp_path / "orchestrator")
    (tmp_path / "ca").mkdir()
    authority.save(tmp_path / "ca" / "ca.crt")
    return tmp_path


@contextlib.asynccontextmanager
async def running_envoy(folder: Path, upstream: str, bearer: str) -> AsyncIterator[Front]:
    ports = free_ports()
    config = write_config(folder, ports, upstream)
    quiet = ("--log-level", "warning", "--use-dynamic-base-id", "--concurrency", "1")
    command = (tool("envoy"), "--config-path", str(config), "--drain-time-s", "2", *quiet)
    with (folder / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *die_with_parent.prefix(), *command, stderr=log
        )
    authority = (folder / "ca" / "ca.crt").read_bytes()
    front = Front(ports, grpc.ssl_channel_credentials(authority), bearer)
    try:
        async with asyncio.timeout(60):
            while "orchestrator::health_flags" not in await upstream_state(front):
                assert process.returncode is None, (folder / "envoy.log").read_text()
                await asyncio.sleep(0.1)
        yield front
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def upstream_state(front: Front) -> str:
    """`orchestrator::health_flags` once a healthy upstream is known and Envoy is ready."""
    page = await asyncio.to_thread(front.page, "/metrics")
    healthy = 'envoy_cluster_membership_healthy{envoy_cluster_name="orchestrator"} 1'
    return "orchestrator::health_flags" if healthy in page else ""


async def refused_connection(port: int) -> None:
    """Return once nobody listens any more."""
    with contextlib.suppress(ConnectionRefusedError):
        while True:
            _, writer = await asyncio.open_connection(HOST, port)
            writer.close()
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def running_front(folder: Path) -> AsyncIterator[Front]:
    """Simulated models, a real orchestrator with TLS and keys, and Envoy before it."""
    keys = folder / "api_keys"
    bearer = add_key(keys, "broadcaster")
    (folder / "tenants.toml").write_text("[tenants.broadcaster]\n")
    settings = {
        "TOUCHLINE_SECURITY__CERTIFICATE_FILE": str(folder / "orchestrator" / "tls.crt"),
        "TOUCHLINE_SECURITY__PRIVATE_KEY_FILE": str(folder / "orchestrator" / "tls.key"),
        "TOUCHLINE_SECURITY__API_KEYS_FILE": str(keys),
        "TOUCHLINE_SECURITY__TENANTS_FILE": str(folder / "tenants.toml"),
    }
    async with (
        LocalCluster(variant="sim") as cluster,
        OrchestratorProcess(cluster.endpoints, settings=settings) as orchestrator,
        running_envoy(folder, orchestrator.target, bearer) as front,
    ):
        yield front


class Feed:
    """Frames that are sent when the test says so."""

    def __init__(self, frames: list[pb.Frame]) -> None:
        self._frames = iter(frames)
        self._queue: asyncio.Queue[pb.Frame | None] = asyncio.Queue()

    def send(self, count: int) -> None:
        for _ in range(count):
            self._queue.put_nowait(next(self._frames))

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[pb.Frame]:
        while (frame := await self._queue.get()) is not None:
            yield frame


class Playing:
    """A stream through Envoy, and its answers so far."""

    def __init__(self, client: RecognitionClient, clip: Path, count: int) -> None:
        config, frames = stored_stream(clip, count)
        self.feed = Feed(frames)
        self.answered = 0
        self.is_summarised = False
        self._grown = asyncio.Condition()
        self.task = asyncio.create_task(self._play(client, config))

    async def _play(self, client: RecognitionClient, config: pb.StreamConfig) -> None:
        async for response in client.recognize_stream(config, aiter(self.feed)):
            kind = response.WhichOneof("response")
            async with self._grown:
                self.answered += kind == "recognition"
                self.is_summarised |= kind == "summary"
                self._grown.notify_all()

    async def until(self, count: int) -> None:
        async with self._grown, asyncio.timeout(60):
            await self._grown.wait_for(lambda: self.answered >= count or self.task.done())
        if self.task.done():
            self.task.result()


def test_envoy_takes_the_config(folder):
    config = write_config(folder, free_ports(), f"{HOST}:50051")
    command = [tool("envoy"), "--mode", "validate", "--config-path", str(config)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "deprecated" not in run.stderr.lower(), run.stderr


@pytest.mark.triton
async def test_a_stream_outlives_every_default_timeout_and_a_silent_stranger_none(folder, clip):
    if not IS_REQUIRED:
        pytest.skip("takes longer than Envoy's default timeout: make test-deploy")
    async with running_front(folder) as front, front.client() as client:
        stranger, writer = await asyncio.open_connection(HOST, front.ports.grpc)
        playing = Playing(client, clip, 16)
        playing.feed.send(8)
        await playing.until(4)
        before = playing.answered
        await asyncio.sleep(DEFAULT_ROUTE_TIMEOUT_S + 2)  # silence, as in a commercial break
        playing.feed.send(8)
        playing.feed.end()
        await asyncio.wait_for(playing.task, 60)
        assert before < 16
        assert playing.answered == 16
        assert playing.is_summarised
        assert await asyncio.wait_for(stranger.read(), 1) == b""  # has been hung up
        writer.close()


@pytest.mark.triton
async def test_a_draining_proxy_lets_streams_end_and_takes_no_new_ones(folder, clip):
    if not IS_REQUIRED:
        pytest.skip("starts a cluster of its own: make test-deploy")
    manifests = yaml.safe_load_all((ENVOY / "deployment.yaml").read_text())
    pod = next(m for m in manifests if m["kind"] == "Deployment")["spec"]["template"]["spec"]
    hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    async with running_front(folder) as front, front.client() as client:
        playing = Playing(client, clip, 16)
        playing.feed.send(8)
        await playing.until(4)
        command = [localized(word, front.ports, f"{HOST}:1", folder) for word in hook]
        draining = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        ending = asyncio.create_task(draining.communicate())
        await asyncio.wait_for(refused_connection(front.ports.grpc), 60)
        assert not ending.done()  # a stream is open
        playing.feed.send(8)
        playing.feed.end()
        await asyncio.wait_for(playing.task, 60)
        await asyncio.wait_for(ending, 60)
        assert playing.answered == 16
        assert playing.is_summarised
        assert draining.returncode == 0


@pytest.mark.triton
async def test_a_call_without_a_key_is_refused_by_the_orchestrator_itself(folder):
    if not IS_REQUIRED:
        pytest.skip("starts a cluster of its own: make test-deploy")
    async with running_front(folder) as front:
        target = f"{HOST}:{front.ports.grpc}"
        async with RecognitionClient(target, credentials=front.credentials) as client:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await client.recognize_frame(pb.RecognizeFrameRequest())
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        scrape = await asyncio.to_thread(front.page, "/metrics")
        exposed = set(re.findall(r"^envoy_\w+", scrape, re.MULTILINE))
        assert exposed >= promql.ENVOY
