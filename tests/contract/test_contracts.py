"""Everything that is written twice is proven equal: tensor contracts, protobuf stubs, versions."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from orchestrator.contracts import CONTRACTS, SIGLIP_TEXT, ModelContract, TensorSpec
from orchestrator.triton.codec import bind

ROOT = Path(__file__).parents[2]
REPOSITORY = ROOT / "model_repository"
VARIANTS = ("config.pbtxt", "configs/cpu.pbtxt", "configs/sim.pbtxt")
PER_FRAME = [one for one in CONTRACTS if not one.is_sequence and one != SIGLIP_TEXT]
"""siglip_text is asked once per stream; sam2_tracker warms itself: Triton begins no sequence."""
_TYPES = {name: f"TYPE_{name}" for name in ("UINT8", "INT32", "INT64", "FP32", "BOOL")} | {
    "BYTES": "TYPE_STRING"
}


def config(contract: ModelContract, variant: str) -> model_config_pb2.ModelConfig:
    text = (REPOSITORY / contract.name / variant).read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_every_variant_keeps_the_contract(contract, variant):
    live = config(contract, variant)
    assert live.name == contract.name
    assert live.max_batch_size > 0
    sizes: dict[str, int] = {}
    for specs, tensors in ((contract.inputs, live.input), (contract.outputs, live.output)):
        assert [tensor.name for tensor in tensors] == [spec.name for spec in specs]
        for spec, tensor in zip(specs, tensors, strict=True):
            assert model_config_pb2.DataType.Name(tensor.data_type) == _TYPES[spec.dtype], spec.name
            assert bind(spec.dims, tuple(tensor.dims), sizes), (spec, tensor, sizes)
            if specs is contract.inputs:
                assert tensor.optional == spec.is_optional, spec.name
    assert live.HasField("sequence_batching") == contract.is_sequence


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_batching_is_plain(contract, variant):
    # Priorities, queue limits and timeouts inside Triton stall its batcher for up to 500 ms.
    batching = config(contract, variant).dynamic_batching
    assert not batching.priority_levels
    assert not batching.HasField("default_queue_policy")


def test_the_production_variant_runs_on_gpus_and_the_others_on_cpus():
    for contract in CONTRACTS:
        kinds = {
            variant: {
                model_config_pb2.ModelInstanceGroup.Kind.Name(group.kind)
                for group in config(contract, variant).instance_group
            }
            for variant in VARIANTS
        }
        assert kinds == {
            "config.pbtxt": {"KIND_GPU"},
            "configs/cpu.pbtxt": {"KIND_CPU"},
            "configs/sim.pbtxt": {"KIND_CPU"},
        }


@pytest.mark.parametrize("contract", PER_FRAME, ids=lambda contract: contract.name)
def test_a_gpu_is_warm_before_its_first_frame(contract):
    # A first batch that takes seconds would look like a replica that hangs.
    live = config(contract, VARIANTS[0])
    assert live.max_batch_size in {one.batch_size for one in live.model_warmup}
    for warmup in live.model_warmup:
        assert {name: (one.data_type, one.dims) for name, one in warmup.inputs.items()} == {
            tensor.name: (tensor.data_type, tensor.dims) for tensor in live.input
        }


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
def test_the_stand_ins_are_batched_as_in_production(contract):
    production, sim = (config(contract, variant) for variant in (VARIANTS[0], VARIANTS[2]))
    assert sim.max_batch_size == production.max_batch_size
    assert sim.dynamic_batching == production.dynamic_batching
    assert sim.sequence_batching == production.sequence_batching
    assert sim.default_model_filename == "sim.py"


def test_only_models_lie_in_the_repository():
    found = {path.name for path in REPOSITORY.iterdir() if path.is_dir()}
    assert found - {"__pycache__"} == {contract.name for contract in CONTRACTS}


def test_a_changed_dim_is_noticed():
    spec = TensorSpec("boxes", "FP32", ("Q", 4), "")
    assert bind(spec.dims, (100, 4), {})
    assert not bind(spec.dims, (100, 5), {})
    assert not bind(spec.dims, (100, 4), {"Q": 300})


def test_committed_stubs_are_fresh(tmp_path):
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iprotos"]
    command += [
        f"--{kind}_out={tmp_path}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")
    ]
    plugins = Path(sys.executable).parent
    subprocess.run(
        [*command, "soccer/v1/player_recognition.proto"],
        cwd=ROOT,
        env={"PATH": f"{plugins}:/usr/bin:/bin"},
        check=True,
        capture_output=True,
    )
    made = sorted((tmp_path / "soccer/v1").iterdir())
    assert len(made) == 4
    for path in made:
        assert path.read_text() == (ROOT / "protos/soccer/v1" / path.name).read_text(), path.name


def test_numpy_is_of_the_generation_that_triton_s_python_backend_needs():
    lock = (ROOT / "requirements.lock").read_text()
    assert "\nnumpy==1.26" in lock
