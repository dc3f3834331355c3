"""Every error that Touchline raises on purpose, and the one table from error to gRPC status.

TouchlineError
├── InvalidRequestError      the caller sent something that can never work; names the field
├── FrameError               one frame cannot be recognised; the stream goes on
│   └── DecodeError          its bytes are not a picture of the promised kind
├── OverloadedError          no room for another stream or frame now
├── ModelError               a model gave no usable answer
│   ├── ModelUnavailableError    no replica answered in time
│   ├── SequenceLostError        a stateful replica no longer knows the stream
│   └── TensorContractError      the answer, or the live model, breaks its contract
├── ClusterError             the local cluster could not be started or kept up
└── VideoFileError           client side only: a file is no video that can be sent
"""

import grpc


class TouchlineError(Exception):
    """Base of all errors below; its text is fit for a client to read."""


class InvalidRequestError(TouchlineError):
    """The request can never be served.

    Attributes:
        field: Path of the offending field in the request, such as `config.frame_rate`.
    """

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}")
        self.field = field


class FrameError(TouchlineError):
    """One frame cannot be recognised; the stream goes on without it."""


class DecodeError(FrameError):
    """The frame's bytes cannot be decoded as the stream's encoding."""


class OverloadedError(TouchlineError):
    """There is no capacity for this now; the same request may succeed later."""


class ModelError(TouchlineError):
    """A model gave no usable answer.

    Attributes:
        model: Name of the Triton model.
    """

    def __init__(self, model: str, message: str) -> None:
        super().__init__(f"{model}: {message}")
        self.model = model


class ModelUnavailableError(ModelError):
    """No replica of the model answered before the deadline."""


class SequenceLostError(ModelError):
    """The replica no longer holds this stream's state (restart, crash or idle expiry)."""


class TensorContractError(ModelError):
    """A tensor or a live model differs from `orchestrator.contracts`."""


class ClusterError(TouchlineError):
    """The local cluster could not be started or ended early."""


class VideoFileError(TouchlineError):
    """A file cannot be read as video; raised on the client's side only."""


# The most specific class wins; anything absent here is a bug and leaves as INTERNAL without text.
STATUS_CODES: dict[type[TouchlineError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    FrameError: grpc.StatusCode.INVALID_ARGUMENT,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ModelUnavailableError: grpc.StatusCode.UNAVAILABLE,
    SequenceLostError: grpc.StatusCode.UNAVAILABLE,
    TensorContractError: grpc.StatusCode.INTERNAL,
    ClusterError: grpc.StatusCode.UNAVAILABLE,
}


def status_code(error: TouchlineError) -> grpc.StatusCode:
    """Return the gRPC status of an error by its most specific listed class."""
    for cls in type(error).__mro__:
        if cls in STATUS_CODES:
            return STATUS_CODES[cls]
    return grpc.StatusCode.INTERNAL
