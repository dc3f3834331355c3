"""The local cluster with the real tritonserver and one tiny Python model, without any weights."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc.aio import InferenceServerClient, InferInput

import deploy
from deploy.local import ownership, tritonserver
from deploy.local.cluster import LocalCluster
from deploy.local.ports import Ports, free_ports
from deploy.local.triton_wheel import installed_wheel, require_libraries
from deploy.local.tritonserver import TritonServer
from orchestrator.errors import ClusterError
from tests.patience import until

pytestmark = pytest.mark.triton

MODEL = """
import json, os, time
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.mode = parameters["mode"]["string_value"]
        if self.mode == "broken":
            raise ValueError('expected "weights/demo.onnx",\\nfound nothing')
        if self.mode == "hanging":
            time.sleep(600)

    def execute(self, requests):
        return [self.answer(pb_utils.get_input_tensor_by_name(r, "x")) for r in requests]

    def answer(self, x):
        told = np.array([[self.mode, os.environ["OMP_NUM_THREADS"]]], dtype=object)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("y", x.as_numpy() + 1), pb_utils.Tensor("told", told)]
        )
"""

CONFIG = """
backend: "python"
max_batch_size: 1
input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]
output [
  { name: "y" data_type: TYPE_FP32 dims: [ 2 ] },
  { name: "told" data_type: TYPE_STRING dims: [ 2 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "mode" value { string_value: "%s" } }
"""

MakeRepository = Callable[..., Path]


@pytest.fixture
def repository(tmp_path: Path) -> MakeRepository:
    """Write a repository whose models behave as their modes say: plain, broken or hanging."""

    def write(**modes: str) -> Path:
        root = tmp_path / "repository"
        for model, mode in modes.items():
            (root / model / "1").mkdir(parents=True)
            (root / model / "1" / "model.py").write_text(MODEL)
            (root / model / "configs").mkdir()
            (root / model / "configs" / "cpu.pbtxt").write_text(CONFIG % mode)
        return root

    return write


async def ask(endpoint: str, model: str) -> tuple[list[float], list[str]]:
    """Return `y` for x = (1, 2), and what the model tells about itself."""
    x = InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(np.array([[1, 2]], dtype=np.float32))
    async with InferenceServerClient(endpoint) as client:
        result = await client.infer(model, [x])
    told = [value.decode() for value in result.as_numpy("told")[0]]
    return result.as_numpy("y")[0].tolist(), told


def processes_of(name: str) -> list[int]:
    """Ids of the server and model processes of a run; all carry its name in their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if name.encode() in arguments:
            found.append(int(path.parent.name))
    return found


def files_of(name: str) -> list[Path]:
    places = (ownership.SHARED_MEMORY, Path(tempfile.gettempdir()))
    return [path for place in places for path in place.glob(f"{name}*")]


async def test_a_cluster_answers_and_leaves_nothing_behind(repository: MakeRepository) -> None:
    async with LocalCluster(repository=repository(echo="plain"), threads=3) as cluster:
        name = cluster.servers[0].name
        assert await ask(cluster.endpoints["echo"], "echo") == ([2.0, 3.0], ["plain", "3"])
        assert "Started GRPCInferenceService" in cluster.logs["echo"].read_text()
        assert len(processes_of(name)) == 3  # the server, its guard and the model process
        assert any(path.parent == ownership.SHARED_MEMORY for path in files_of(name))
    assert files_of(name) == []
    await until(lambda: not processes_of(name))


async def test_clusters_side_by_side_do_not_disturb_each_other(repository: MakeRepository) -> None:
    root = repository(echo="plain")
    changed = {"echo": {"mode": "changed"}}
    async with LocalCluster(repository=root) as one:
        async with LocalCluster(repository=root, overrides=changed) as other:
            answers = await asyncio.gather(
                ask(one.endpoints["echo"], "echo"), ask(other.endpoints["echo"], "echo")
            )
            assert [told[0] for _, told in answers] == ["plain", "changed"]
        assert await ask(one.endpoints["echo"], "echo") == ([2.0, 3.0], ["plain", "1"])


async def test_split_gives_each_model_a_server_of_its_own(repository: MakeRepository) -> None:
    root = repository(one="plain", two="plain", unwanted="broken")
    async with LocalCluster(repository=root, models=["one", "two"], split=True) as cluster:
        assert set(cluster.endpoints) == set(cluster.metrics_endpoints) == {"one", "two"}
        assert cluster.endpoints["one"] != cluster.endpoints["two"]
        for model, endpoint in cluster.endpoints.items():
            assert (await ask(endpoint, model))[0] == [2.0, 3.0]


@pytest.mark.timeout(60)  # the deadline for the start-up is 120 s, and one model never loads
@pytest.mark.parametrize("split", [False, True])
async def test_a_failing_model_is_reported_at_once_with_its_reason(
    repository: MakeRepository, split: bool
) -> None:
    cluster = LocalCluster(repository=repository(bad="broken", slow="hanging"), split=split)
    with pytest.raises(ClusterError) as failure:
        await cluster.__aenter__()
    assert "model bad failed to load" in str(failure.value)
    assert 'expected "weights/demo.onnx",\nfound nothing' in str(failure.value)
    own_runs = f"touchline-{os.getpid()}-"
    assert files_of(own_runs) == []
    await until(lambda: not processes_of(own_runs))


async def test_a_hanging_start_ends_with_the_log(repository: MakeRepository) -> None:
    server = TritonServer(repository(slow="hanging"), ["slow"], startup_seconds=3)
    with pytest.raises(ClusterError, match=r"(?s)slow was not ready after 3 s.*loading: slow:1"):
        await server.start()
    assert files_of(server.name) == []
    await until(lambda: not processes_of(server.name))


async def test_a_config_that_does_not_parse_is_named(repository: MakeRepository) -> None:
    root = repository(garbled="plain")
    (root / "garbled" / "configs" / "cpu.pbtxt").write_text("max_batch_size: x")
    with pytest.raises(ClusterError, match=r"model garbled failed to load: .*cpu\.pbtxt"):
        await TritonServer(root, ["garbled"]).start()


@pytest.mark.parametrize("kind", Ports._fields)
async def test_a_foreign_server_on_the_port_is_not_mistaken(
    repository: MakeRepository, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    root = repository(echo="plain")
    async with TritonServer(root, ["echo"]) as foreign:
        endpoints = (foreign.http_endpoint, foreign.endpoint, foreign.metrics_endpoint)
        ports = Ports(*(int(endpoint.rpartition(":")[2]) for endpoint in endpoints))
        offered = iter([free_ports()._replace(**{kind: getattr(ports, kind)}), free_ports()])
        monkeypatch.setattr(tritonserver, "free_ports", lambda: next(offered))
        async with TritonServer(root, ["echo"]) as own:
            for endpoint in (own.http_endpoint, own.endpoint, own.metrics_endpoint):
                assert endpoint not in endpoints
                _, writer = await asyncio.open_connection(*endpoint.split(":"))
                writer.close()
            async with InferenceServerClient(own.endpoint) as client:
                assert (await client.get_server_metadata()).name == own.name
        assert next(offered, None) is None


OWNER = """
import asyncio, sys
from pathlib import Path
from deploy.local.tritonserver import TritonServer

async def main():
    server = TritonServer(Path(sys.argv[1]), sys.argv[2:])
    print(server.name, flush=True)
    async with server:
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_nothing_outlives_a_killed_owner(repository: MakeRepository) -> None:
    root = repository(echo="plain", slow="hanging")  # one model process idles, one never answers
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", OWNER, str(root), "echo", "slow"),
        cwd=Path(deploy.__file__).parents[1],
        stdout=asyncio.subprocess.PIPE,
    )
    assert owner.stdout is not None
    name = (await owner.stdout.readline()).decode().strip()
    await until(lambda: len(processes_of(name)) == 4)
    owner.kill()
    await owner.wait()
    await until(lambda: not processes_of(name))
    assert files_of(name)  # nobody was left to remove them
    async with TritonServer(root, ["echo"]):
        assert files_of(name) == []


async def test_an_unknown_model_is_refused(repository: MakeRepository) -> None:
    cluster = LocalCluster(repository=repository(echo="plain"), models=["ehco"])
    with pytest.raises(ClusterError, match="model 'ehco': expected one of echo"):
        await cluster.__aenter__()


def test_a_stub_without_its_libraries_is_refused_by_name(tmp_path: Path) -> None:
    stub = Path(shutil.copy(installed_wheel().stub, tmp_path))  # away from the wheel's libraries
    with pytest.raises(ClusterError, match=r"lacks libcudart-\S+ \(pip install .*nvidia-pytriton"):
        require_libraries(stub, {"PATH": os.environ["PATH"]})


def test_a_missing_libpython_is_named_with_its_debian_package(tmp_path: Path) -> None:
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\nprintf '\\tlibpython3.11.so.1.0 => not found\\n'\n")
    ldd.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with pytest.raises(
        ClusterError, match=r"libpython3\.11\.so\.1\.0 \(apt-get install libpython3"
    ):
        require_libraries(installed_wheel().stub, environment)


def test_free_ports_are_distinct() -> None:
    assert len(set(free_ports())) == 3


async def test_a_model_may_have_replicas_that_come_back_where_they_were(
    repository: MakeRepository,
) -> None:
    root = repository(echo="plain", other="plain")
    async with LocalCluster(repository=root, replicas={"echo": 2}) as cluster:
        assert [len(found) for found in cluster.replica_endpoints.values()] == [1, 2]
        first, second = cluster.replica_endpoints["echo"]
        assert len({first, second, cluster.endpoints["other"]}) == 3
        server = cluster.replicas["echo"][0]
        await server.stop()
        assert (await ask(second, "echo"))[0] == [2.0, 3.0]
        await server.start()
        assert server.endpoint == first
        assert (await ask(first, "echo"))[0] == [2.0, 3.0]
