"""The builder's own code, run for real: TensorRT-RTX has TensorRT's API and needs no GPU to build.

Running a plan does need one: that test is marked `gpu`.
"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest

from training.__main__ import main
from training.engine.builder import Build, BuildOptions
from training.engine.gate import pass_gate
from training.engine.toolchain import load_tensorrt, this_toolchain
from training.errors import InputError
from training.export.families import JERSEY
from training.export.graph import onnx_runner
from training.export.inputs import read_pictures
from training.export.precision import Precision, converted
from training.export.rtx import load_rtx, target
from training.export.storage import restore_fp32

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "model_repository" / "resnet_jersey" / "weights" / "demo.onnx"
FRAME = ROOT / "tests" / "data" / "frame.jpg"


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx_bindings")
    return load_rtx()


@pytest.fixture(scope="module")
def fp16():
    return converted(restore_fp32(onnx.load(SOURCE)), Precision.FP16)


# TensorRT-RTX takes the calls and times nothing.
@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_a_plan_is_built_with_profile_memory_and_timings(rtx, fp16, tmp_path):
    timings = tmp_path / "timings"
    build = Build(rtx, fp16)
    build.configure(BuildOptions(2, 8, 32, workspace_gib=0.5))
    target(rtx, build, ["80"])
    build.read_timings(timings)
    assert build.config.num_optimization_profiles == 1
    assert build.config.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE) == 1 << 29
    assert len(build.plan()) > 9e6
    build.write_timings(timings)
    assert timings.stat().st_size > 0

    again = Build(rtx, fp16)
    again.read_timings(timings)
    assert [path.name for path in tmp_path.iterdir()] == ["timings"]


@pytest.mark.parametrize("cache", ["of another machine", None])
def test_timings_of_another_machine_are_refused_by_name(rtx, fp16, tmp_path, cache):
    def take(cache, ignore_mismatch):
        if cache is None:
            raise TypeError("incompatible function arguments")
        return False

    build = Build(rtx, fp16)
    build.config = SimpleNamespace(  # what TensorRT answers, which TensorRT-RTX never does
        create_timing_cache=lambda content: cache, set_timing_cache=take
    )
    with pytest.raises(InputError, match="timings: expected timings of this TensorRT version"):
        build.read_timings(tmp_path / "timings")


def test_only_the_batch_may_be_free(rtx, fp16):
    graph = onnx.ModelProto.FromString(fp16.SerializeToString())
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    with pytest.raises(InputError, match="input crops: expected only the batch free"):
        Build(rtx, graph).configure(BuildOptions())


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="needs a machine without a GPU")
def test_what_the_builder_cannot_do_is_told_in_its_own_words(rtx, fp16):
    build = Build(rtx, fp16)
    build.configure(BuildOptions())
    build.config.num_compute_capabilities = 1
    build.config.set_compute_capability(rtx.ComputeCapability.CURRENT, 0)
    with pytest.raises(InputError, match="could not build the engine: .+"):
        build.plan()


def test_a_machine_without_tensorrt_is_told_where_to_go(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    order = ["engine", "build", str(SOURCE), "--output", str(tmp_path), "--pictures", str(FRAME)]
    assert main(order) == 1
    assert "start this command in the TensorRT image" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_old_tensorrt_is_refused(monkeypatch):
    old = ModuleType("tensorrt")
    old.__version__ = "8.6.1"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(InputError, match=r"expected TensorRT 10 or 11, found 8\.6\.1"):
        load_tensorrt()


@pytest.mark.gpu
def test_a_plan_runs_in_any_batch_and_passes_the_gate(fp16):
    pytest.importorskip("tensorrt")
    toolchain = this_toolchain()
    runner = toolchain.run(toolchain.build(fp16, BuildOptions(2, 4, 8)))
    rows = JERSEY.inputs(read_pictures(FRAME, 1), 128)[:11]  # 8, then 3
    reference = onnx_runner(restore_fp32(onnx.load(SOURCE)))
    pass_gate(reference, runner, JERSEY, rows)
    one = runner(rows[:1])
    np.testing.assert_allclose(one["tens"], runner(rows)["tens"][:1], atol=0.05)
