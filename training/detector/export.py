"""A trained detector as the ONNX graph that the model repository serves.

The graph is that of the contract in `orchestrator.contracts`: uint8 pixels in, boxes and logits
out, normalisation inside.
"""

import tempfile
import warnings

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, compose, helper, numpy_helper
from rfdetr.detr import RFDETR
from torch import nn

from training.export.agreement import Runner, Tensors
from training.export.graph import BATCH, OPSET

# Pixel statistics that rfdetr normalises with, in units of uint8.
# Source: rfdetr 1.11.2, datasets/coco.py, Normalize (ImageNet).
_MEAN = 255 * np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
_STD = 255 * np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)

# rfdetr's names of the graph's tensors, and ours.
_UPSTREAM_INPUT = "input"
_OUTPUTS = {"dets": "boxes", "labels": "logits"}


def to_onnx(model: RFDETR) -> ModelProto:
    """Return the fp32 graph of the contract, valid for any batch size.

    Args:
        model: A loaded model.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The exporter that needs no further package is deprecated, and it warns of each size that
        # it takes for a constant; all but the batch are.
        warnings.simplefilter("ignore")
        upstream = model.export(
            output_dir=folder, dynamic_batch=True, opset_version=OPSET, verbose=False
        )
        graph = onnx.load(upstream)
    config = model.model_config
    columns = {"boxes": 4, "logits": config.num_classes + 1}
    _name_outputs(graph, {name: [config.num_queries, size] for name, size in columns.items()})
    return _with_pixel_input(graph, config.resolution)


def torch_runner(model: RFDETR, *, batch: int = 4) -> Runner:
    """Return the network itself, run by torch in fp32 on the CPU, `batch` rows at a time."""
    network = _network(model).eval()

    def run(rows: NDArray[np.uint8]) -> Tensors:
        pixels = (rows.transpose(0, 3, 1, 2).astype(np.float32) - _MEAN) / _STD
        with torch.inference_mode():
            parts = [network(part) for part in torch.split(torch.from_numpy(pixels), batch)]
        return {
            name: torch.cat([part[upstream] for part in parts]).numpy()
            for name, upstream in (("boxes", "pred_boxes"), ("logits", "pred_logits"))
        }

    return run


def _network(model: RFDETR) -> nn.Module:
    network = model.model.model
    assert network is not None, "the weights were given away by inference(inplace=True)"
    return network


def _with_pixel_input(graph: ModelProto, side: int) -> ModelProto:
    """Prepend cast, transposition and normalisation, so that callers send plain pixels."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [BATCH, side, side, 3])
    normalised = helper.make_tensor_value_info(
        "normalised", TensorProto.FLOAT, [BATCH, 3, side, side]
    )
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "pixel_mean"], ["centred"]),
        helper.make_node("Div", ["centred", "pixel_std"], ["normalised"]),
    ]
    statistics = [
        numpy_helper.from_array(_MEAN, "pixel_mean"),
        numpy_helper.from_array(_STD, "pixel_std"),
    ]
    head = helper.make_model(
        helper.make_graph(nodes, "pixels", [image], [normalised], initializer=statistics),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=graph.ir_version,
    )
    head = compose.add_prefix(head, "pixels/", rename_inputs=False, rename_outputs=False)
    merged = compose.merge_models(head, graph, io_map=[("normalised", _UPSTREAM_INPUT)])
    del merged.opset_import[1:]  # merging states the same opset twice, which some tools refuse
    return merged


def _name_outputs(graph: ModelProto, sizes: dict[str, list[int]]) -> None:
    """Give the outputs the contract's names and their sizes after the batch; in place."""
    for node in graph.graph.node:
        node.output[:] = [_OUTPUTS.get(name, name) for name in node.output]
        node.input[:] = [_OUTPUTS.get(name, name) for name in node.input]
    named = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *sizes[name]])
        for name in (_OUTPUTS[output.name] for output in graph.graph.output)
    ]
    del graph.graph.output[:]
    graph.graph.output.extend(named)
