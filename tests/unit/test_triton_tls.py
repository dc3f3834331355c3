"""TLS towards Triton: both sides show certificates, and nothing is said to strangers."""

import grpc
import pytest
from pydantic import ValidationError

from orchestrator.errors import ModelUnavailableError, SettingError
from orchestrator.settings import TritonSettings, TritonTlsSettings
from orchestrator.triton.client import TritonClient
from orchestrator.triton.connection import Connections
from tests.unit.certificates import Authority
from tests.unit.fake_triton import ECHO, FakeTriton, numbers, serving


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of an authority, a server called `triton` and a client."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority.new()
    return {
        "ca": authority.save(folder / "ca.crt"),
        "server": authority.issue(folder / "server"),
        "client": authority.issue(folder / "client", "orchestrator"),
    }


@pytest.fixture
async def secured(files):
    certificate, key = files["server"]
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        files["ca"].read_bytes(),
        require_client_auth=True,
    )
    async with serving(FakeTriton(), credentials=credentials) as triton:
        yield triton


def client(triton, **tls):
    settings = TritonSettings(
        url=triton.address, tls=TritonTlsSettings(**tls), transport="grpc", connect_timeout_s=20
    )
    return TritonClient(settings, (ECHO,))


async def test_both_sides_know_each_other(secured, files):
    certificate, key = files["client"]
    async with client(secured, ca=files["ca"], cert=certificate, key=key) as triton:
        assert (await triton.infer(ECHO, numbers(3)))["y"][0, 0] == 3


async def test_a_server_reached_by_address_may_have_a_name(secured, files):
    certificate, key = files["client"]
    named = {"ca": files["ca"], "cert": certificate, "key": key}
    async with client(secured, **named, server_name="localhost") as triton:
        assert (await triton.infer(ECHO, numbers(3)))["y"][0, 0] == 3


@pytest.mark.parametrize("lacks", ["certificate", "authority", "name"])
async def test_strangers_are_not_served(secured, files, tmp_path, lacks):
    certificate, key = files["client"]
    tls = {"ca": files["ca"], "cert": certificate, "key": key}
    if lacks == "certificate":
        tls = {"ca": files["ca"]}
    elif lacks == "authority":
        tls["ca"] = Authority.new("another").save(tmp_path / "ca.crt")
    else:
        tls["server_name"] = "elsewhere.example"
    subject = client(secured, **tls)
    subject._settings = subject._settings.model_copy(update={"connect_timeout_s": 1.0})
    with pytest.raises(ModelUnavailableError, match="not ready in time"):
        await subject.__aenter__()
    assert secured.served == []


async def test_a_new_server_is_asked_with_the_files_as_they_are_by_then(secured, files, tmp_path):
    """So that renewed certificates need no restart: models that restart are reached by them."""
    renewed = {"ca": files["ca"], "cert": files["client"][0], "key": files["client"][1]}
    old = Authority.new("another")
    cert, key = old.issue(tmp_path / "old")
    tls = TritonTlsSettings(ca=old.save(tmp_path / "old.crt"), cert=cert, key=key)
    connections = Connections(tls, longest_call_s=10)
    for setting, path in renewed.items():
        getattr(tls, setting).write_bytes(path.read_bytes())
    connection = connections.acquire(secured.address)
    try:
        assert await connection.client.is_model_ready(ECHO.name, client_timeout=20)
    finally:
        await connections.close()


async def test_files_that_cannot_be_used_are_named(secured, tmp_path):
    with pytest.raises(SettingError, match=r"triton\.tls\.ca: cannot be read: No such file"):
        await client(secured, ca=tmp_path / "absent.crt").__aenter__()
    with pytest.raises(ValidationError, match="cert and key: expected both or neither"):
        TritonTlsSettings(cert=tmp_path / "tls.crt")
