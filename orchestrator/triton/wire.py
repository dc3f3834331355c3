"""Requests on their way to one server: tensors into messages or shared memory, errors into ours."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.grpc import InferInput, InferResult
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from orchestrator import tracing
from orchestrator.triton.codec import Tensor
from orchestrator.triton.connection import Connection
from orchestrator.triton.faults import RegionUnknownError, translate
from orchestrator.triton.transport import Region, SharedMemoryPool
from orchestrator.types.streams import Caller

_SHARED_MEMORY_FROM_BYTES = 1 << 16
"""Smaller tensors cost less inside the message than a region costs in bookkeeping."""


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """Where a request stands in a stateful model's sequence."""

    sequence_id: int
    is_start: bool = False
    is_end: bool = False


NO_OBJECTS = {"forget_object_ids": np.zeros((1, 1), np.int64)}
"""A bare END needs some tensor; nobody has the id 0."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model, of at most its largest batch.

    Attributes:
        timeout_s: Longest wait for the answer, in seconds from when it is sent.
        deadline: When the answer is worth nothing any more, by `time.monotonic`.
        step: Sequence position; stateful models only.
    """

    inputs: Mapping[str, Tensor]
    caller: Caller
    timeout_s: float
    deadline: float = math.inf
    step: SequenceStep | None = None

    @property
    def rows(self) -> int:
        """Rows of the batch."""
        return len(next(iter(self.inputs.values())))


class Wire:
    """Sends requests for one model to one server."""

    def __init__(self, model: str, connection: Connection, memory: SharedMemoryPool) -> None:
        self._model = model
        self._connection = connection
        self._memory = memory

    async def send(self, request: Request) -> InferResult:
        """Send a request and wait for its answer, for as long as the caller does.

        Raises:
            ModelError: As the server or the channel says.
        """
        try:
            return await self._send_once(request)
        except RegionUnknownError:  # the server was restarted, and did not read the request
            self._connection.forget_regions()
            return await self._send_once(request)

    async def _send_once(self, request: Request) -> InferResult:
        regions: list[Region] = []
        try:
            tensors = [await self._tensor(k, v, regions) for k, v in request.inputs.items()]
            with tracing.inference_span(self._model) as headers:
                return await self._connection.client.infer(
                    self._model, tensors, headers=headers, **_sequence(request.step)
                )
        except InferenceServerException as error:
            raise translate(self._model, error) from error
        finally:
            for region in regions:
                self._memory.release(region)

    async def _tensor(self, name: str, array: Tensor, regions: list[Region]) -> InferInput:
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        is_large = array.dtype != np.object_ and array.nbytes >= _SHARED_MEMORY_FROM_BYTES
        shares = is_large and self._connection.shares_memory
        region = self._memory.acquire(array.nbytes) if shares else None
        if region is None:
            tensor.set_data_from_numpy(array)
            return tensor
        regions.append(region)
        await self._connection.register(region)
        target = region.buffer[: array.nbytes].view(array.dtype).reshape(array.shape)
        np.copyto(target, array)
        tensor.set_shared_memory(region.name, array.nbytes)
        return tensor


def _sequence(step: SequenceStep | None) -> dict[str, Any]:
    if step is None:
        return {}
    return {
        "sequence_id": step.sequence_id,
        "sequence_start": step.is_start,
        "sequence_end": step.is_end,
    }
