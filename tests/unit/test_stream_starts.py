"""How the metrics, the log and the audit log tell of streams that start, go on, or do not start."""

import contextlib
import json
import logging

import grpc
import pytest
from prometheus_client import REGISTRY
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.logs import JsonFormatter
from orchestrator.security.keys import add_key
from orchestrator.session import StreamSession
from orchestrator.settings import SecuritySettings
from tests.unit.scripted_server import scripted_server
from tests.unit.stream_calls import call, config, end_of, finish, is_free, send, two_workers
from tests.unit.test_session import GOOD

pytestmark = pytest.mark.asyncio(loop_scope="session")


@contextlib.contextmanager
def counting():
    """Give a dictionary that holds, at the end, the stream starts by tenant and outcome."""

    def starts() -> dict[tuple[str, str], float]:
        (family,) = (f for f in REGISTRY.collect() if f.name == "touchline_stream_starts")
        return {(s.labels["tenant"], s.labels["outcome"]): s.value for s in family.samples}

    before, counted = starts(), {}
    yield counted
    counts = {key: value - before.get(key, 0) for key, value in starts().items()}
    counted |= {key: value for key, value in counts.items() if value}


@pytest.fixture(name="security")
def _security(tmp_path) -> SecuritySettings:
    (tmp_path / "tenants.toml").write_text("[tenants.acme]\nquota = {streams = 1}\n")
    (tmp_path / "keys.json").write_text("[]")
    return SecuritySettings(
        tenants_file=tmp_path / "tenants.toml", api_keys_file=tmp_path / "keys.json"
    )


async def test_a_tenant_s_own_quota_is_no_want_of_room(security):
    metadata = (("x-api-key", add_key(security.api_keys_file, "acme")),)
    with counting() as counted:
        async with (
            scripted_server(security=security) as running,
            call(running.target, metadata=metadata) as (stream, _),
            grpc.aio.insecure_channel(running.target) as channel,
        ):
            second = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream(
                metadata=metadata
            )
            await second.write(config())
            assert (await end_of(second))[0] == "RESOURCE_EXHAUSTED"
            await finish(stream)
    assert counted == {("acme", "accepted"): 1, ("acme", "quota_exceeded"): 1}


async def test_a_stream_that_is_refused_is_counted_by_its_status():
    with counting() as counted:
        async with (
            scripted_server(max_streams=1) as running,
            call(running.target) as (stream, _),
            grpc.aio.insecure_channel(running.target) as channel,
        ):
            second = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream()
            await second.write(config())
            assert (await end_of(second))[0] == "RESOURCE_EXHAUSTED"
            await finish(stream)
    assert counted == {("default", "accepted"): 1, ("default", "resource_exhausted"): 1}


async def test_streams_of_unknown_callers_are_counted_and_other_calls_are_not(security):
    with counting() as counted:
        async with (
            scripted_server(security=security) as running,
            grpc.aio.insecure_channel(running.target) as channel,
        ):
            stub = pb_grpc.PlayerRecognitionServiceStub(channel)
            assert (await end_of(stub.RecognizeStream()))[0] == "UNAUTHENTICATED"
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.RecognizeFrame(pb.RecognizeFrameRequest(data=GOOD))
    assert counted == {("", "unauthenticated"): 1}


async def test_a_start_that_fails_by_a_bug_is_counted(monkeypatch):
    async def break_down(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(StreamSession, "open", break_down)
    with counting() as counted:
        async with (
            scripted_server() as running,
            grpc.aio.insecure_channel(running.target) as channel,
        ):
            stream = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream()
            await stream.write(config())
            assert (await end_of(stream))[0] == "INTERNAL"
    assert counted == {("default", "internal"): 1}


async def test_a_call_that_was_handed_over_is_noted_where_it_is_served_and_nowhere_else(tmp_path):
    security = SecuritySettings(audit_file=tmp_path / "audit.jsonl")
    with counting() as counted:
        async with two_workers(tmp_path, security=security) as (first, second):
            async with call(first.target) as (_, started):
                pass
            await is_free(first)
            async with call(second.target, resume_token=started.resume_token) as (stream, _):
                await stream.write(config())
                assert (await end_of(stream))[0] == "INVALID_ARGUMENT"
    entries = [json.loads(line) for line in security.audit_file.read_text().splitlines()]
    assert [entry["event"] for entry in entries] == ["started", "ended", "started", "ended"]
    assert counted == {("default", "accepted"): 2}


async def test_a_resumed_stream_has_its_first_id_in_every_log(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(JsonFormatter())
    security = SecuritySettings(audit_file=tmp_path / "audit.jsonl")
    async with scripted_server(security=security) as running:
        async with call(running.target) as (stream, started):
            await send(stream, range(2))
        await is_free(running)
        async with call(running.target, resume_token=started.resume_token) as (stream, again):
            assert again.is_resumed
            await finish(stream)
    audited = [json.loads(line) for line in security.audit_file.read_text().splitlines()]
    assert [entry["stream"] for entry in audited] == [started.stream_id] * 4
    logged = [json.loads(line) for line in caplog.text.splitlines() if line.startswith("{")]
    streams = {line["stream"] for line in logged if line["logger"] == "orchestrator.stream_call"}
    assert streams == {started.stream_id}
