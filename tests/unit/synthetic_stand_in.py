"""A YOLOX that sees the same person in every window, for tests of what is done with its answers."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 64
CELLS = 8 * 8 + 4 * 4 + 2 * 2


def write_stand_in(path: Path) -> Path:
    """Write one that sees a person of 16 x 32 px about (20, 36) of a 64 px window, score 0.72."""
    raw = np.zeros((1, CELLS, 85), np.float32)
    cell = 4 * 8 + 2  # row 4, column 2 of stride 8
    raw[0, cell, :4] = 0.5, 0.5, np.log(16 / 8), np.log(32 / 8)
    raw[0, cell, 4:6] = 0.9, 0.8
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, CELLS, 85])
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["zero"]),
        helper.make_node("Add", ["raw", "zero"], ["output"]),
    ]
    constants = [
        numpy_helper.from_array(raw, "raw"),
        numpy_helper.from_array(np.float32(0), "nothing"),
    ]
    graph = helper.make_graph(nodes, "yolox", [images], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
