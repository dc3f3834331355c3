"""Triton's door to a tracker: tensors and sequence flags in, tensors and error codes out."""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from sam2_streaming.meters import Meters
from sam2_streaming.requests import InvalidRequestError, StepRequest, StepResult
from sam2_streaming.slots import SlotsExhaustedError, UnknownSequenceError, Usage

if TYPE_CHECKING:
    from torch import Tensor

DecodeJpeg = Callable[[bytes], "NDArray[np.uint8] | Tensor"]

START, END = 1, 2
"""Bits of `request.flags()`. Source: Triton, `TRITONSERVER_REQUEST_FLAG_SEQUENCE_*`."""

_SWEEP_S = 5.0
"""Between looks for idle sequences."""
_MOST_TEXT = 1000
"""Characters of an error: a longer one than gRPC has room for would replace its code as well."""

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

    A thread of its own lets idle sequences lapse while nobody asks for anything.

    Args:
        tracker: Follows the objects.
        decode_jpeg: Turns a picture into pixels; raises `InvalidRequestError`.
        instance: Name of the instance, for its metrics.
        sweep_s: Seconds between looks for idle sequences.
    """

    def __init__(
        self,
        tracker: FollowsSequences,
        decode_jpeg: DecodeJpeg,
        instance: str,
        sweep_s: float = _SWEEP_S,
    ) -> None:
        self._tracker = tracker
        self._decode_jpeg = decode_jpeg
        self._meters = Meters(instance)
        self._meters.show(tracker.usage())
        self._turn = threading.Lock()
        self._is_closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep, args=[sweep_s], daemon=True)
        self._sweeper.start()

    def close(self) -> None:
        """Look for idle sequences no more."""
        self._is_closed.set()
        self._sweeper.join()

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself: one bad request never fails the others."""
        with self._turn:
            return self._execute(requests)

    def _sweep(self, interval_s: float) -> None:
        while not self._is_closed.wait(interval_s):
            with self._turn:
                self._meters.show(self._tracker.usage())

    def _execute(self, requests: list[Any]) -> list[Any]:
        opened = [self._open(request) for request in requests]
        steps = [one for one in opened if isinstance(one, StepRequest)]
        outcomes = iter(self._step(steps))
        answers = [next(outcomes) if isinstance(one, StepRequest) else one for one in opened]
        for request, one, answer in zip(requests, opened, answers, strict=True):
            if isinstance(one, StepRequest):
                self._close(request, answer)
        self._meters.count(answers)
        self._meters.show(self._tracker.usage())
        return [_response(answer) for answer in answers]

    def _open(self, request: Any) -> StepRequest | StepResult | Exception:
        """Start the sequence if asked to, and read the tensors."""
        one = self._read(request)
        if not isinstance(one, StepRequest):
            self._close(request, one)  # at once: its slot may be for the next one of the batch
        return one

    def _read(self, request: Any) -> StepRequest | StepResult | Exception:
        if request.is_cancelled():
            return CancelledRequestError("the client has cancelled this request")
        try:
            if request.flags() & START:
                self._tracker.start(request.correlation_id())
            return _step_request(request, self._decode_jpeg)
        except (InvalidRequestError, SlotsExhaustedError) as error:
            return error
        except Exception as error:  # noqa: BLE001  such as no GPU memory for its picture
            return _broken("reading a request", error)

    def _close(self, request: Any, answer: StepResult | Exception) -> None:
        """End the sequence if asked to, or if its very START has failed: nobody would end it."""
        has_failed = isinstance(answer, Exception)
        if request.flags() & END or (request.flags() & START and has_failed):
            self._tracker.end(request.correlation_id())

    def _step(self, steps: list[StepRequest]) -> list[StepResult | Exception]:
        try:
            return list(self._tracker.step_many(steps))
        except Exception as error:  # noqa: BLE001  such as no GPU memory: sequences are unchanged
            broken = _broken(f"a step of {len(steps)} sequences", error)
        # Only here is the memory of the failed step free: its error kept hold of it.
        if len(steps) == 1:
            return [broken]
        return [answer for step in steps for answer in self._step([step])]


def _broken(what: str, error: Exception) -> RuntimeError:
    """Log an error that nobody has thought of, and return what the client learns of it."""
    pb_utils.Logger.log_error(f"{what} failed: {error!r}")
    return RuntimeError(f"{what} failed; see the server's log")


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
        error = pb_utils.TritonError(str(answer)[:_MOST_TEXT], _code(answer))
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
