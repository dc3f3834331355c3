"""Triton's door to the tracker: tensors and sequence flags in, tensors and error codes out."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray
from sam2.modeling.sam2_base import SAM2Base
from sam2_streaming.architecture import CompactConfig, load, random_compact
from sam2_streaming.engine import StreamingEngine
from sam2_streaming.requests import InvalidRequestError, StepRequest, StepResult
from sam2_streaming.tracker import SlotsExhaustedError, Tracker, UnknownSequenceError

START, END = 1, 2
"""Bits of `request.flags()`. Source: Triton, `TRITONSERVER_REQUEST_FLAG_SEQUENCE_*`."""

_NO_OBJECTS = StepResult(
    np.empty(0, np.int64), np.empty((0, 4), np.float32), np.empty(0, np.float32), []
)


class CancelledRequestError(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """The `parameters` of the model's configuration.

    Attributes:
        weights: Path relative to the model's directory, or `random` for a load test.
        image_size: Input side for published weights; None for what the weights say.
        mode: `window` or `frame`.
        slots: Most live sequences of one instance.
        ttl_s: Seconds after which an idle sequence is dropped.
        dtype: Of matrix products: `float32`, `bfloat16`, or `auto` for bf16 on a CPU that
            multiplies it in hardware.
        threads: CPU threads of one instance.
    """

    weights: str
    image_size: int | None
    mode: Any
    slots: int
    ttl_s: float
    dtype: torch.dtype
    threads: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Parameters":
        """Read them from a model configuration; KeyError names what is missing."""
        texts = {key: value["string_value"] for key, value in config["parameters"].items()}
        return cls(
            weights=texts["weights"],
            image_size=int(texts["image_size"]) if "image_size" in texts else None,
            mode={"window": "window", "frame": "frame"}[texts["mode"]],
            slots=int(texts["slots"]),
            ttl_s=float(texts["ttl_s"]),
            dtype=_dtype(texts["dtype"]),
            threads=int(texts["threads"]),
        )

    def network(self, model_directory: Path) -> SAM2Base:
        """Build the network and load its weights."""
        if self.weights == "random":
            return random_compact(CompactConfig())
        return load(model_directory / self.weights, self.image_size)


def _dtype(name: str) -> torch.dtype:
    if name == "auto":
        name = "bfloat16" if "amx_bf16" in Path("/proc/cpuinfo").read_text() else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


class Gauge:
    """One number on Triton's metrics page."""

    def __init__(self, name: str, description: str, instance: str, value: float) -> None:
        kind = pb_utils.MetricFamily.GAUGE
        # Triton deletes the gauge with its family: keep it.
        self._family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
        self._metric = self._family.Metric(labels={"instance": instance})
        self.show(value)

    def show(self, value: float) -> None:
        """Set the number."""
        self._metric.set(value)


class TritonPythonModel:
    """One instance; Triton calls it from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the weights; a failure keeps the model from becoming ready."""
        parameters = Parameters.of(json.loads(args["model_config"]))
        torch.set_num_threads(parameters.threads)
        cv2.setNumThreads(parameters.threads)
        is_gpu = args["model_instance_kind"] == "GPU"
        device = f"cuda:{args['model_instance_device_id']}" if is_gpu else "cpu"
        network = parameters.network(Path(args["model_repository"]))
        self._tracker = Tracker(
            StreamingEngine(network, device, parameters.dtype),
            parameters.mode,
            parameters.slots,
            parameters.ttl_s,
            batches_sequences=is_gpu,
        )
        name = args["model_instance_name"]
        self._active = Gauge("sam2_active_sequences", "Live sequences", name, 0)
        self._slots = Gauge("sam2_sequence_slots", "Most live sequences", name, parameters.slots)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself: one bad request never fails the others."""
        opened = [self._open(request) for request in requests]
        steps = [one for one in opened if isinstance(one, StepRequest)]
        outcomes = iter(self._step(steps))
        answers = [next(outcomes) if isinstance(one, StepRequest) else one for one in opened]
        for request in requests:
            if request.flags() & END:
                self._tracker.end(request.correlation_id())
        self._active.show(self._tracker.active_sequences)
        return [_response(answer) for answer in answers]

    def _open(self, request: Any) -> StepRequest | StepResult | Exception:
        """Start the sequence if asked to, and read the tensors."""
        if request.is_cancelled():
            return CancelledRequestError("the client has cancelled this request")
        try:
            if request.flags() & START:
                self._tracker.start(request.correlation_id())
            return _step_request(request)
        except (InvalidRequestError, SlotsExhaustedError) as error:
            return error

    def _step(self, steps: list[StepRequest]) -> list[StepResult | Exception]:
        try:
            return list(self._tracker.step_many(steps))
        except Exception as error:  # noqa: BLE001  such as no GPU memory: sequences are unchanged
            pb_utils.Logger.log_error(f"step of {len(steps)} sequences failed: {error!r}")
            return [RuntimeError("the step failed; see the server's log")] * len(steps)


def _step_request(request: Any) -> StepRequest | StepResult:
    """Read a request; a bare END carries no frame and is answered without objects."""
    frames = [_tensor(request, "frame"), _jpeg_frame(request)]
    sent = [frame for frame in frames if frame is not None]
    if not sent and request.flags() & END:
        return _NO_OBJECTS
    if len(sent) != 1:
        raise InvalidRequestError("frame: expected exactly one of frame and frame_jpeg")
    names = ("prompt_object_ids", "prompt_boxes", "forget_object_ids")
    tensors = {name: _tensor(request, name) for name in names}
    given = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return StepRequest(request.correlation_id(), sent[0], **given)


def _tensor(request: Any, name: str) -> NDArray[Any] | None:
    """An input without its batch dimension, which is 1; None if it was not sent."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    batch: NDArray[Any] = tensor.as_numpy()
    if len(batch) != 1:
        raise InvalidRequestError(f"{name}: expected a batch of 1 per request, got {len(batch)}")
    return batch.squeeze(0)


def _jpeg_frame(request: Any) -> NDArray[np.uint8] | None:
    encoded = _tensor(request, "frame_jpeg")
    if encoded is None:
        return None
    data = np.frombuffer(encoded[0], np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise InvalidRequestError("frame_jpeg: expected a JPEG picture")
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _response(answer: StepResult | Exception) -> Any:
    if isinstance(answer, Exception):
        error = pb_utils.TritonError(str(answer), _code(answer))
        return pb_utils.InferenceResponse(error=error)
    masks = np.array([mask.encode() for mask in answer.masks], np.object_)
    outputs: dict[str, NDArray[Any]] = {
        "object_ids": answer.object_ids,
        "boxes": answer.boxes,
        "scores": answer.scores,
        "masks": masks,
    }
    return pb_utils.InferenceResponse(
        [
            pb_utils.Tensor(name, np.ascontiguousarray(value[None]))
            for name, value in outputs.items()
        ]
    )


def _code(error: Exception) -> Any:
    if isinstance(error, InvalidRequestError):
        return pb_utils.TritonError.INVALID_ARG
    if isinstance(error, SlotsExhaustedError | UnknownSequenceError):
        return pb_utils.TritonError.UNAVAILABLE
    if isinstance(error, CancelledRequestError):
        return pb_utils.TritonError.CANCELLED
    return pb_utils.TritonError.INTERNAL
