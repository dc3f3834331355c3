"""Triton's door to a tracker: tensors and sequence flags in, tensors and error codes out."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from sam2_streaming.requests import InvalidRequestError, StepRequest, StepResult
from sam2_streaming.slots import SlotsExhaustedError, UnknownSequenceError, Usage

if TYPE_CHECKING:
    from torch import Tensor

DecodeJpeg = Callable[[bytes], "NDArray[np.uint8] | Tensor"]

START, END = 1, 2
"""Bits of `request.flags()`. Source: Triton, `TRITONSERVER_REQUEST_FLAG_SEQUENCE_*`."""

_NO_OBJECTS = StepResult(
    np.empty(0, np.int64),
    np.empty((0, 4), np.float32),
    np.empty(0, np.float32),
    [],
    np.empty(0, np.bool_),
)

_ARRAYS = (
    "prompt_object_ids",
    "prompt_boxes",
    "click_object_ids",
    "clicks",
    "forget_object_ids",
)
"""Inputs that a `StepRequest` takes as they are, under their own names."""


class CancelledRequestError(Exception):
    """Nobody waits for the answer any more."""


class Meter:
    """One number on Triton's metrics page."""

    def __init__(self, kind: Any, name: str, description: str, instance: str) -> None:
        # Triton deletes the number with its family: keep it.
        self._family = pb_utils.MetricFamily(name=name, description=description, kind=kind)
        self._metric = self._family.Metric(labels={"instance": instance})

    def show(self, value: float) -> None:
        """Set the number of a gauge."""
        self._metric.set(value)

    def add(self, count: int) -> None:
        """Let a counter grow."""
        self._metric.increment(count)


class Meters:
    """What one instance tells of itself."""

    def __init__(self, instance: str) -> None:
        gauge, counter = pb_utils.MetricFamily.GAUGE, pb_utils.MetricFamily.COUNTER
        self._active = Meter(gauge, "sam2_active_sequences", "Live sequences", instance)
        self._slots = Meter(gauge, "sam2_sequence_slots", "Most live sequences", instance)
        self._objects = Meter(gauge, "sam2_tracked_objects", "Objects of live sequences", instance)
        self._bytes = Meter(gauge, "sam2_memory_bytes", "Remembered of all objects", instance)
        frames = "frames of objects that were "
        self._observed = Meter(
            counter, "sam2_observed_object_frames", frames + "looked for", instance
        )
        self._predicted = Meter(
            counter, "sam2_predicted_object_frames", frames + "predicted from motion", instance
        )

    def show(self, usage: Usage) -> None:
        """Set the gauges."""
        self._active.show(usage.sequences)
        self._slots.show(usage.slots)
        self._objects.show(usage.objects)
        self._bytes.show(usage.nbytes)

    def count(self, answers: Sequence[StepResult | Exception]) -> None:
        """Let the counters grow by what was answered."""
        results = [answer for answer in answers if isinstance(answer, StepResult)]
        observed = sum(int(result.observed.sum()) for result in results)
        self._observed.add(observed)
        self._predicted.add(sum(len(result.observed) for result in results) - observed)


class FollowsSequences(Protocol):
    """What the door needs of a tracker; see `sam2_streaming.tracker.Tracker`."""

    def usage(self) -> Usage:
        """Return how many sequences and objects live, and their size."""

    def start(self, sequence_id: int) -> None:
        """Open a sequence; SlotsExhaustedError if all slots are taken."""

    def end(self, sequence_id: int) -> None:
        """Free everything of a sequence; unknown ones are ignored."""

    def step_many(self, requests: Sequence[StepRequest]) -> Sequence[StepResult | Exception]:
        """Step distinct sequences by one frame each; an error leaves its sequence as it was."""


class Door:
    """Serves a tracker as one model instance; Triton calls it from one thread.

    Args:
        tracker: Follows the objects.
        decode_jpeg: Turns a picture into pixels; raises `InvalidRequestError`.
        instance: Name of the instance, for its metrics.
    """

    def __init__(self, tracker: FollowsSequences, decode_jpeg: DecodeJpeg, instance: str) -> None:
        self._tracker = tracker
        self._decode_jpeg = decode_jpeg
        self._meters = Meters(instance)
        self._meters.show(tracker.usage())

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself: one bad request never fails the others."""
        opened = [self._open(request) for request in requests]
        steps = [one for one in opened if isinstance(one, StepRequest)]
        outcomes = iter(self._step(steps))
        answers = [next(outcomes) if isinstance(one, StepRequest) else one for one in opened]
        for request, answer in zip(requests, answers, strict=True):
            self._close(request, answer)
        self._meters.count(answers)
        self._meters.show(self._tracker.usage())
        return [_response(answer) for answer in answers]

    def _open(self, request: Any) -> StepRequest | StepResult | Exception:
        """Start the sequence if asked to, and read the tensors."""
        if request.is_cancelled():
            return CancelledRequestError("the client has cancelled this request")
        try:
            if request.flags() & START:
                self._tracker.start(request.correlation_id())
            return _step_request(request, self._decode_jpeg)
        except (InvalidRequestError, SlotsExhaustedError) as error:
            return error

    def _close(self, request: Any, answer: StepResult | Exception) -> None:
        """End the sequence if asked to, or if its very START has failed: nobody would end it."""
        has_failed = isinstance(answer, Exception)
        if request.flags() & END or (request.flags() & START and has_failed):
            self._tracker.end(request.correlation_id())

    def _step(self, steps: list[StepRequest]) -> list[StepResult | Exception]:
        try:
            return list(self._tracker.step_many(steps))
        except Exception as error:  # noqa: BLE001  such as no GPU memory: sequences are unchanged
            pb_utils.Logger.log_error(f"step of {len(steps)} sequences failed: {error!r}")
            return [RuntimeError("the step failed; see the server's log")] * len(steps)


def _step_request(request: Any, decode_jpeg: DecodeJpeg) -> StepRequest | StepResult:
    """Read a request; a bare END carries no frame and is answered without objects."""
    frame, encoded = _tensor(request, "frame"), _tensor(request, "frame_jpeg")
    if frame is None and encoded is None and request.flags() & END:
        return _NO_OBJECTS
    if (frame is None) == (encoded is None):
        raise InvalidRequestError("frame: expected exactly one of frame and frame_jpeg")
    arrays = {name: _tensor(request, name) for name in _ARRAYS}
    given: dict[str, Any] = {name: array for name, array in arrays.items() if array is not None}
    masks, most = _tensor(request, "prompt_masks"), _tensor(request, "max_observed")
    if masks is not None:
        given["prompt_masks"] = tuple(masks.tolist())
    if most is not None:
        given["max_observed"] = int(most[0])
    pixels: Any = frame if encoded is None else decode_jpeg(encoded[0])
    return StepRequest(request.correlation_id(), pixels, **given)


def _tensor(request: Any, name: str) -> NDArray[Any] | None:
    """An input without its batch dimension, which is 1; None if it was not sent."""
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    batch: NDArray[Any] = tensor.as_numpy()
    if len(batch) != 1:
        raise InvalidRequestError(f"{name}: expected a batch of 1 per request, got {len(batch)}")
    return batch.squeeze(0)


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
        "observed": answer.observed,
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
