"""A graph that is invalid or breaks its contract is refused before it becomes a file."""

import onnx
import pytest
from onnx import TensorProto, helper

from orchestrator.contracts import ModelContract, TensorSpec
from training.errors import InputError
from training.export.graph import OPSET, check_graph, read_graph

CONTRACT = ModelContract(
    "toy",
    inputs=(TensorSpec("image", "UINT8", ("R", "R", 3), ""),),
    outputs=(TensorSpec("mean", "FP32", ("R", 3), ""),),
)


def toy(*, name="mean", dims=(8, 8, 3), batch="batch", dtype=TensorProto.FLOAT, opset=OPSET):
    """Mean over the first spatial axis of a picture."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=dtype),
        helper.make_node("ReduceMean", ["pixels"], [name], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, *dims])],
        [helper.make_tensor_value_info(name, dtype, [batch, *dims[1:]])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def test_a_graph_that_keeps_its_contract_passes():
    check_graph(toy(), CONTRACT)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (toy(name="average"), r"expected the tensors \['mean'\], found \['average'\]"),
        (toy(dims=(8, 6, 3)), r"'image': expected UINT8 \['batch', 'R', 'R', 3\], found UINT8"),
        (toy(dims=(8, 8, 4)), "'image': expected UINT8"),
        (toy(batch=2), "'image': expected UINT8"),
        (toy(dtype=TensorProto.FLOAT16), "'mean': expected FP32 .* found FLOAT16"),
        (toy(opset=16), r"expected opset 17, found \[16\]"),
    ],
)
def test_a_broken_contract_is_refused_by_the_tensor_s_name(graph, message):
    with pytest.raises(InputError, match=message):
        check_graph(graph, CONTRACT)


def test_a_graph_whose_types_do_not_fit_is_refused():
    graph = toy()
    graph.graph.node[0].attribute[0].i = TensorProto.FLOAT16
    with pytest.raises(InputError, match="toy: the graph is not valid"):
        check_graph(graph, CONTRACT)


def test_a_file_that_is_no_graph_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.onnx: expected an ONNX file"):
        read_graph(tmp_path / "none.onnx")
    text = tmp_path / "text.onnx"
    text.write_text("not a graph")
    with pytest.raises(InputError, match=r"text\.onnx: expected an ONNX file"):
        read_graph(text)


def test_a_graph_is_read_as_written(tmp_path):
    onnx.save(toy(), tmp_path / "toy.onnx")
    assert read_graph(tmp_path / "toy.onnx") == toy()
