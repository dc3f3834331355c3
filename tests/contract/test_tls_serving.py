"""TLS towards the real tritonserver: one-way and mutual, and who is turned away."""

import asyncio
import contextlib
import urllib.request
from urllib.error import URLError

import numpy as np
import pytest
import pytest_asyncio

from deploy.local.repository import DEFAULT_REPOSITORY
from deploy.local.tritonserver import TritonServer
from orchestrator.contracts import SIGLIP_TEXT
from orchestrator.errors import ModelUnavailableError
from orchestrator.settings import TritonSettings, TritonTlsSettings
from orchestrator.triton.client import TritonClient
from tests.unit.certificates import Authority

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="module")]


class SecuredServer(TritonServer):
    """A server with further options; it is asked by HTTP whether it is ready, which has no TLS."""

    def __init__(self, options):
        super().__init__(DEFAULT_REPOSITORY, [SIGLIP_TEXT.name], variant="sim")
        self._options = options

    def _command(self, wheel, ports):
        further = [f"--{option}={value}" for option, value in self._options.items()]
        return [*super()._command(wheel, ports), *further]

    async def _is_ready(self, client):
        with contextlib.suppress(URLError):
            page = await asyncio.to_thread(self._get, "/v2")
            await asyncio.to_thread(self._get, f"/v2/models/{SIGLIP_TEXT.name}/ready")
            return self.name.encode() in page
        return False

    def _get(self, path):
        with urllib.request.urlopen(f"http://{self.http_endpoint}{path}", timeout=1) as answer:
            return answer.read()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority.new()
    stranger = Authority.new("another")
    return {
        "ca": authority.save(folder / "ca.crt"),
        "other_ca": stranger.save(folder / "other.crt"),
        "server": authority.issue(folder / "server"),
        "client": authority.issue(folder / "client", "orchestrator"),
        "stranger": stranger.issue(folder / "stranger", "orchestrator"),
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(files):
    """Two servers: to one, clients must show certificates, too."""
    certificate, key = files["server"]
    options = {
        "grpc-use-ssl": "true",
        "grpc-server-cert": certificate,
        "grpc-server-key": key,
        "grpc-root-cert": files["ca"],
    }
    both = {
        "one-way": SecuredServer(options),
        "mutual": SecuredServer(options | {"grpc-use-ssl-mutual": "true"}),
    }
    try:
        await asyncio.gather(*(server.start() for server in both.values()))
        yield both
    finally:
        await asyncio.gather(*(server.stop() for server in both.values()))


def client(server, **tls):
    settings = TritonSettings(
        url=server.endpoint, tls=TritonTlsSettings(**tls), connect_timeout_s=3
    )
    return TritonClient(settings, (SIGLIP_TEXT,))


def shown(pair):
    return {"cert": pair[0], "key": pair[1]}


@pytest.mark.parametrize("kind", ["one-way", "mutual"])
async def test_the_real_server_answers_whom_it_trusts(servers, files, kind):
    own = shown(files["client"]) if kind == "mutual" else {}
    async with client(servers[kind], ca=files["ca"], **own) as triton:
        reply = await triton.infer(SIGLIP_TEXT, {"text": np.array([[b"red kit"]], np.object_)})
    assert np.linalg.norm(reply["embedding"][0]) == pytest.approx(1, abs=1e-3)


async def refusal(server, **tls):
    """How a client fails to start, well before the test's own bound."""
    with pytest.raises(ModelUnavailableError) as error:
        async with asyncio.timeout(60):
            await client(server, **tls).__aenter__()
    assert f"not ready in time at {server.endpoint}" in str(error.value)
    return str(error.value)


async def test_a_server_of_an_unknown_authority_is_not_trusted(servers, files):
    found = await asyncio.gather(
        refusal(servers["one-way"], ca=files["other_ca"]),
        refusal(servers["mutual"], ca=files["other_ca"], **shown(files["client"])),
    )
    assert all("CERTIFICATE_VERIFY_FAILED" in text for text in found)


async def test_a_client_that_does_not_show_what_it_must_is_told_what_it_showed(servers, files):
    plain, nameless, stranger = await asyncio.gather(
        refusal(servers["one-way"]),
        refusal(servers["mutual"], ca=files["ca"]),
        refusal(servers["mutual"], ca=files["ca"], **shown(files["stranger"])),
    )
    assert plain.endswith("asked without TLS")
    assert nameless.endswith("asked by TLS without a client certificate")
    assert stranger.endswith("asked by TLS with a client certificate")
