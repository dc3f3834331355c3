"""Triton's door to the vision tower: batches of crops in, embeddings out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils
import vision_tower
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
        self._device = f"cuda:{args['model_instance_device_id']}" if is_gpu else "cpu"
        self._tower = vision_tower.load(
            parameters["weights"],
            Path(args["model_repository"]),
            image_size=int(config["input"][0]["dims"][0]),
            width=int(config["output"][0]["dims"][0]),
        ).to(self._device, torch.bfloat16 if is_gpu else torch.float32)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer all requests from one run of the tower."""
        live = [request for request in requests if not request.is_cancelled()]
        answers = iter(self._infer(live))
        return [next(answers) if request in live else _cancelled() for request in requests]

    def _infer(self, requests: list[Any]) -> list[Any]:
        if not requests:
            return []
        crops = [_crops(request) for request in requests]
        try:
            embeddings = self._embed(np.concatenate(crops))
        except RuntimeError as error:  # such as no GPU memory
            pb_utils.Logger.log_error(f"{sum(map(len, crops))} crops failed: {error!r}")
            return [_failed() for _ in requests]
        rows = np.split(embeddings, np.cumsum([len(one) for one in crops])[:-1])
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("embedding", np.ascontiguousarray(row))])
            for row in rows
        ]

    def _embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            embeddings = self._tower(torch.from_numpy(crops).to(self._device))
        return np.asarray(embeddings.cpu().numpy(), np.float32)


def _crops(request: Any) -> NDArray[np.uint8]:
    crops: NDArray[np.uint8] = pb_utils.get_input_tensor_by_name(request, "crops").as_numpy()
    return crops


def _cancelled() -> Any:
    error = pb_utils.TritonError("the client cancelled the request", pb_utils.TritonError.CANCELLED)
    return pb_utils.InferenceResponse(error=error)


def _failed() -> Any:
    error = pb_utils.TritonError(
        "the run failed; see the server's log", pb_utils.TritonError.INTERNAL
    )
    return pb_utils.InferenceResponse(error=error)
