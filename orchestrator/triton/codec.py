"""numpy arrays to Triton tensors and back, every one checked against its contract."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import InferResult, service_pb2
from tritonclient.utils import deserialize_bytes_tensor, np_to_triton_dtype, triton_to_np_dtype

from orchestrator.contracts import Dim, ModelContract, TensorSpec
from orchestrator.errors import TensorContractError

Tensor = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class LiveModel:
    """What a server said of a model at start.

    Attributes:
        contract: The contract that the model was found to keep.
        sizes: Size of every symbol of the contract, such as `{"R": 416}`.
        parameters: The model's config parameters.
        max_batch_size: Most rows of one request.
        instances: Executions that its server runs at once.
    """

    contract: ModelContract
    max_batch_size: int
    sizes: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    instances: int = 1

    @property
    def is_untrained(self) -> bool:
        """Whether its weights are random, so that its answers mean nothing."""
        return self.parameters.get("weights") == "random"

    def dims(self, spec: TensorSpec) -> tuple[int, ...]:
        """Return the dims of a tensor with every symbol replaced by its size."""
        return tuple(d if isinstance(d, int) else self.sizes[d] for d in spec.dims)


def bind(dims: tuple[Dim, ...], shape: tuple[int, ...], sizes: dict[str, int]) -> bool:
    """Check a live shape against contract dims, binding symbols in `sizes` as they are met."""
    if len(dims) != len(shape):
        return False
    for dim, size in zip(dims, shape, strict=True):
        expected = dim if isinstance(dim, int) else sizes.setdefault(dim, size)
        if expected != size or (isinstance(dim, str) and size < 1):
            return False
    return True


def check(model: LiveModel, name: str, array: Tensor) -> None:
    """Check one batched array against the contract.

    Raises:
        TensorContractError: Unknown tensor, or another dtype or shape; names both.
    """
    contract = model.contract
    try:
        spec = contract.tensor(name)
    except KeyError as error:
        raise TensorContractError(contract.name, str(error.args[0])) from error
    _check(model, spec, array)


def _check(model: LiveModel, spec: TensorSpec, array: Tensor, rows: int = -1) -> None:
    dims = (rows, *model.dims(spec))
    fits = array.ndim == len(dims) and all(
        expected in (-1, size) for expected, size in zip(dims, array.shape, strict=True)
    )
    dtype = np_to_triton_dtype(array.dtype)
    if not fits or dtype != spec.dtype:
        batch = "batch" if rows < 0 else rows
        raise TensorContractError(
            model.contract.name,
            f"tensor {spec.name}: expected {spec.dtype} [{batch}, "
            f"{', '.join(map(str, dims[1:]))}], got {dtype} {list(array.shape)}",
        )


def decode(model: LiveModel, result: InferResult, rows: int) -> dict[str, Tensor]:
    """Return all outputs of a reply as arrays.

    Args:
        model: The model that answered.
        result: Its reply.
        rows: How many rows it was asked about, and must answer.

    Raises:
        TensorContractError: An output is missing or breaks the contract.
    """
    # `InferResult.as_numpy` would walk through all outputs for each of them.
    reply, name = result.get_response(), model.contract.name
    arrays = {
        output.name: _array(name, output, raw)
        for output, raw in zip(reply.outputs, reply.raw_output_contents, strict=False)
    }
    outputs: dict[str, Tensor] = {}
    for spec in model.contract.outputs:
        if spec.name not in arrays:
            raise TensorContractError(name, f"output {spec.name} is missing")
        outputs[spec.name] = array = arrays[spec.name]
        _check(model, spec, array, rows)
    return outputs


def _array(
    model: str, output: service_pb2.ModelInferResponse.InferOutputTensor, raw: bytes
) -> Tensor:
    """View an output's bytes as an array; strings are copied."""
    try:
        if output.datatype == "BYTES":
            strings: Tensor = deserialize_bytes_tensor(raw).reshape(output.shape)
            return strings
        return np.frombuffer(raw, triton_to_np_dtype(output.datatype)).reshape(output.shape)
    except (ValueError, struct.error) as error:
        raise TensorContractError(
            model,
            f"output {output.name}: {len(raw)} bytes are no {output.datatype} {list(output.shape)}",
        ) from error
