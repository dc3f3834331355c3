"""What operators see of a real orchestrator process in front of the real tritonserver."""

import asyncio
import json
import os
import re
import signal

import aiohttp
import grpc
import pytest
import pytest_asyncio
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from deploy.local.cluster import LocalCluster
from deploy.local.orchestrator import OrchestratorProcess
from deploy.local.ports import free_ports
from orchestrator.cli import main
from orchestrator.security.keys import add_key
from tests.load.pictures import MatchPictures
from tests.patience import until
from tests.span_collector import span_collector
from tests.unit.test_metrics import scrape, status

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="module")]

FRAMES = 12
TRACE = "0123456789abcdef0123456789abcdef"
STAGES = {"decode", "detect", "track", "identify", "number"}


async def play(target: str, key: str) -> list[pb.RecognizeStreamResponse]:
    """Send a few frames and one that is no picture, as a client that is traced itself."""
    pictures = MatchPictures()
    config = pb.StreamConfig(stream_name="derby", encoding=pb.FRAME_ENCODING_JPEG)

    async def requests():
        yield pb.RecognizeStreamRequest(config=config)
        for index in range(FRAMES):
            data = b"no picture" if index == 5 else pictures.jpeg(index)
            yield pb.RecognizeStreamRequest(frame=pb.Frame(frame_index=index, data=data))

    async with grpc.aio.insecure_channel(target) as channel:
        call = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream(
            requests(),
            metadata=(("x-api-key", key), ("traceparent", f"00-{TRACE}-{'1' * 16}-01")),
        )
        return [response async for response in call]


@pytest_asyncio.fixture(name="cluster", scope="module", loop_scope="module")
async def _cluster():
    async with LocalCluster("sim") as cluster:
        yield cluster


async def test_metrics_logs_traces_and_profiles_tell_of_a_stream_and_no_secrets(cluster, tmp_path):
    port = free_ports().metrics
    (tmp_path / "tenants.toml").write_text("[tenants.arena]\n")
    key = add_key(tmp_path / "keys.json", "arena")
    with span_collector() as collector:
        options = {
            "TOUCHLINE_METRICS__PORT": str(port),
            "TOUCHLINE_LOGGING__FORMAT": "json",
            "TOUCHLINE_LOGGING__LEVEL": "DEBUG",
            "TOUCHLINE_TRACING__ENDPOINT": collector.url,
            "TOUCHLINE_TRACING__SAMPLE_RATIO": "1",
            "TOUCHLINE_PROFILING__DIRECTORY": str(tmp_path / "profiles"),
            "TOUCHLINE_SECURITY__API_KEYS_FILE": str(tmp_path / "keys.json"),
            "TOUCHLINE_SECURITY__TENANTS_FILE": str(tmp_path / "tenants.toml"),
        }
        async with OrchestratorProcess(cluster.endpoints, settings=options) as orchestrator:
            os.kill(orchestrator.pid, signal.SIGUSR2)
            responses = await play(orchestrator.target, key)
            os.kill(orchestrator.pid, signal.SIGUSR2)
            assert await status(port, "readyz") == 200
            samples = await scrape(port)
            profiles = tmp_path / "profiles"
            await until(lambda: profiles.is_dir() and any(profiles.iterdir()))
            log = orchestrator.log_text()

    _check_metrics(samples)
    _check_log(log, responses, key)
    _check_traces(collector.spans)
    (profile,) = profiles.iterdir()
    assert "runners.Runner.run;" in profile.read_text()


def _check_metrics(samples: dict[tuple, float]) -> None:
    assert samples["touchline_frames_received_total", "arena"] == FRAMES
    assert samples["touchline_frames_recognized_total", "arena"] == FRAMES - 1
    assert samples["touchline_frames_lost_total", "decode_error", "arena"] == 1
    assert samples["touchline_stream_starts_total", "accepted", "arena"] == 1
    assert samples["touchline_streams", "arena"] == 0
    assert samples["touchline_tracks",] == 0
    assert samples["touchline_tracker_slots",] > 0
    assert samples["touchline_stage_seconds_count", "total"] == FRAMES - 1
    assert samples["touchline_bytes_received_total", "arena"] > 10_000
    for model in ("rfdetr_detector", "sam2_tracker", "siglip_embedder", "resnet_jersey"):
        assert samples["touchline_model_replicas", model, "ready"] == 1
        assert samples["touchline_model_requests_total", model, "ok"] > 0
        assert samples["touchline_model_service_seconds_count", model] > 0
        assert samples["touchline_model_in_flight", model] == 0


def _check_log(log: str, responses: list[pb.RecognizeStreamResponse], key: str) -> None:
    started = responses[0].started
    records = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    about = [record for record in records if record.get("stream") == started.stream_id]
    assert any("started" in record.get("message", "") for record in about)
    assert started.resume_token
    for secret in (key, started.resume_token):
        assert secret not in log
    assert r"\xff\xd8" not in log  # the beginning of a JPEG, formatted


def _check_traces(spans) -> None:
    ours = {span.id: span for span in spans}
    frames = [span for span in spans if span.name == "frame"]
    assert len(frames) == FRAMES
    assert {(span.trace, span.parent) for span in frames} == {(TRACE, "1" * 16)}
    assert sum(span.is_error for span in frames) == 1
    stages = {span.name for span in spans if span.parent in {frame.id for frame in frames}}
    assert stages == STAGES
    inferences = {span.name: ours[span.parent].name for span in spans if "infer" in span.name}
    assert inferences["infer sam2_tracker"] == "track"
    assert inferences["infer resnet_jersey"] == "number"


async def test_top_shows_the_pools_of_a_running_process(cluster, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    port = free_ports().metrics
    async with OrchestratorProcess(
        cluster.endpoints, settings={"TOUCHLINE_METRICS__PORT": str(port)}
    ):
        arguments = ["top", f"127.0.0.1:{port}", "--once", "--interval", "0.2"]
        assert await asyncio.to_thread(main, arguments) == 0
    printed = capsys.readouterr().out
    assert re.search(r"SAM2 slots 0 of [1-9]", printed)
    assert re.search(r"rfdetr_detector +1 ready +0 +0", printed)


async def test_without_settings_nothing_is_exposed(cluster):
    port = free_ports().metrics
    async with OrchestratorProcess(cluster.endpoints) as orchestrator:
        os.kill(orchestrator.pid, signal.SIGUSR2)  # must not end it
        with pytest.raises(aiohttp.ClientConnectorError):
            await status(port, "metrics")
        async with grpc.aio.insecure_channel(orchestrator.target) as channel:
            answer = await pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeFrame(
                pb.RecognizeFrameRequest(
                    encoding=pb.FRAME_ENCODING_JPEG, data=MatchPictures().jpeg(0)
                )
            )
    assert answer.recognition.players
