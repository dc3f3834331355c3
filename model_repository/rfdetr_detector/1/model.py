"""Any ONNX graph on the CPU as a Triton model; serves rfdetr_detector and resnet_jersey.

Tensor names, dtypes and dims come from the model's config, and the graph is held against them at
load: a weights file that does not fit its config never becomes ready.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

_ONNX_TYPES = {
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_FP32": "tensor(float)",
}


class TritonPythonModel:
    """One instance; Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph; a failure keeps the model from becoming ready.

        Raises:
            FileNotFoundError: The weights are missing; names the file and where to get it.
            ValueError: The graph does not fit the config; names the tensor or the parameter.
        """
        require_numpy_1()
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        weights = Path(args["model_repository"], parameters["weights"])
        self._session = open_session(weights, int(parameters["threads"]))
        check_tensors(weights, config["input"], self._session.get_inputs())
        check_tensors(weights, config["output"], self._session.get_outputs())
        check_labels(weights, parameters.get("labels"), self._session)
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests from one run of the graph."""
        live = [request for request in requests if not request.is_cancelled()]
        answers = iter(self._infer(live))
        return [next(answers) if request in live else _cancelled() for request in requests]

    def _infer(self, requests: list[Any]) -> list[Any]:
        if not requests:
            return []
        feeds = [[_array(request, name) for request in requests] for name in self._inputs]
        sizes = [len(array) for array in feeds[0]]
        batch = {
            name: np.concatenate(arrays) for name, arrays in zip(self._inputs, feeds, strict=True)
        }
        try:
            results = self._session.run(self._outputs, batch)
        except Exception as error:  # noqa: BLE001  onnxruntime's errors share no other base
            pb_utils.Logger.log_error(f"run of {sum(sizes)} rows failed: {error!r}")
            return [_failed() for _ in requests]
        bounds = np.cumsum(sizes)[:-1]
        columns = [np.split(result, bounds) for result in results]
        return [self._response(rows) for rows in zip(*columns, strict=True)]

    def _response(self, rows: tuple[NDArray[Any], ...]) -> Any:
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor(name, np.ascontiguousarray(row))
                for name, row in zip(self._outputs, rows, strict=True)
            ]
        )


def require_numpy_1() -> None:
    """Refuse numpy 2, with which this Triton's Python backend answers with empty tensors.

    Source: triton-inference-server/python_backend, pull request 384.
    """
    if int(np.__version__.split(".")[0]) >= 2:
        raise RuntimeError(f"expected numpy < 2 in the model's environment, got {np.__version__}")


def open_session(weights: Path, threads: int) -> ort.InferenceSession:
    """Open an ONNX file on the CPU; FileNotFoundError says how to get a missing one."""
    if not weights.is_file():
        raise FileNotFoundError(
            f"{weights}: expected an ONNX file; the one of this repository is described in "
            f"{weights.parent / 'README.md'}, another is chosen by the parameter `weights`"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads that spin would take the cores from the other models of the machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])


def check_tensors(weights: Path, expected: list[dict[str, Any]], found: list[Any]) -> None:
    """Hold the graph's inputs or outputs against those of the config; ValueError if they differ."""
    by_name = {tensor.name: tensor for tensor in found}
    names = sorted(tensor["name"] for tensor in expected)
    if sorted(by_name) != names:
        raise ValueError(f"{weights}: expected the tensors {names}, found {sorted(by_name)}")
    for tensor in expected:
        actual = by_name[tensor["name"]]
        dtype, dims = _ONNX_TYPES[tensor["data_type"]], [int(dim) for dim in tensor["dims"]]
        if actual.type != dtype or not _fits(dims, actual.shape[1:]):
            raise ValueError(
                f"{weights}: tensor {actual.name!r}: expected {dtype} [batch, {dims}] as in the "
                f"config, found {actual.type} {actual.shape}"
            )


def check_labels(weights: Path, expected: str | None, session: ort.InferenceSession) -> None:
    """Hold the parameter `labels` against the labels written into the file, if it has any."""
    found = session.get_modelmeta().custom_metadata_map.get("labels")
    if expected is not None and found is not None and expected != found:
        raise ValueError(
            f"{weights}: was trained for the labels {found!r}, parameter `labels` says {expected!r}"
        )


def _fits(dims: list[int], shape: list[Any]) -> bool:
    """Whether dims equal a graph's shape; a symbolic size fits any."""
    return len(dims) == len(shape) and all(
        not isinstance(size, int) or size == dim for dim, size in zip(dims, shape, strict=True)
    )


def _array(request: Any, name: str) -> NDArray[Any]:
    array: NDArray[Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
    return array


def _cancelled() -> Any:
    error = pb_utils.TritonError("the client cancelled the request", pb_utils.TritonError.CANCELLED)
    return pb_utils.InferenceResponse(error=error)


def _failed() -> Any:
    error = pb_utils.TritonError(
        "the run failed; see the server's log", pb_utils.TritonError.INTERNAL
    )
    return pb_utils.InferenceResponse(error=error)
