"""Export a trained detector to the ONNX graph that the model repository serves.

`python -m training.detector.export CHECKPOINT OUT.onnx --size medium` writes the graph of the
contract in `orchestrator.contracts`: uint8 pixels in, boxes and logits out, normalisation inside.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper
from rfdetr.detr import RFDETR
from torch import nn

from training.detector.checkpoints import SIZES, labels, load
from training.export.storage import store_fp16

OPSET = 17
PROVENANCE = (
    "RF-DETR micro (rfdetr 1.11.2 classes), trained from scratch on rendered Google Research "
    "Football clips by training/detector/train.py; no pretrained weights; Apache-2.0"
)

# Pixel statistics that rfdetr normalises with, in units of uint8.
# Source: rfdetr 1.11.2, datasets/coco.py, Normalize (ImageNet).
_MEAN = 255 * np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
_STD = 255 * np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)

# rfdetr's names of the graph's tensors, and ours.
_UPSTREAM_INPUT = "input"
_OUTPUTS = {"dets": "boxes", "labels": "logits"}


def export(model: RFDETR, out: Path, *, names: list[str], provenance: str) -> None:
    """Write `model` as ONNX; the file appears complete or not at all.

    Args:
        model: A loaded model.
        out: The file to write.
        names: Label of each logit column but the last; kept in the file.
        provenance: Where the weights come from; kept in the file.

    The weights are stored as fp16. They are rounded in `model` too, so that it stays the reference
    for the graph; accuracy is measured on the graph.
    """
    network = _network(model)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.half())
    with tempfile.TemporaryDirectory() as folder:
        upstream = model.export(
            output_dir=folder, dynamic_batch=True, opset_version=OPSET, verbose=False
        )
        graph = onnx.load(upstream)
    graph = _with_outputs_renamed(_with_pixel_input(graph, model.model_config.resolution))
    store_fp16(graph)
    helper.set_model_props(graph, {"labels": ",".join(names), "provenance": provenance})
    onnx.checker.check_model(graph, full_check=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    onnx.save(graph, partial)
    partial.replace(out)


def parity(model: RFDETR, path: Path, images: NDArray[np.uint8]) -> dict[str, float]:
    """Return the largest difference between torch and onnxruntime by output name.

    Args:
        model: The model that was exported.
        path: Its ONNX file.
        images: RGB uint8 `(batch, R, R, 3)`.
    """
    pixels = (images.transpose(0, 3, 1, 2).astype(np.float32) - _MEAN) / _STD
    with torch.inference_mode():
        predicted = _network(model).eval()(torch.from_numpy(pixels))
    expected = {"boxes": predicted["pred_boxes"], "logits": predicted["pred_logits"]}
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = dict(zip(expected, session.run(list(expected), {"image": images}), strict=True))
    return {name: float(np.abs(found[name] - expected[name].numpy()).max()) for name in expected}


def _network(model: RFDETR) -> nn.Module:
    network = model.model.model
    assert network is not None, "the weights were given away by inference(inplace=True)"
    return network


def _with_pixel_input(graph: onnx.ModelProto, side: int) -> onnx.ModelProto:
    """Prepend cast, transposition and normalisation, so that callers send plain pixels."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", side, side, 3])
    normalised = helper.make_tensor_value_info(
        "normalised", TensorProto.FLOAT, ["batch", 3, side, side]
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
    return compose.merge_models(head, graph, io_map=[("normalised", _UPSTREAM_INPUT)])


def _with_outputs_renamed(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Give the outputs the contract's names and the batch its symbolic size."""
    for node in graph.graph.node:
        node.output[:] = [_OUTPUTS.get(name, name) for name in node.output]
        node.input[:] = [_OUTPUTS.get(name, name) for name in node.input]
    for output in graph.graph.output:
        output.name = _OUTPUTS[output.name]
        output.type.tensor_type.shape.dim[0].dim_param = "batch"
    return graph


def main() -> None:
    """Export a checkpoint and print how far the graph is from torch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=SIZES, default="micro")
    parser.add_argument("--labels", help="comma list; default: the names in the checkpoint")
    arguments = parser.parse_args()
    model = load(arguments.size, arguments.checkpoint)
    names = labels(model, given=arguments.labels)
    provenance = PROVENANCE if arguments.size == "micro" else arguments.checkpoint.name
    export(model, arguments.out, names=names, provenance=provenance)
    side = model.model_config.resolution
    noise = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    print(parity(model, arguments.out, noise))  # noqa: T201


if __name__ == "__main__":
    main()
