"""What TensorRT's strongly typed parser takes and refuses, asked of TensorRT-RTX without a GPU."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from training.errors import InputError
from training.export.precision import Precision, converted
from training.export.rtx import CAPABILITIES, check, check_model, load_rtx
from training.export.storage import restore_fp32

MODELS = Path(__file__).parents[2] / "model_repository"
NAMES = ["rfdetr_detector", "resnet_jersey"]


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx_bindings")
    return load_rtx()


def demo(name):
    return MODELS / name / "weights" / "demo.onnx"


def fp16(name):
    return converted(restore_fp32(onnx.load(demo(name))), Precision.FP16)


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_graphs_are_taken(rtx, name):
    assert check(demo(name)).layers > 50


def test_the_jersey_net_in_fp16_compiles_for_every_gpu(rtx):
    report = check_model(rtx, fp16("resnet_jersey"), CAPABILITIES)
    assert 9e6 < report.plan_bytes < 15e6  # 9.8 MB of weights in fp16


def test_the_detector_in_fp16_compiles_for_every_gpu(rtx):
    report = check_model(rtx, fp16("rfdetr_detector"), CAPABILITIES)
    assert report.layers > 1000
    assert report.plan_bytes > 3.8e6


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_that_is_cast_naively_is_refused(rtx, name, tmp_path):
    graph = restore_fp32(onnx.load(demo(name)))
    for weight in graph.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    path = tmp_path / "naive.onnx"
    onnx.save(graph, path)
    with pytest.raises(InputError, match=r"naive\.onnx: tensorrt_rtx_bindings refuses the graph"):
        check(path)


def test_a_machine_without_the_package_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_libs", None)
    with pytest.raises(InputError, match="needs the packages tensorrt-rtx-cu13-libs"):
        load_rtx()
