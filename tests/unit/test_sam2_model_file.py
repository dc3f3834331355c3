"""What Triton's instance of the tracker sets up before it looks at anything."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch

MODEL = Path(__file__).parents[2] / "model_repository" / "sam2_tracker"
PARAMETERS = {
    "weights": "random", "mode": "window", "context": "2.0", "rest_frames": "1",
    "max_observed": "0", "min_memory_score": "0", "slots": "1", "ttl_s": "60",
    "dtype": "bfloat16", "threads": "1",
}  # fmt: skip


class ReachedError(Exception):
    """The engine would be built now, on a device that may not be there."""


@pytest.fixture
def triton_model(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", SimpleNamespace())
    for name in ("sam2_streaming.serving", "sam2_streaming.meters"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location("sam2_model", MODEL / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    monkeypatch.setattr(cv2, "setNumThreads", lambda count: None)
    yield module
    for name in ("sam2_streaming.serving", "sam2_streaming.meters"):
        sys.modules.pop(name, None)


def arguments(kind, device_id):
    texts = {key: {"string_value": text} for key, text in PARAMETERS.items()}
    return {
        "model_config": json.dumps({"parameters": texts}),
        "model_repository": str(MODEL),
        "model_instance_name": "sam2_tracker_0_0",
        "model_instance_kind": kind,
        "model_instance_device_id": device_id,
    }


@pytest.mark.parametrize(
    ("kind", "expected"), [("GPU", ("cuda:1", ["cuda:1"], True)), ("CPU", ("cpu", [], False))]
)
def test_an_instance_keeps_to_its_own_gpu_and_to_repeatable_kernels(
    monkeypatch, triton_model, kind, expected
):
    chosen, cudnn = [], torch.backends.cudnn
    monkeypatch.setattr(cudnn, "deterministic", False)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    def build(network, device, *rest):
        # sam2 has made its tables by now, on whatever GPU was current.
        raise ReachedError(device, list(chosen), cudnn.deterministic)

    monkeypatch.setattr(triton_model, "StreamingEngine", build)
    with pytest.raises(ReachedError) as built:
        triton_model.TritonPythonModel().initialize(arguments(kind, "1"))
    assert built.value.args == expected


@pytest.mark.parametrize(("kind", "expected"), [("GPU", ["starts", "follows"]), ("CPU", [])])
def test_a_gpu_is_warm_before_the_first_stream(monkeypatch, triton_model, kind, expected):
    looked = []

    class OnTheCpu(triton_model.StreamingEngine):
        def __init__(self, network, device, *rest):
            super().__init__(network, "cpu", *rest)

        def step(self, images, targets, resolve):
            looked.append("follows" if targets[0].memory else "starts")
            return super().step(images, targets, resolve)

    def serve(*_):
        raise ReachedError

    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(triton_model, "StreamingEngine", OnTheCpu)
    monkeypatch.setattr(triton_model, "Door", serve)
    with pytest.raises(ReachedError):
        triton_model.TritonPythonModel().initialize(arguments(kind, "0"))
    assert looked == expected
