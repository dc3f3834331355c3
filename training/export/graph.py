"""What every exported graph must be: valid ONNX of the pinned opset that keeps its contract."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto
from onnx.external_data_helper import uses_external_data

from orchestrator.contracts import Dim, ModelContract, TensorSpec
from training.errors import InputError
from training.export.agreement import Runner, Tensors

OPSET = 17
"""The newest with which every runtime that we serve on, TensorRT 10 included, is at home."""

BATCH = "batch"
"""Name of the one size that is free."""

_DTYPES = {"UINT8": TensorProto.UINT8, "FP32": TensorProto.FLOAT}


def read_graph(path: Path) -> ModelProto:
    """Read an ONNX file.

    Raises:
        InputError: The file is missing, is no ONNX, or keeps weights in another file, which the
            sha256 that files and engines are known by would not cover; names it.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected an ONNX file")
    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise InputError(f"{path}: expected an ONNX file: {error}") from error
    if any(map(uses_external_data, model.graph.initializer)):
        raise InputError(f"{path}: expected one file with all weights in it")
    return model


def check_graph(model: ModelProto, contract: ModelContract) -> None:
    """Hold a graph against ONNX itself and against its contract.

    Raises:
        InputError: The graph is invalid, its shapes do not infer, its opset is not `OPSET`, or a
            tensor is not as in the contract; names it.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"{contract.name}: the graph is not valid: {error}") from error
    opsets = {entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")}
    if opsets != {OPSET}:
        raise InputError(f"{contract.name}: expected opset {OPSET}, found {sorted(opsets)}")
    symbols: dict[str, int] = {}
    _check_tensors(contract.inputs, model.graph.input, symbols)
    _check_tensors(contract.outputs, model.graph.output, symbols)


def _check_tensors(
    specs: tuple[TensorSpec, ...], tensors: Iterable[ValueInfoProto], symbols: dict[str, int]
) -> None:
    found = {tensor.name: tensor for tensor in tensors}
    names = [spec.name for spec in specs]
    if sorted(found) != sorted(names):
        raise InputError(f"expected the tensors {names}, found {sorted(found)}")
    for spec in specs:
        tensor = found[spec.name].type.tensor_type
        dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        if tensor.elem_type != _DTYPES[spec.dtype] or not _fits(spec.dims, dims, symbols):
            dtype = TensorProto.DataType.Name(tensor.elem_type)
            raise InputError(
                f"tensor {spec.name!r}: expected {spec.dtype} {[BATCH, *spec.dims]}, "
                f"found {dtype} {dims}"
            )


def _fits(expected: tuple[Dim, ...], dims: list[Any], symbols: dict[str, int]) -> bool:
    """Whether sizes are as expected; equal symbols stand for equal sizes."""
    if len(dims) != 1 + len(expected) or dims[0] != BATCH:
        return False
    return all(
        isinstance(found, int)
        and found > 0
        and found == (symbols.setdefault(dim, found) if isinstance(dim, str) else dim)
        for dim, found in zip(expected, dims[1:], strict=True)
    )


def onnx_runner(model: ModelProto, *, batch: int = 4) -> Runner:
    """Return the graph run by onnxruntime on one CPU thread, `batch` rows at a time."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    pixels, outputs = session.get_inputs()[0].name, [one.name for one in session.get_outputs()]

    def run(rows: NDArray[np.uint8]) -> Tensors:
        parts = [
            session.run(outputs, {pixels: rows[start : start + batch]})
            for start in range(0, len(rows), batch)
        ]
        return {
            name: np.concatenate(part)
            for name, part in zip(outputs, zip(*parts, strict=True), strict=True)
        }

    return run
