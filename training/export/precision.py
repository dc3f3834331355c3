"""The forms that one fp32 graph is written in."""

from enum import StrEnum

from onnx import ModelProto

from training.export.half import to_fp16
from training.export.quantised import to_int8
from training.export.storage import store_fp16


class Precision(StrEnum):
    """What an exported graph stores and computes in; pixels are uint8 and outputs fp32 in all."""

    FP32 = "fp32"
    """As trained: the reference that the others are held against, and what engines start from."""
    FP16 = "fp16"
    """Stored and computed in fp16, for TensorRT."""
    FP16_STORED = "fp16-stored"
    """Stored in fp16, computed in fp32: half the file at the same speed, for CPUs."""
    INT8 = "int8"
    """Weights in int8, activations quantised as they come, for CPUs."""


def converted(model: ModelProto, precision: Precision) -> ModelProto:
    """Return an fp32 graph in another precision, with its metadata; the argument is left as is.

    Raises:
        InputError: A weight does not fit into fp16 storage; names it.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    match precision:
        case Precision.FP32:
            return copy
        case Precision.FP16:
            return to_fp16(copy)
        case Precision.FP16_STORED:
            return store_fp16(copy)
        case Precision.INT8:
            return to_int8(copy)
