"""TLS of the public port: who gets in, what a wrong file says, and new certificates in flight."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from orchestrator.errors import SettingError
from orchestrator.security.auth import check_exposure
from orchestrator.security.guard import Guard
from orchestrator.security.tls import channel_credentials, server_credentials
from orchestrator.settings import JwtSettings, SecuritySettings, Settings
from tests.unit.certificates import Authority
from tests.unit.scripted_server import scripted_server


@pytest.fixture
def authority() -> Authority:
    return Authority.new()


@pytest.fixture
def settings(authority, tmp_path) -> SecuritySettings:
    """TLS, with files that are looked at before every connection."""
    chain, key = authority.issue(tmp_path / "server")
    return SecuritySettings(
        certificate_file=chain,
        private_key_file=key,
        reload_s=1e-9,
    )


@pytest.fixture
def ca(authority, tmp_path) -> Path:
    return authority.save(tmp_path / "ca.pem")


@pytest.fixture
def mutual(settings, ca) -> SecuritySettings:
    """The same, for clients with a certificate only."""
    asked = {"client_ca_file": ca, "require_client_certificate": True}
    return settings.model_copy(update=asked)


async def checks(target: str, credentials: grpc.ChannelCredentials | None) -> bool:
    """Whether a connection comes about."""
    channel = (
        grpc.aio.secure_channel(target, credentials)
        if credentials
        else grpc.aio.insecure_channel(target)
    )
    async with channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=20
            )
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE  # noqa: PT017
            return False
    return True


async def test_only_clients_that_trust_the_authority_connect(settings, ca, tmp_path):
    stranger = Authority.new("stranger").save(tmp_path / "stranger.pem")
    async with scripted_server(security=settings) as running:
        assert await checks(running.target, channel_credentials(ca))
        assert not await checks(running.target, channel_credentials(stranger))
        assert not await checks(running.target, None)


SERVED_TO_A_STRANGER = """
import socket, sys
import orchestrator, grpc
from contextlib import suppress
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
key, chain = (Path(name).read_bytes() for name in sys.argv[1:])
server = grpc.server(ThreadPoolExecutor(1))
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
server.start()
with socket.create_connection(("127.0.0.1", port)) as stranger:
    stranger.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n" * 10)
    with suppress(ConnectionError):
        stranger.recv(1)
server.stop(0).wait()
"""


def test_a_failed_handshake_writes_nothing(authority, tmp_path):
    chain, key = authority.issue(tmp_path / "server")
    command = [sys.executable, "-c", SERVED_TO_A_STRANGER, str(key), str(chain)]
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_VERBOSITY"}
    done = subprocess.run(
        command, env=environment, stderr=subprocess.PIPE, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, b"")


async def test_mutual_tls_turns_away_clients_without_a_certificate(mutual, authority, ca, tmp_path):
    ours = authority.issue(tmp_path / "client", "client")
    theirs = Authority.new("stranger").issue(tmp_path / "stranger", "client")
    async with scripted_server(security=mutual) as running:
        assert await checks(running.target, channel_credentials(ca, *ours))
        assert not await checks(running.target, channel_credentials(ca))
        assert not await checks(running.target, channel_credentials(ca, *theirs))


async def test_a_new_certificate_is_served_without_a_restart(settings, ca, tmp_path):
    new = Authority.new("new")
    trusting_new = channel_credentials(new.save(tmp_path / "new.pem"))
    trusting_old = channel_credentials(ca)
    async with scripted_server(security=settings) as running:
        assert not await checks(running.target, trusting_new)
        new.issue(tmp_path / "server")
        assert await checks(running.target, trusting_new)
        assert not await checks(running.target, trusting_old)


async def test_a_broken_new_certificate_leaves_the_old_one_in_use(settings, ca, caplog):
    async with scripted_server(security=settings) as running:
        settings.private_key_file.write_text("half a file")
        for _ in range(2):
            assert await checks(running.target, channel_credentials(ca))
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith("security.private_key_file: expected")


@pytest.mark.parametrize(
    ("changed", "setting", "says"),
    [
        ({"certificate_file": Path("no/such")}, "security.certificate_file", "cannot read no/such"),
        ({"certificate_file": None}, "security.certificate_file", "both"),
        ({"private_key_file": None}, "security.private_key_file", "both"),
        ({"client_ca_file": Path("no/such")}, "security.client_ca_file", "cannot read"),
        (
            {"client_ca_file": None, "require_client_certificate": True},
            "security.client_ca_file",
            "require_client_certificate",
        ),
        (
            {"require_client_certificate": False},
            "security.require_client_certificate",
            "client_ca_file",
        ),
        (
            {"certificate_file": None, "private_key_file": None},
            "security.certificate_file",
            "client certificates",
        ),
        (
            {"certificate_file": None, "private_key_file": None, "client_ca_file": None},
            "security.certificate_file",
            "client certificates",
        ),
    ],
)
def test_a_wrong_setting_is_named(mutual, changed, setting, says):
    with pytest.raises(SettingError, match=says) as caught:
        server_credentials(mutual.model_copy(update=changed))
    assert caught.value.setting == setting


def test_a_key_of_another_certificate_is_named(settings, authority, tmp_path):
    _, other = authority.issue(tmp_path / "other")
    with pytest.raises(SettingError, match="first certificate") as caught:
        channel_credentials(None, settings.certificate_file, other)
    assert caught.value.setting == "--tls-key"
    with pytest.raises(SettingError, match="first certificate") as caught:
        server_credentials(settings.model_copy(update={"private_key_file": other}))
    assert caught.value.setting == "security.private_key_file"


def test_certificate_and_key_in_each_others_place_are_named_and_not_quoted(settings):
    swapped = {
        "certificate_file": settings.private_key_file,
        "private_key_file": settings.certificate_file,
    }
    with pytest.raises(SettingError) as caught:
        server_credentials(settings.model_copy(update=swapped))
    assert str(caught.value) == "security.certificate_file: expected PEM certificates"


def test_an_expired_certificate_is_refused_at_start(settings, authority, tmp_path):
    chain, key = authority.issue(tmp_path / "old", days=-1)
    expired = {"certificate_file": chain, "private_key_file": key}
    with pytest.raises(SettingError, match="expired on"):
        server_credentials(settings.model_copy(update=expired))


def test_without_files_the_port_is_plain():
    assert server_credentials(SecuritySettings()) is None


def test_a_client_with_half_a_pair_is_told_which_flag_is_missing(settings):
    with pytest.raises(SettingError) as caught:
        channel_credentials(None, settings.certificate_file)
    assert caught.value.setting == "--tls-key"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "[::1]", "::1", "localhost"])
def test_this_host_may_be_served_unprotected(host):
    check_exposure(host, SecuritySettings())


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "10.0.0.7", "match.example"])
@pytest.mark.parametrize(
    ("security", "says"),
    [
        (SecuritySettings(), "allow_plaintext"),
        (SecuritySettings(allow_anonymous=True), "allow_plaintext"),
        (SecuritySettings(allow_plaintext=True), "allow_anonymous"),
        (SecuritySettings(certificate_file=Path("a")), "allow_anonymous"),
    ],
)
def test_other_hosts_are_not_served_unprotected_unless_told_so(host, security, says):
    with pytest.raises(SettingError, match=says) as caught:
        check_exposure(host, security)
    assert caught.value.setting == "server.host"


@pytest.mark.parametrize(
    "security",
    [
        SecuritySettings(allow_plaintext=True, allow_anonymous=True),
        SecuritySettings(certificate_file=Path("a"), require_client_certificate=True),
        SecuritySettings(certificate_file=Path("a"), api_keys_file=Path("b")),
        SecuritySettings(allow_plaintext=True, jwt=JwtSettings(jwks_file=Path("b"))),
    ],
)
def test_other_hosts_are_served_once_protected(security):
    check_exposure("0.0.0.0", security)


async def test_a_port_that_is_taken_is_named():
    guard = Guard(Settings())
    with (
        contextlib.closing(guard),
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(SettingError, match="server.port: cannot listen on 127.0.0.1:"),
    ):
        guard.listen(grpc.aio.server(), f"127.0.0.1:{taken.getsockname()[1]}")
