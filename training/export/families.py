"""The two networks that are exported as ONNX: what they take, give, and how close is close enough.

Every figure is explained in `agreement`. fp32 limits tell a wrong export from a right one; those of
the smaller forms were chosen from what sound conversions of the demo weights measure, with room
for other weights, and far from what damaged ones do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from orchestrator.contracts import RESNET_JERSEY, RFDETR_DETECTOR, ModelContract
from orchestrator.types.pictures import Pixels
from training.errors import InputError
from training.export.agreement import (
    Figures,
    Limits,
    Tensors,
    classifier_agreement,
    detector_agreement,
)
from training.export.inputs import detector_inputs, jersey_inputs
from training.export.precision import Precision


@dataclass(frozen=True, slots=True)
class Family:
    """One network.

    Attributes:
        contract: Its tensors.
        compare: Figures of a candidate's outputs, the second, against the reference's.
        inputs: Cuts pictures into inputs `(n, height, width, 3)` of a side in pixels.
        limits: By precision, what a graph's figures may be against torch's fp32.
    """

    contract: ModelContract
    compare: Callable[[Tensors, Tensors], Figures]
    inputs: Callable[[list[Pixels], int], NDArray[np.uint8]]
    limits: Mapping[Precision, Limits]


def _detector(matched: float, overlap: float, logit_error: float, ap: float) -> Limits:
    return {
        "finite": 1.0,
        "matched": matched,
        "overlap": overlap,
        "logit_error": logit_error,
        "ap": ap,
    }


def _classifier(top1: float, cosine: float, logit_error: float) -> Limits:
    return {"finite": 1.0, "top1": top1, "cosine": cosine, "logit_error": logit_error}


DETECTOR = Family(
    RFDETR_DETECTOR,
    detector_agreement,
    detector_inputs,
    {
        Precision.FP32: _detector(1.0, 0.9999, 1e-4, 0.9999),
        Precision.FP16: _detector(0.98, 0.985, 0.12, 0.98),
        Precision.FP16_STORED: _detector(0.98, 0.985, 0.12, 0.98),
        Precision.INT8: _detector(0.97, 0.97, 0.4, 0.95),
    },
)
"""RF-DETR."""

JERSEY = Family(
    RESNET_JERSEY,
    classifier_agreement,
    lambda pictures, _side: jersey_inputs(pictures),
    {
        Precision.FP32: _classifier(1.0, 0.9999, 1e-4),
        Precision.FP16: _classifier(0.97, 0.999, 0.05),
        Precision.FP16_STORED: _classifier(0.97, 0.999, 0.05),
        Precision.INT8: _classifier(0.94, 0.99, 0.4),
    },
)
"""The multi-head ResNet."""


def family_of(model: ModelProto) -> Family:
    """Return the family whose tensors a graph has, by their names.

    Raises:
        InputError: It is neither's.
    """
    names = {tensor.name for tensor in (*model.graph.input, *model.graph.output)}
    for family in (DETECTOR, JERSEY):
        contract = family.contract
        if names == {spec.name for spec in (*contract.inputs, *contract.outputs)}:
            return family
    raise InputError(
        f"expected the tensors of {DETECTOR.contract.name} or {JERSEY.contract.name}, "
        f"found {sorted(names)}"
    )


def input_side(model: ModelProto) -> int:
    """Return the height in pixels of a graph's pictures."""
    return int(model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)
