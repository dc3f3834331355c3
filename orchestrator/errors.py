"""Every error that Touchline raises on purpose, and the one table from error to gRPC status.

TouchlineError
├── InvalidRequestError      the caller sent something that can never work; names the field
├── FrameError               one frame cannot be recognised; the stream goes on
│   └── DecodeError          its bytes are not a picture of the promised kind
├── UnauthenticatedError     the credentials are missing or wrong; never says which part
├── PermissionDeniedError    known credentials, but of nobody who may use this server
├── OverloadedError          no room for another stream or frame now
│   └── QuotaExceededError       the tenant's own limit is reached; names it
├── DrainingError            the server stops and has answered all it received; go elsewhere
├── ConnectionLostError      the client cannot be reached any more
├── ClientStalledError       the client reads no answers any more
├── SupersededError          another call has shown the stream's resume token
├── RelayedError             another worker process, which has the stream, ended the call
├── ModelError               a model gave no usable answer
│   ├── ModelUnavailableError    no replica answered in time
│   ├── ModelOverloadedError     replicas live, but have no room for this now
│   │   ├── DeadlinePassedError      the answer would be worth nothing any more
│   │   └── SlotsExhaustedError      every place for a stream's state is taken
│   ├── SequenceLostError        a stateful replica no longer knows the stream
│   └── TensorContractError      the answer, or the live model, breaks its contract
├── SettingError             a setting of this process cannot be used; names it
├── ClusterError             the local cluster could not be started or kept up
├── VideoFileError           client side only: a file is no video that can be sent
├── MetricsError             client side only: a process tells no metrics
└── CapacityError            offline only: no capacity can be planned from these numbers
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


class QuotaExceededError(OverloadedError):
    """A tenant has reached a limit of its own."""

    def __init__(self, tenant: str, quota: str, limit: float) -> None:
        super().__init__(f"quota.{quota}: tenant {tenant} may have {limit:g} and has reached that")


class DrainingError(TouchlineError):
    """The server is about to stop."""

    def __init__(self) -> None:
        super().__init__("the server is stopping; connect again")


class ConnectionLostError(TouchlineError):
    """The connection to the client is broken; its stream may be resumed."""

    def __init__(self) -> None:
        super().__init__("the connection is lost; connect again to go on")


class ClientStalledError(TouchlineError):
    """The client left answers unread for too long; its stream may be resumed."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer was read for {seconds:g} s; connect again to go on")


class SupersededError(TouchlineError):
    """Another call has resumed the stream."""

    def __init__(self) -> None:
        super().__init__("config.resume_token: shown by a newer call, which has the stream now")


class RelayedError(TouchlineError):
    """A call that was handed over ended with an error.

    Attributes:
        code: The status it ended with.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code


class UnauthenticatedError(TouchlineError):
    """The credentials are missing, wrong or expired.

    Attributes:
        reason: Which of these, for the audit log only; the client is not told.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("expected valid credentials: an API key or a token")
        self.reason = reason


class PermissionDeniedError(TouchlineError):
    """The caller is known, but is no tenant of this server."""


class SettingError(TouchlineError):
    """A setting cannot be used.

    Attributes:
        setting: Its path, such as `security.certificate_file`.
    """

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting


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


class ModelOverloadedError(ModelError):
    """The model lives, but its queue is full; the request did not reach a replica."""


class DeadlinePassedError(ModelOverloadedError):
    """The frame's deadline passed first; if it passed in the queue, no replica saw the request."""


class SlotsExhaustedError(ModelOverloadedError):
    """No replica has a free slot for another sequence."""


class SequenceLostError(ModelError):
    """The replica no longer holds this stream's state (restart, crash or idle expiry)."""


class TensorContractError(ModelError):
    """A tensor or a live model differs from `orchestrator.contracts`."""


class ClusterError(TouchlineError):
    """The local cluster could not be started or ended early."""


class VideoFileError(TouchlineError):
    """A file cannot be read as video; raised on the client's side only."""


class MetricsError(TouchlineError):
    """A process does not tell its metrics; raised by who reads them."""


class CapacityError(TouchlineError):
    """No capacity can be planned from this; says what was expected."""


# The most specific class wins; anything absent here is a bug and leaves as INTERNAL without text.
STATUS_CODES: dict[type[TouchlineError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    FrameError: grpc.StatusCode.INVALID_ARGUMENT,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DrainingError: grpc.StatusCode.UNAVAILABLE,
    ConnectionLostError: grpc.StatusCode.UNAVAILABLE,
    ClientStalledError: grpc.StatusCode.UNAVAILABLE,
    SupersededError: grpc.StatusCode.ABORTED,
    ModelUnavailableError: grpc.StatusCode.UNAVAILABLE,
    ModelOverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    SequenceLostError: grpc.StatusCode.UNAVAILABLE,
    TensorContractError: grpc.StatusCode.INTERNAL,
    ClusterError: grpc.StatusCode.UNAVAILABLE,
}


def status_code(error: TouchlineError) -> grpc.StatusCode:
    """Return the gRPC status of an error by its most specific listed class."""
    if isinstance(error, RelayedError):
        return error.code
    for cls in type(error).__mro__:
        if cls in STATUS_CODES:
            return STATUS_CODES[cls]
    return grpc.StatusCode.INTERNAL
