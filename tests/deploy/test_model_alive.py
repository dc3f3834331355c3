"""The liveness check on a real tritonserver, which calls a dead model ready."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from tritonclient.grpc.aio import InferenceServerClient, InferInput

from deploy.docker.pod import model_alive
from deploy.docker.pod.model_alive import DeadModelError, check, check_ready
from deploy.local.tritonserver import TritonServer
from deploy.observability.__main__ import RULES
from tests.deploy.manifests import IS_REQUIRED
from tests.deploy.prometheus import scraping

pytestmark = pytest.mark.triton

MODEL = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(r, "x").as_numpy()) for r in requests]

    def answer(self, x):
        if x[0, 0] == 13:
            error = pb_utils.TritonError("no slot is free", pb_utils.TritonError.UNAVAILABLE)
            return pb_utils.InferenceResponse(error=error)
        time.sleep(float(x[0, 0]))
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", x)])
"""

CONFIG = """
backend: "python"
max_batch_size: 1
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository" / "sleeper"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(MODEL)
    (folder / "configs").mkdir()
    (folder / "configs" / "cpu.pbtxt").write_text(CONFIG)
    return folder.parent


@asynccontextmanager
async def serving(repository):
    """A tritonserver that answers by HTTP, too, which it opens last."""
    async with TritonServer(repository, ["sleeper"]) as server:
        await asyncio.to_thread(wait_until_ready, server)
        yield server


def wait_until_ready(server):
    deadline = time.monotonic() + 60
    while True:
        try:
            return check_ready(url(server), 5.0)
        except DeadModelError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def model_processes(server):
    """Ids of the processes that run the server's models."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            program, *arguments = path.read_bytes().decode().split("\0")
        except OSError:  # it ended meanwhile
            continue
        if program.endswith("triton_python_backend_stub") and server.name in " ".join(
            [program, *arguments]
        ):
            found.append(int(path.parent.name))
    return found


def url(server):
    return f"http://{server.http_endpoint}"


async def alive(server, seconds=10.0):
    return await asyncio.to_thread(check, url(server), "sleeper", seconds)


def status(address):
    with urllib.request.urlopen(address) as reply:
        return reply.status


async def ask(client, value):
    x = InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.full((1, 2), value, np.float32))
    return await client.infer("sleeper", [x])


async def test_a_killed_model_process_is_dead_although_triton_is_ready(repository):
    async with serving(repository) as server:
        assert await alive(server) == "it answered"
        (process,) = model_processes(server)
        os.kill(process, signal.SIGKILL)
        with pytest.raises(DeadModelError, match="it fails: .*not healthy"):
            await alive(server)
        for page in ("v2/health/ready", "v2/health/live", "v2/models/sleeper/ready"):
            assert await asyncio.to_thread(status, f"{url(server)}/{page}") == 200


async def test_a_busy_model_is_alive_and_a_stuck_one_is_not(repository):
    async with (
        serving(repository) as server,
        InferenceServerClient(server.endpoint) as client,
    ):
        queue = [asyncio.create_task(ask(client, 0.8)) for _ in range(4)]
        await asyncio.sleep(0.2)
        assert await alive(server, seconds=2.0) == "it is busy with others"
        await asyncio.gather(*queue)
        stuck = asyncio.create_task(ask(client, 4.0))
        await asyncio.sleep(0.2)
        with pytest.raises(DeadModelError, match=r"it answered nobody within 1\.5 s"):
            await alive(server, seconds=1.5)
        await stuck


async def test_a_server_that_is_gone_is_dead(repository):
    async with serving(repository) as server:
        address = url(server)
    with pytest.raises(DeadModelError, match="the server does not answer"):
        await asyncio.to_thread(check, address, "sleeper", 5.0)


async def test_the_check_runs_as_the_kubelet_runs_it(repository):
    async with serving(repository) as server:
        base = [sys.executable, "-I", model_alive.__file__, "--server", url(server)]
        environment = {"MODEL": "sleeper", "PATH": os.environ["PATH"]}

        async def run(*arguments):
            return await asyncio.to_thread(
                subprocess.run,
                [*base, *arguments],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )

        ready, living = await run("--ready"), await run()
        os.kill(model_processes(server)[0], signal.SIGKILL)
        still_ready, dead = await run("--ready"), await run()
    assert (ready.returncode, ready.stdout) == (0, "sleeper: ready\n")
    assert (living.returncode, living.stdout) == (0, "sleeper: it answered\n")
    assert still_ready.returncode == 0
    assert (dead.returncode, dead.stdout) == (1, "")
    assert dead.stderr.startswith("sleeper: it fails: ")


@pytest.mark.asyncio(loop_scope="session")
async def test_every_model_answers_its_check(served):
    server = served.cluster.servers[0]
    for model in server.models:
        sign = await asyncio.to_thread(check, url(server), model, 60.0)
        assert sign == "it answered", model


def test_a_probe_of_a_sequence_begins_and_ends_it():
    tracker = {
        "max_batch_size": 8,
        "input": [
            {
                "name": "frame",
                "data_type": "TYPE_UINT8",
                "dims": ["-1", "-1", "3"],
                "optional": True,
            },
            {"name": "clicks", "data_type": "TYPE_FP32", "dims": ["-1", "3"], "optional": True},
        ],
        "sequence_batching": {},
    }
    header, body = model_alive.probe_request(tracker)
    assert b'"sequence_start": true, "sequence_end": true' in header
    assert b'"shape": [1, 64, 64, 3]' in header
    assert b"clicks" not in header
    assert len(body) == 64 * 64 * 3


async def test_prometheus_sees_that_a_model_hangs_and_that_it_goes_on(repository, tmp_path):
    if not IS_REQUIRED:
        pytest.skip("hangs for a while: make test-deploy")
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = {rule.get("alert"): rule for group in groups for rule in group["rules"]}
    stalled = rules["TouchlineModelStalled"]["expr"].replace("[1m]", "[4s]")
    (tmp_path / "prometheus").mkdir()
    async with serving(repository) as server, InferenceServerClient(server.endpoint) as client:
        targets = {server.metrics_endpoint: {"namespace": "touchline", "pod": "triton-0"}}
        with scraping(tmp_path / "prometheus", targets, "groups: []") as prometheus:
            await ask(client, 0)
            await asyncio.to_thread(prometheus.wait_for, "rate(nv_inference_exec_count[4s])")
            assert prometheus.query(stalled) == []
            asked = [asyncio.create_task(ask(client, seconds)) for seconds in (20, 0, 0)]
            await asyncio.to_thread(prometheus.wait_for, stalled)
            ((labels, _),) = prometheus.query(stalled)
            assert labels == {"namespace": "touchline", "pod": "triton-0", "model": "sleeper"}
            assert not any(one.done() for one in asked)
            await asyncio.gather(*asked)
            await asyncio.to_thread(prometheus.wait_for, f"absent({stalled})")
