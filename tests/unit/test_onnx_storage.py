"""Weights stored as fp16: half the file, the same graph to its callers."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from training.errors import InputError
from training.export.storage import store_fp16

RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(0, 0.1, (256, 128)).astype(np.float32)
BIAS = RNG.normal(0, 0.1, 8).astype(np.float32)


def linear(weight=WEIGHT, bias=BIAS[:1]):
    """y = x @ weight + bias"""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["y"]),
        ],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", weight.shape[1]])],
        initializer=[
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(bias, "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model, x):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["y"], {"x": x})[0]


def test_the_file_halves():
    assert store_fp16(linear()).ByteSize() < 0.52 * linear().ByteSize()


def test_only_the_weights_are_rounded_and_not_what_is_computed():
    x = RNG.normal(0, 1, (4, 256)).astype(np.float32)
    expected = x @ WEIGHT.astype(np.float16).astype(np.float32) + BIAS[:1]
    found = run(store_fp16(linear()), x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_graph_stays_valid():
    model = store_fp16(linear())
    onnx.checker.check_model(model, full_check=True)
    assert [tensor.name for tensor in model.graph.input] == ["x"]
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_small_weights_and_other_types_stay_as_they_are():
    model = linear()
    model.graph.initializer.append(numpy_helper.from_array(np.arange(500), "indices"))
    store_fp16(model)
    kept = {weight.name: weight.data_type for weight in model.graph.initializer}
    assert kept == {
        "weight/fp16": TensorProto.FLOAT16,
        "bias": TensorProto.FLOAT,
        "indices": TensorProto.INT64,
    }


def test_a_weight_out_of_range_is_refused_by_name():
    weight = WEIGHT.copy()
    weight[3, 4] = 1e6
    with pytest.raises(InputError, match="weight: expected values within"):
        store_fp16(linear(weight))
