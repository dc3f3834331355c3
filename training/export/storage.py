"""Half the size for ONNX files: weights stored as fp16, all computation still in fp32."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from training.errors import InputError

_MIN_ELEMENTS = 64  # below this a Cast costs more than it saves


def store_fp16(model: ModelProto) -> ModelProto:
    """Store the large fp32 weights of a graph as fp16 with a Cast back to fp32; in place.

    Runtimes fold these Casts once at load, so speed and the precision of all intermediate values
    stay those of fp32; inputs and outputs keep their types.

    Args:
        model: A graph with its weights as initializers.

    Returns:
        The same object.

    Raises:
        InputError: A weight lies outside the range of fp16, 65504; names it.
    """
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < _MIN_ELEMENTS:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise InputError(f"{weight.name}: expected values within fp16's range of 65504")
        name, stored = weight.name, f"{weight.name}/fp16"
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]  # a node must come after those that feed it
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def restore_fp32(model: ModelProto) -> ModelProto:
    """Undo `store_fp16`, but for the rounding: weights are plain fp32 initializers; in place."""
    stored = {weight.name: weight for weight in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        weight = stored.get(node.input[0]) if node.op_type == "Cast" else None
        if weight is None or weight.data_type != TensorProto.FLOAT16:
            nodes.append(node)
            continue
        values = numpy_helper.to_array(weight).astype(np.float32)
        weight.CopyFrom(numpy_helper.from_array(values, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
