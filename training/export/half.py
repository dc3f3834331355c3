"""A real fp16 graph: weights and computation in fp16, while callers still see uint8 and fp32.

TensorRT 11 has no fp16 switch; an engine computes in the types that its graph states, and
TensorRT 10 does the same when its network is strongly typed. So one graph serves both.

The conversion is onnxruntime's, a public module of a package that we need anyway. rfdetr has one,
too, but as a private function of its TensorRT exporter (`_cast_onnx_to_fp16`); it wants another
package and works on files only. Care that is taken here on top: types are inferred strictly
beforehand, since the converter places its casts by them; what only moves or refines the outputs
stays fp32; and the nodes are put in order, which the converter leaves to its caller.
"""

import onnx
from onnx import ModelProto, NodeProto, TensorProto
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

_HEAVY = {"Conv", "ConvTranspose", "Gemm", "LayerNormalization", "MatMul", "Softmax"}


def to_fp16(model: ModelProto) -> ModelProto:
    """Return the fp16 form of an fp32 graph; the argument is left as it is.

    Weights outside fp16's range become its largest number; the comparison with the fp32 graph
    shows whether that matters.

    Source: onnxruntime 1.31, transformers/float16.py.

    Raises:
        onnx.shape_inference.InferenceError: The graph's types do not fit together.
    """
    typed = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=True
    )
    for index, node in enumerate(typed.graph.node):
        node.name = node.name or f"unnamed_{index}"  # the converter knows nodes by name
    converted = OnnxModel(
        convert_float_to_float16(
            typed,
            keep_io_types=True,
            disable_shape_infer=True,
            op_block_list=DEFAULT_OP_BLOCK_LIST,
            node_block_list=_output_arithmetic(typed),
        )
    )
    _drop_repeated_casts(converted.model)
    _bypass_round_trips(converted.model)
    converted.prune_graph()
    converted.topological_sort()
    half: ModelProto = converted.model
    return half


def _output_arithmetic(model: ModelProto) -> list[str]:
    """Return the names of the nodes between the outputs and the last heavy node before each.

    In RF-DETR that is the arithmetic of boxes. A coordinate between 0.5 and 1 has steps of
    1/2048 in fp16, a third of a pixel at 704, so it costs boxes of small people their precision.
    """
    graph = model.graph
    floats = {
        value.name
        for value in (*graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    producers = {name: node for node in graph.node for name in node.output if name in floats}
    kept: set[str] = set()
    queue = [output.name for output in graph.output]
    while queue:
        node = producers.get(queue.pop())
        if node is not None and node.op_type not in _HEAVY and node.name not in kept:
            kept.add(node.name)
            queue += node.input
    return sorted(kept)


def _drop_repeated_casts(model: ModelProto) -> None:
    """Keep the first of equal Casts: the converter writes one for each fp32 reader of a tensor."""
    nodes: dict[str, NodeProto] = {}
    for node in model.graph.node:
        nodes.setdefault(node.output[0], node)
    del model.graph.node[:]
    model.graph.node.extend(nodes.values())


def _bypass_round_trips(model: ModelProto) -> None:
    """Let a Cast to fp32 read what was there before a Cast to fp16.

    The converter rounds between any two nodes, even where both compute in fp32.
    """
    narrowed = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if _is_cast(node, TensorProto.FLOAT16)
    }
    for node in model.graph.node:
        if _is_cast(node, TensorProto.FLOAT):
            node.input[0] = narrowed.get(node.input[0], node.input[0])


def _is_cast(node: NodeProto, to: int) -> bool:
    return node.op_type == "Cast" and node.attribute[0].i == to
