"""tritonclient's one error type, told apart by what follows from it."""

import asyncio

from tritonclient.utils import InferenceServerException

from orchestrator.errors import (
    DeadlinePassedError,
    ModelError,
    ModelOverloadedError,
    ModelUnavailableError,
    SequenceLostError,
    SlotsExhaustedError,
    TensorContractError,
)


class ReplicaDownError(ModelUnavailableError):
    """This replica cannot be reached or is about to end; another may answer the same request."""


class StubDiedError(ReplicaDownError):
    """The model's process died; Triton never restarts it by itself."""


class ReplicaFailedError(ModelError):
    """The model broke on this request: a fault of the replica, if it goes on like that."""


class RegionUnknownError(ModelError):
    """The server knows nothing of a shared-memory region: it was restarted."""


FAILURES = (ReplicaFailedError, TensorContractError)
"""What another replica may do better: this one broke, or its answer cannot be used."""

_BY_TEXT: tuple[tuple[str, type[ModelError]], ...] = (
    ("must specify the START flag", SequenceLostError),
    ("send START", SequenceLostError),
    ("sequence slots are in use", SlotsExhaustedError),
    ("is not healthy", StubDiedError),
    ("has no available versions", ReplicaDownError),  # unloading, or the server is about to exit
    ("Unable to find shared memory region", RegionUnknownError),
)

_BY_STATUS: dict[str, type[ModelError]] = {
    "UNAVAILABLE": ReplicaDownError,
    "CANCELLED": ReplicaDownError,  # by the server, that is: it is stopped in a hurry
    "DEADLINE_EXCEEDED": ModelUnavailableError,
    "INTERNAL": ReplicaFailedError,
    "UNKNOWN": ReplicaFailedError,
}


def translate(model: str, error: InferenceServerException) -> ModelError:
    """Return our error for a failed call to a model."""
    status = (error.status() or "").removeprefix("StatusCode.")
    text = error.message() or status
    for part, kind in _BY_TEXT:
        if part in text:
            return kind(model, text)
    return _BY_STATUS.get(status, ModelError)(model, text)


_OUTCOMES: tuple[tuple[type[BaseException], str], ...] = (
    (DeadlinePassedError, "deadline"),
    (ModelOverloadedError, "overloaded"),
    (SequenceLostError, "lost"),
    (ModelUnavailableError, "unavailable"),
    (asyncio.CancelledError, "cancelled"),
)


def outcome(error: BaseException) -> str:
    """Return the metrics' word for how a request failed."""
    return next((word for kind, word in _OUTCOMES if isinstance(error, kind)), "failed")
