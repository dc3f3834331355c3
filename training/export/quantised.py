"""An int8 graph for CPUs: weights quantised once, activations at run time."""

import tempfile
from pathlib import Path

import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata


def to_int8(model: ModelProto) -> ModelProto:
    """Return the dynamically quantised form of an fp32 graph; the argument is left as it is.

    A transformer's matrix products take signed weights, which is the fast form, and its few
    convolutions stay fp32. A convolutional net takes unsigned weights, since onnxruntime has no
    fast signed convolution: it becomes a quarter of the size, but no faster than fp32.

    Source: onnxruntime 1.31, quantization/quantize.py, quantize_dynamic.
    """
    is_transformer = any(node.op_type == "MatMul" for node in model.graph.node)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    opsets = {opset.domain: opset for opset in inferred.opset_import}
    del inferred.opset_import[:]  # ONNX allows to state one twice, the quantiser does not
    inferred.opset_import.extend(opsets.values())
    add_pre_process_metadata(inferred)  # or the quantiser warns that no shapes were inferred
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantize_dynamic(
            inferred,
            path,
            op_types_to_quantize=["MatMul", "Gemm"] if is_transformer else ["Conv", "Gemm"],
            weight_type=QuantType.QInt8 if is_transformer else QuantType.QUInt8,
            per_channel=True,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(path)
