"""A trained jersey network as the ONNX graph of the contract in `orchestrator.contracts`."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto

from orchestrator.contracts import JERSEY_CROP
from training.export.agreement import Runner, Tensors
from training.export.graph import BATCH, OPSET
from training.jersey.net import HEADS, JerseyNet


def to_onnx(net: JerseyNet) -> ModelProto:
    """Return the fp32 graph: uint8 `crops` of any batch size in, one output per head."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is deprecated
        file = Path(folder) / "net.onnx"
        torch.onnx.export(
            net.eval(),
            (torch.zeros(2, *JERSEY_CROP, 3, dtype=torch.uint8),),
            str(file),
            input_names=["crops"],
            output_names=list(HEADS),
            dynamic_axes={name: {0: BATCH} for name in ("crops", *HEADS)},
            opset_version=OPSET,
            dynamo=False,
        )
        return onnx.load(file)


def torch_runner(net: JerseyNet, *, batch: int = 64) -> Runner:
    """Return the network itself, run by torch in fp32, `batch` rows at a time."""
    net.eval()

    def run(rows: NDArray[np.uint8]) -> Tensors:
        with torch.inference_mode():
            parts = [net(part) for part in torch.split(torch.from_numpy(rows), batch)]
        heads = zip(*parts, strict=True)
        return {name: torch.cat(part).numpy() for name, part in zip(HEADS, heads, strict=True)}

    return run
