"""A real tritonserver takes the arguments of production's pods, and listens where it should."""

import asyncio
import contextlib
import socket

import pytest
import tritonclient.grpc as triton

from deploy.local import die_with_parent
from deploy.local.ports import HOST, free_ports
from deploy.local.triton_wheel import installed_wheel
from tests.deploy.manifests import KUBERNETES, Cluster, render
from tests.unit.certificates import Authority

BEYOND = "127.0.0.2"
"""Reaches who listens everywhere, and nobody who listens at 127.0.0.1."""

pytestmark = pytest.mark.triton


@pytest.fixture(scope="module")
def production():
    return Cluster(render(KUBERNETES / "overlays" / "production"))


def arguments_of(model, folder):
    """A pod's own arguments with this machine's paths; the repository is empty."""
    here = {"/models": str(folder / "models"), "$(MODEL_CONFIG)": "default", "/tls/": f"{folder}/"}
    for argument in map(str, model.main["args"]):
        option, _, value = argument.partition("=")
        for theirs, ours in here.items():
            value = value.replace(theirs, ours)
        yield f"{option}={value}" if value else option


def is_open(address, port):
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=5):
        return True
    return False


async def test_triton_shows_metrics_to_all_and_http_to_its_own_pod(production, tmp_path):
    model = next(one for one in production.models if one.name == "triton-sam2")
    (tmp_path / "models").mkdir()
    authority, ports, wheel = Authority.new(), free_ports(), installed_wheel()
    authority.save(tmp_path / "ca.crt")
    authority.issue(tmp_path)
    numbers = {"http": ports.http, "grpc": ports.grpc, "metrics": ports.metrics}
    command = [
        *(*die_with_parent.prefix(), str(wheel.server), *arguments_of(model, tmp_path)),
        *(f"--{name}-port={port}" for name, port in numbers.items()),
    ]
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, env=wheel.environment(threads=1), stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(is_open, HOST, ports.metrics):
                assert process.returncode is None, (tmp_path / "log").read_text()
                await asyncio.sleep(0.1)
        found = {name: is_open(BEYOND, port) for name, port in numbers.items()}
        assert found == {"http": False, "grpc": True, "metrics": True}
        assert is_open(HOST, ports.http)  # for the probes
        client = triton.InferenceServerClient(
            f"localhost:{ports.grpc}",
            ssl=True,
            root_certificates=str(tmp_path / "ca.crt"),
            private_key=str(tmp_path / "tls.key"),
            certificate_chain=str(tmp_path / "tls.crt"),
        )
        with client:
            assert await asyncio.to_thread(client.is_server_live)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
