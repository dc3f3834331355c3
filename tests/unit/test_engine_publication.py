"""An engine is published whole, once, and only through the gate.

The toolchain of these tests "compiles" a graph into its own bytes and runs them in onnxruntime, so
that all that surrounds TensorRT is exercised with real weights and without a GPU.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from training.__main__ import main
from training.checksum import sha256_of
from training.engine import publication
from training.engine.builder import BuildOptions
from training.engine.gate import GateError
from training.engine.publication import build_engine
from training.engine.store import read_manifest, verify
from training.engine.toolchain import Machine, Toolchain
from training.errors import InputError
from training.export.graph import onnx_runner
from training.export.inputs import read_pictures
from training.export.precision import Precision, converted
from training.export.storage import restore_fp32

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "model_repository" / "resnet_jersey" / "weights" / "demo.onnx"
MACHINE = Machine(tensorrt="11.4.0.106", gpu="NVIDIA L4", capability="89")


def compiled(graph, options):
    return graph.SerializeToString()


def run(plan):
    return onnx_runner(ModelProto.FromString(plan))


def damaged(graph, options):
    weight = next(w for w in graph.graph.initializer if w.name.startswith("onnx::Conv"))
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(numpy_helper.from_array(np.zeros_like(values), weight.name))
    return graph.SerializeToString()


@pytest.fixture
def build(tmp_path):
    pictures = read_pictures(ROOT / "tests" / "data" / "frame.jpg", 1)

    def one(
        *, compiler=compiled, precision=Precision.FP16, source=SOURCE, machine=MACHINE, **options
    ):
        toolchain = Toolchain(machine, compiler, run)
        root = tmp_path / "engines"
        return build_engine(source, root, precision, BuildOptions(**options), pictures, toolchain)

    return one


def test_a_sound_engine_is_published_with_its_provenance(build):
    folder = build(max_batch=64)
    assert folder.name == f"{sha256_of(SOURCE)[:16]}-trt11.4.0.106-sm89"
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.plan"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["model"] == "resnet_jersey"
    assert manifest["onnx_sha256"] == sha256_of(SOURCE)
    assert manifest["plan_sha256"] == sha256_of(folder / "model.plan")
    assert manifest["machine"] == MACHINE.model_dump()
    assert manifest["profile"] == {"min": 1, "opt": 8, "max": 64}
    assert manifest["options"] == {"strongly_typed": True, "workspace_gib": None}
    assert manifest["figures"]["tens.top1"] == 1.0
    assert manifest["thresholds"]["top1"] == 0.97
    assert verify(folder, MACHINE).precision == "fp16"


def test_the_engine_is_built_from_the_graph_in_the_precision_asked_for(build):
    plan = ModelProto.FromString((build() / "model.plan").read_bytes())
    assert TensorProto.FLOAT16 in {weight.data_type for weight in plan.graph.initializer}


def test_a_damaged_engine_is_refused_and_nothing_is_published(build, tmp_path):
    with pytest.raises(GateError, match=r"resnet_jersey: the engine is refused.*tens\.logit_error"):
        build(compiler=damaged)
    assert not (tmp_path / "engines").exists()


def test_the_same_order_again_builds_nothing(build):
    folder = build()

    def must_not_run(graph, options):
        raise AssertionError("built twice")

    assert build(compiler=must_not_run) == folder


def test_another_order_does_not_overwrite_and_is_told_what_differs(build):
    before = (build() / "manifest.json").read_bytes()
    for other, told in (
        ({"max_batch": 48}, r"profile \{.*'max': 32\}, not \{.*'max': 48\}"),
        ({"precision": Precision.FP32}, "precision fp16, not fp32"),
        ({"workspace_gib": 2.0}, "options .*None.*, not .*2.0"),
        (
            {"machine": MACHINE.model_copy(update={"gpu": "NVIDIA L40S"})},
            "machine .*L4'.* not .*L40S",
        ),
    ):
        with pytest.raises(InputError, match=f"holds an engine of this graph with {told}"):
            build(**other)
    assert (build() / "manifest.json").read_bytes() == before


def test_an_engine_that_would_not_pass_todays_gate_is_not_taken_for_built(build, monkeypatch):
    folder = build()
    error = read_manifest(folder).figures["tens.logit_error"]
    narrow = {**read_manifest(folder).thresholds, "logit_error": error / 2}
    monkeypatch.setattr(publication, "thresholds", lambda _family: narrow)
    with pytest.raises(InputError, match=r"with .*tens\.logit_error .*, at most"):
        build()


def test_an_fp16_graph_is_no_reference(build, tmp_path):
    half = tmp_path / "half.onnx"
    onnx.save(converted(restore_fp32(onnx.load(SOURCE)), Precision.FP16), half)
    with pytest.raises(InputError, match=r"half\.onnx: expected the fp32 graph"):
        build(source=half)


def test_a_graph_whose_weights_lie_in_another_file_is_refused(build, tmp_path):
    split = tmp_path / "split.onnx"
    onnx.save(restore_fp32(onnx.load(SOURCE)), split, save_as_external_data=True, location="data")
    with pytest.raises(InputError, match=r"split\.onnx: expected one file with all weights"):
        build(source=split)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_engine_that_cannot_be_written_leaves_nothing(build, tmp_path, monkeypatch, error):
    def fail(*places):
        raise error

    monkeypatch.setattr("training.engine.store.os.rename", fail)
    with pytest.raises((InputError, KeyboardInterrupt)):
        build()
    assert list((tmp_path / "engines").iterdir()) == []


def test_a_tampered_and_a_missing_plan_are_refused(build):
    plan = build() / "model.plan"
    plan.write_bytes(plan.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"model\.plan: expected sha256 .* found"):
        verify(plan.parent, None)
    plan.unlink()
    with pytest.raises(InputError, match=r"model\.plan: expected sha256 .* found no file"):
        verify(plan.parent, None)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tensorrt": "10.13.3.9"}, "built for tensorrt 11.4.0.106, this machine has 10.13.3.9"),
        ({"capability": "90"}, "built for capability 89, this machine has 90"),
    ],
)
def test_an_engine_for_another_machine_is_refused(build, changed, message):
    with pytest.raises(InputError, match=message):
        verify(build(), MACHINE.model_copy(update=changed))


def test_a_renamed_folder_and_a_broken_manifest_are_refused(build, tmp_path):
    folder = build()
    moved = folder.rename(tmp_path / "engine")
    with pytest.raises(InputError, match="expected the name"):
        verify(moved, None)
    manifest = moved / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"precision"', '"precise"'))
    with pytest.raises(InputError, match=r"manifest\.json: field prec"):
        read_manifest(moved)
    manifest.unlink()
    with pytest.raises(InputError, match="expected the manifest of an engine"):
        read_manifest(moved)


def test_the_command_verifies_files_without_a_gpu(build, capsys):
    folder = build()
    assert main(["engine", "verify", "--files-only", str(folder)]) == 0
    assert "resnet_jersey in fp16, sound" in capsys.readouterr().out
    (folder / "model.plan").write_bytes(b"half")
    assert main(["engine", "verify", "--files-only", str(folder)]) == 1
    assert "expected sha256" in capsys.readouterr().err


def test_batches_out_of_order_are_refused():
    for wrong in ({"min_batch": 0}, {"opt_batch": 64}, {"min_batch": 16}):
        with pytest.raises(InputError, match="expected 1 <= min <= opt <= max"):
            BuildOptions(**wrong)
    with pytest.raises(InputError, match="more than 0 GiB"):
        dataclasses.replace(BuildOptions(), workspace_gib=0)
    with pytest.raises(InputError, match="more than 0 GiB"):
        dataclasses.replace(BuildOptions(), workspace_gib=float("nan"))
