"""Credentials on the client's side: the library, the command line and its files."""

import argparse
import asyncio
import json

import grpc
import pytest
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.cli import _parser, main
from orchestrator.cli.connection import connect, server_settings
from orchestrator.errors import InvalidRequestError, SettingError
from orchestrator.security.keys import add_key
from orchestrator.security.tls import channel_credentials
from orchestrator.settings import SecuritySettings, Settings
from tests.unit.certificates import Authority
from tests.unit.scripted_server import scripted_server
from tests.unit.test_session import GOOD

CONFIG = pb.StreamConfig(encoding=pb.FRAME_ENCODING_JPEG)


@pytest.fixture
def authority() -> Authority:
    return Authority.new()


@pytest.fixture
def security(authority, tmp_path) -> SecuritySettings:
    """TLS and API keys together."""
    chain, key = authority.issue(tmp_path / "server")
    authority.save(tmp_path / "ca.pem")
    (tmp_path / "tenants.toml").write_text("[tenants.acme]\n")
    return SecuritySettings(
        certificate_file=chain,
        private_key_file=key,
        tenants_file=tmp_path / "tenants.toml",
        api_keys_file=_with_key(tmp_path),
        reload_s=1e-3,
    )


def _with_key(folder):
    (folder / "key").write_text(add_key(folder / "keys.json", "acme") + "\n")
    return folder / "keys.json"


def options(*flags: str) -> argparse.Namespace:
    return _parser().parse_args(["image", "picture.jpg", *flags])


async def recognized(client) -> int:
    async def frames():
        yield pb.Frame(frame_index=0, data=GOOD)

    request = pb.RecognizeFrameRequest(encoding=pb.FRAME_ENCODING_JPEG, data=GOOD)
    await client.recognize_frame(request)
    responses = [r async for r in client.recognize_stream(CONFIG, frames())]
    return responses[-1].summary.recognized_frame_count


async def test_the_flags_connect_with_tls_and_key_and_a_new_key_takes_over(security, tmp_path):
    flags = options("--tls-ca", f"{tmp_path}/ca.pem", "--api-key-file", f"{tmp_path}/key")
    async with (
        scripted_server(security=security) as running,
        connect(running.target, flags) as client,
    ):
        assert await recognized(client) == 1
        (tmp_path / "keys.json").unlink()
        _with_key(tmp_path)
        await asyncio.sleep(0.02)  # a file that was changed just now may not be whole
        assert await recognized(client) == 1
        (tmp_path / "key").write_text("touchline_of_yesterday")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await recognized(client)
        assert caught.value.code().name == "UNAUTHENTICATED"


async def test_the_flags_connect_with_mutual_tls(security, authority, tmp_path):
    mutual = security.model_copy(
        update={
            "client_ca_file": tmp_path / "ca.pem",
            "require_client_certificate": True,
            "api_keys_file": None,
        }
    )
    chain, key = authority.issue(tmp_path / "client", "client")
    ca = ("--tls-ca", f"{tmp_path}/ca.pem")
    flags = options(*ca, "--tls-cert", str(chain), "--tls-key", str(key))
    async with (
        scripted_server(security=mutual) as running,
        connect(running.target, flags) as client,
    ):
        assert await recognized(client) == 1


@pytest.mark.parametrize("target", ["match.example:50051", "10.1.2.3:50051"])
def test_a_key_does_not_cross_a_network_in_the_clear(target, tmp_path):
    with pytest.raises(InvalidRequestError, match="--api-key-file: expected with --tls"):
        connect(target, options("--api-key-file", f"{tmp_path}/key"))


@pytest.mark.parametrize("content", ["", "\n", "one\ntwo", "schlüssel"])
async def test_a_file_that_holds_no_key_is_named_and_not_quoted(tmp_path, content):
    (tmp_path / "key").write_text(content)
    async with connect("127.0.0.1:1", options("--api-key-file", f"{tmp_path}/key")) as client:
        with pytest.raises(InvalidRequestError) as caught:
            await client.recognize_frame(pb.RecognizeFrameRequest())
    assert str(caught.value).startswith("--api-key-file: expected one line")
    assert not content.strip() or content.strip() not in str(caught.value)


async def test_a_missing_file_is_named_by_its_flag(tmp_path):
    with pytest.raises(SettingError, match=f"--tls-ca: cannot read {tmp_path}/no"):
        connect("127.0.0.1:1", options("--tls-ca", f"{tmp_path}/no"))
    with pytest.raises(SettingError, match="--tls-cert: expected both"):
        channel_credentials(None, None, tmp_path / "tls.key")


def test_the_flags_of_a_server_become_its_settings(tmp_path, monkeypatch):
    files = {flag: tmp_path / flag[2:] for flag in ("--tls-cert", "--tls-key", "--tls-ca")}
    flags = [part for flag, path in files.items() for part in (flag, str(path))]
    up = _parser().parse_args(["up", *flags])
    for name, value in server_settings(up).items():
        monkeypatch.setenv(name, value)
    security = Settings().security
    assert security.certificate_file == files["--tls-cert"]
    assert security.private_key_file == files["--tls-key"]
    assert security.client_ca_file == files["--tls-ca"]
    assert security.require_client_certificate
    assert server_settings(_parser().parse_args(["up"])) == {}


def test_keys_are_made_listed_and_revoked_on_the_command_line(tmp_path, capsys):
    file = ("--file", str(tmp_path / "keys.json"))
    assert main(["keys", "add", "acme", *file]) == 0
    key = capsys.readouterr().out.strip()
    key_id = key.split("_")[1]
    assert main(["keys", "list", *file]) == 0
    listed = capsys.readouterr().out
    assert listed.split()[0] == key_id
    assert listed.split()[-1] == "acme"
    assert key not in listed
    assert main(["keys", "revoke", key_id, *file]) == 0
    assert json.loads((tmp_path / "keys.json").read_text()) == []
    for wrong in (key_id, key):
        assert main(["keys", "revoke", wrong, *file]) == 1
        error = capsys.readouterr().err
        assert "id: expected the id of a key" in error
        assert key.split("_", 2)[2] not in error
