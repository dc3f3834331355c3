"""Triton's door to the text tower: UTF-8 descriptions in, embeddings out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import text_tower
import torch
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray


class TritonPythonModel:
    """One instance; Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the weights; a failure keeps the model from becoming ready."""
        # Under numpy 2 this Triton's Python backend answers with empty tensors, in silence.
        if int(np.__version__.split(".")[0]) >= 2:
            raise RuntimeError(
                f"expected numpy < 2 in the model's environment, got {np.__version__}"
            )
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        torch.set_num_threads(int(parameters["threads"]))
        is_gpu = args["model_instance_kind"] == "GPU"
        device = f"cuda:{args['model_instance_device_id']}" if is_gpu else "cpu"
        self._tower = text_tower.load(
            parameters["weights"],
            Path(args["model_repository"]),
            width=int(config["output"][0]["dims"][0]),
        ).to(device, torch.bfloat16 if is_gpu else torch.float32)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests from one run of the tower; a bad text fails its own request only."""
        opened = [_open(request) for request in requests]
        batches = [one for one in opened if isinstance(one, list)]
        answers = iter(self._infer(batches))
        return [next(answers) if isinstance(one, list) else _refused(one) for one in opened]

    def _infer(self, batches: list[list[str]]) -> list[Any]:
        if not batches:
            return []
        try:
            embeddings = self._embed([text for batch in batches for text in batch])
        except RuntimeError as error:  # such as no GPU memory
            pb_utils.Logger.log_error(f"{sum(map(len, batches))} texts failed: {error!r}")
            failure = pb_utils.TritonError(
                "the run failed; see the server's log", pb_utils.TritonError.INTERNAL
            )
            return [_refused(failure) for _ in batches]
        rows = np.split(embeddings, np.cumsum([len(batch) for batch in batches])[:-1])
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("embedding", np.ascontiguousarray(row))])
            for row in rows
        ]

    def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(self._tower.embed(texts).cpu().numpy(), np.float32)


def _open(request: Any) -> Any:
    """Read a request's texts, or return the error that answers it."""
    if request.is_cancelled():
        return pb_utils.TritonError(
            "the client cancelled the request", pb_utils.TritonError.CANCELLED
        )
    rows = pb_utils.get_input_tensor_by_name(request, "text").as_numpy()
    try:
        return [row[0].decode() for row in rows]
    except UnicodeDecodeError as error:
        return pb_utils.TritonError(
            f"text: expected UTF-8, {error}", pb_utils.TritonError.INVALID_ARG
        )


def _refused(error: Any) -> Any:
    return pb_utils.InferenceResponse(error=error)
