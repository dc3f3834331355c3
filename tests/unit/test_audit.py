"""The audit log: every start, end and refusal, and never a secret."""

import json
import shutil
from pathlib import Path

import grpc
import pytest
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.errors import SettingError
from orchestrator.security.audit import AuditLog
from orchestrator.security.keys import add_key
from orchestrator.settings import SecuritySettings
from tests.stream.streams import until
from tests.unit.scripted_server import scripted_server
from tests.unit.test_session import GOOD

CONFIG = pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG, stream_name="cam\n1")


def entries(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def security(tmp_path) -> SecuritySettings:
    (tmp_path / "tenants.toml").write_text("[tenants.acme]\n")
    (tmp_path / "keys.json").write_text("[]")
    return SecuritySettings(
        tenants_file=tmp_path / "tenants.toml",
        api_keys_file=tmp_path / "keys.json",
        audit_file=tmp_path / "audit.jsonl",
        reload_s=1e-3,
    )


async def test_starts_ends_and_refusals_are_written_and_no_secret_is(security, caplog):
    caplog.set_level("DEBUG")
    key = add_key(security.api_keys_file, "acme")
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    frames = [
        pb.RecognizeStreamRequest(frame=pb.Frame(frame_index=i, data=data))
        for i, data in enumerate([GOOD, b"no picture", GOOD])
    ]
    opening = pb.RecognizeStreamRequest(config=CONFIG)
    async with (
        scripted_server(security=security) as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        stub = pb_grpc.PlayerRecognitionServiceStub(channel)
        for requests, secret in (([opening, *frames], key), ([], wrong), (frames, key)):
            call = stub.RecognizeStream(iter(requests), metadata=[("x-api-key", secret)])
            try:
                tokens = [r.started.resume_token async for r in call if r.HasField("started")]
            except grpc.aio.AioRpcError:
                continue
    started, ended, unauthenticated, refused = entries(security.audit_file)
    assert (started["event"], started["tenant"], started["name"]) == ("started", "acme", "cam\n1")
    assert started["peer"].startswith("ipv4:127.0.0.1:")
    assert (ended["event"], ended["reason"]) == ("ended", "completed")
    assert (ended["received"], ended["recognized"]) == (3, 2)
    assert ended["gaps"] == {"DECODE_ERROR": 1}
    assert ended["stream"] == started["stream"]
    assert unauthenticated["reason"] == "unknown API key"
    assert (refused["event"], refused["tenant"]) == ("refused", "acme")
    assert refused["reason"].startswith("config:")
    written = security.audit_file.read_text() + caplog.text
    for secret in (key.split("_", 2)[2], wrong.split("_", 2)[2], *tokens):
        assert secret not in written


async def test_a_client_that_vanishes_is_noted(security):
    key = add_key(security.api_keys_file, "acme")
    async with scripted_server(security=security) as running:
        async with grpc.aio.insecure_channel(running.target) as channel:
            call = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream(
                metadata=[("x-api-key", key)]
            )
            await call.write(pb.RecognizeStreamRequest(config=CONFIG))
            assert (await call.read()).HasField("started")

        async def is_noted() -> bool:
            return entries(security.audit_file)[-1]["event"] == "ended"

        assert await until(is_noted, seconds=20)
    assert entries(security.audit_file)[-1]["reason"] == "cancelled by the client or lost"


async def test_a_refused_single_image_is_noted_and_a_recognised_one_is_not(tmp_path):
    path = tmp_path / "audit.jsonl"
    async with (
        scripted_server(security=SecuritySettings(audit_file=path)) as running,
        grpc.aio.insecure_channel(running.target) as channel,
    ):
        stub = pb_grpc.PlayerRecognitionServiceStub(channel)
        encoding = pb.FRAME_ENCODING_JPEG
        await stub.RecognizeFrame(pb.RecognizeFrameRequest(encoding=encoding, data=GOOD))
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.RecognizeFrame(pb.RecognizeFrameRequest(data=GOOD))
    (entry,) = entries(path)
    assert (entry["event"], entry["method"]) == ("refused", "RecognizeFrame")


def test_a_flood_of_refusals_is_thinned_and_counted(tmp_path, monkeypatch):
    log = AuditLog(tmp_path / "audit.jsonl")
    for _ in range(5000):
        log.refused("RecognizeStream", "peer", "no credentials")
    written = entries(tmp_path / "audit.jsonl")
    assert 100 <= len(written) < 1000
    monkeypatch.setattr(log._refusals, "_clock", lambda: float("inf"))
    log.refused("RecognizeStream", "peer", "no credentials")
    log.close()
    total = entries(tmp_path / "audit.jsonl")
    assert len(total) + sum(entry["suppressed"] for entry in total) == 5001


def test_a_rotated_file_is_opened_anew(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.refused("a", "peer", "first")
    path.rename(tmp_path / "audit.1.jsonl")
    log.refused("a", "peer", "second")
    log.close()
    assert [entry["reason"] for entry in entries(path)] == ["second"]


def test_a_log_that_cannot_be_written_ends_no_call_and_goes_on_once_it_can(tmp_path, caplog):
    folder = tmp_path / "audit"
    folder.mkdir()
    log = AuditLog(folder / "audit.jsonl")
    shutil.rmtree(folder)
    for _ in range(2):
        log.refused("a", "peer", "lost")
    assert caplog.text.count("security.audit_file: cannot write") == 2
    folder.mkdir()
    log.refused("a", "peer", "kept")
    log.close()
    assert [entry["reason"] for entry in entries(folder / "audit.jsonl")] == ["kept"]


def test_a_full_disk_ends_neither_a_call_nor_the_server_and_is_said(caplog, capsys):
    log = AuditLog(Path("/dev/full"))
    log.refused("a", "peer", "lost")
    log.close()
    assert caplog.messages == ["security.audit_file: cannot write: No space left on device"] * 2
    assert not capsys.readouterr().err


def test_long_texts_of_clients_are_cut(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    log.refused("a" * 10_000, "peer", "\n" * 10_000)
    log.close()
    assert (tmp_path / "audit.jsonl").stat().st_size < 2000


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(SettingError, match="cannot write") as caught:
        AuditLog(tmp_path / "no" / "such")
    assert caught.value.setting == "security.audit_file"
