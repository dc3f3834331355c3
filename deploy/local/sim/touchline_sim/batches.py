"""What the stateless stand-ins share: requests joined to one batch, answered at a GPU's pace."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from touchline_sim.pace import Pace

Answer = Callable[[NDArray[Any]], Mapping[str, NDArray[Any]]]
"""Answers the rows of one request, by output name."""


def answer_all(requests: list[Any], name: str, answer: Answer, pace: Pace) -> list[Any]:
    """Answer all requests of one execution.

    Args:
        requests: From Triton.
        name: The model's one input.
        answer: Makes the outputs of one request.
        pace: Time of the execution by its number of rows; cancelled requests cost none.
    """
    began = time.monotonic()
    batches = [None if request.is_cancelled() else _rows(request, name) for request in requests]
    answers = [_cancelled() if rows is None else _response(answer(rows)) for rows in batches]
    pace.wait(began, sum(len(rows) for rows in batches if rows is not None))
    return answers


def _rows(request: Any, name: str) -> NDArray[Any]:
    rows: NDArray[Any] = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
    return rows


def _response(outputs: Mapping[str, NDArray[Any]]) -> Any:
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(name, np.ascontiguousarray(value)) for name, value in outputs.items()]
    )


def _cancelled() -> Any:
    error = pb_utils.TritonError("the client cancelled the request", pb_utils.TritonError.CANCELLED)
    return pb_utils.InferenceResponse(error=error)
