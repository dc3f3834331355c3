"""Typed calls to the models: contract, deadline, transport and error mapping in one place.

Note the units of tritonclient: `client_timeout` is in seconds (its `timeout` in microseconds).
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from tritonclient.grpc import InferInput, service_pb2
from tritonclient.grpc import aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from orchestrator.contracts import ModelContract
from orchestrator.errors import (
    ModelError,
    ModelUnavailableError,
    SequenceLostError,
    TensorContractError,
)
from orchestrator.settings import TritonSettings
from orchestrator.triton.codec import LiveModel, Tensor, bind, check, decode
from orchestrator.triton.transport import Region, SharedMemoryPool

_SHARED_MEMORY_FROM_BYTES = 1 << 16
"""Smaller tensors cost less inside the message than a region costs in bookkeeping."""

_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """Where a request stands in a stateful model's sequence."""

    sequence_id: int
    is_start: bool = False
    is_end: bool = False


class _Server:
    """One tritonserver, and the shared-memory regions that it knows."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = triton_aio.InferenceServerClient(url)
        self.shares_memory = False
        self._registered: set[str] = set()

    async def probe_shared_memory(self, pool: SharedMemoryPool) -> bool:
        """Find out whether the server sees this host's /dev/shm by registering a region."""
        region = pool.acquire(1)
        if region is None:
            return False
        try:
            await self.register(region)
        except InferenceServerException:
            return False
        finally:
            pool.release(region)
        return True

    async def register(self, region: Region) -> None:
        """Make a region known to the server, once."""
        if region.name not in self._registered:
            await self.client.register_system_shared_memory(
                region.name, f"/{region.name}", region.byte_size
            )
            self._registered.add(region.name)

    def forget_regions(self) -> None:
        """Register all regions anew: the server was restarted and knows none."""
        self._registered.clear()

    async def close(self) -> None:
        """Drop this process's regions from the server and close the channel."""
        for name in self._registered:
            try:
                await self.client.unregister_system_shared_memory(name, client_timeout=1.0)
            except InferenceServerException:
                break
        await self.client.close()


class TritonClient:
    """The models of the cluster. Open with `async with`; one per process."""

    def __init__(self, settings: TritonSettings, contracts: tuple[ModelContract, ...]) -> None:
        self._settings = settings
        self._contracts = contracts
        self._pool = SharedMemoryPool(settings.shared_memory_bytes)
        self._servers: dict[str, _Server] = {}
        self._models: dict[str, LiveModel] = {}

    async def __aenter__(self) -> Self:
        """Wait for all models and check them.

        Raises:
            ModelUnavailableError: A model did not become ready in time.
            TensorContractError: A live model differs from its contract.
        """
        try:
            await self._connect()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all channels and remove the shared memory."""
        for server in self._servers.values():
            await server.close()
        self._pool.close()

    def model(self, contract: ModelContract) -> LiveModel:
        """Return what the server said of a model at start."""
        return self._models[contract.name]

    @property
    def models(self) -> tuple[LiveModel, ...]:
        """All models, in the order of the contracts."""
        return tuple(self._models.values())

    @property
    def uses_shared_memory(self) -> bool:
        """Whether large tensors travel by shared memory to every server."""
        return all(server.shares_memory for server in self._servers.values())

    async def infer(
        self,
        contract: ModelContract,
        inputs: Mapping[str, Tensor],
        *,
        step: SequenceStep | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Tensor]:
        """Run one model on one batch; batches above the model's maximum are split.

        Args:
            contract: The model.
            inputs: Arrays by tensor name, each with a leading batch dimension.
            step: Sequence position; stateful models only.
            timeout_s: Longest wait in seconds; None takes the setting.

        Returns:
            Arrays by output name, rows as in the inputs.

        Raises:
            ModelUnavailableError: No answer in time, or the model is down.
            SequenceLostError: A stateful model no longer knows the sequence.
            TensorContractError: An array breaks the contract.
            ModelError: The model refused the request.
        """
        model = self._models[contract.name]
        for name, array in inputs.items():
            check(model, name, array)
        if step is not None:
            return await self._infer_once(model, inputs, step, timeout_s)
        rows = len(next(iter(inputs.values())))
        parts = await asyncio.gather(
            *(
                self._infer_once(
                    model,
                    {k: v[first : first + model.max_batch_size] for k, v in inputs.items()},
                    None,
                    timeout_s,
                )
                for first in range(0, rows, model.max_batch_size)
            )
        )
        return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}

    async def _infer_once(
        self,
        model: LiveModel,
        inputs: Mapping[str, Tensor],
        step: SequenceStep | None,
        timeout_s: float | None,
    ) -> dict[str, Tensor]:
        name = model.contract.name
        server = self._servers[self._url(name)]
        sequence: dict[str, Any] = {}
        if step is not None:
            sequence = {
                "sequence_id": step.sequence_id,
                "sequence_start": step.is_start,
                "sequence_end": step.is_end,
            }
        regions: list[Region] = []
        try:
            with _errors_of(name):
                tensors = [await self._input(server, k, v, regions) for k, v in inputs.items()]
                result = await server.client.infer(
                    name,
                    tensors,
                    client_timeout=timeout_s or self._settings.infer_timeout_s,
                    **sequence,
                )
        except ModelError as error:
            if regions and "shared memory region" in str(error):
                server.forget_regions()
            raise
        finally:
            for region in regions:
                self._pool.release(region)
        return decode(model, result)

    async def _input(
        self, server: _Server, name: str, array: Tensor, regions: list[Region]
    ) -> InferInput:
        tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        is_large = array.dtype != np.object_ and array.nbytes >= _SHARED_MEMORY_FROM_BYTES
        region = self._pool.acquire(array.nbytes) if is_large and server.shares_memory else None
        if region is None:
            tensor.set_data_from_numpy(array)
            return tensor
        regions.append(region)
        await server.register(region)
        target = region.buffer[: array.nbytes].view(array.dtype).reshape(array.shape)
        np.copyto(target, array)
        tensor.set_shared_memory(region.name, array.nbytes)
        return tensor

    def _url(self, model_name: str) -> str:
        return self._settings.urls.get(model_name, self._settings.url)

    async def _connect(self) -> None:
        self._servers = {
            url: _Server(url) for url in {self._url(contract.name) for contract in self._contracts}
        }
        deadline = asyncio.get_running_loop().time() + self._settings.connect_timeout_s
        for contract in self._contracts:
            server = self._servers[self._url(contract.name)]
            await _wait_ready(server, contract.name, deadline)
            with _errors_of(contract.name):
                self._models[contract.name] = await _live_model(server, contract)
        if self._settings.transport == "grpc":
            return
        for server in self._servers.values():
            server.shares_memory = await server.probe_shared_memory(self._pool)
            if self._settings.transport == "shared_memory" and not server.shares_memory:
                raise ModelUnavailableError(
                    server.url,
                    "triton.transport is shared_memory, but this server cannot open a region of "
                    "this host; expected both in one IPC namespace with room in /dev/shm",
                )


async def _wait_ready(server: _Server, name: str, deadline: float) -> None:
    reason = "not ready"
    while asyncio.get_running_loop().time() < deadline:
        try:
            if await server.client.is_model_ready(name, client_timeout=2.0):
                return
        except InferenceServerException as error:
            reason = error.message()
        await asyncio.sleep(_POLL_S)
    raise ModelUnavailableError(name, f"not ready at {server.url} in time: {reason}")


async def _live_model(server: _Server, contract: ModelContract) -> LiveModel:
    metadata = await server.client.get_model_metadata(contract.name)
    config = (await server.client.get_model_config(contract.name)).config
    sizes: dict[str, int] = {}
    check_metadata(contract, metadata, sizes)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    return LiveModel(contract, config.max_batch_size, sizes, parameters)


def check_metadata(
    contract: ModelContract, metadata: service_pb2.ModelMetadataResponse, sizes: dict[str, int]
) -> None:
    """Compare a live model with its contract, binding the contract's symbols in `sizes`.

    Raises:
        TensorContractError: Names the model, the tensor and both shapes.
    """
    for kind, specs, live in (
        ("input", contract.inputs, metadata.inputs),
        ("output", contract.outputs, metadata.outputs),
    ):
        found = {tensor.name: tensor for tensor in live}
        names = {spec.name for spec in specs}
        if names != found.keys():
            raise TensorContractError(
                contract.name, f"{kind}s: expected {sorted(names)}, live server has {sorted(found)}"
            )
        for spec in specs:
            tensor = found[spec.name]
            shape = tuple(tensor.shape)
            if tensor.datatype != spec.dtype or not bind((-1, *spec.dims), shape, sizes):
                raise TensorContractError(
                    contract.name,
                    f"{kind} {spec.name}: expected {spec.dtype} "
                    f"[-1, {', '.join(map(str, spec.dims))}] with {sizes}, "
                    f"live server has {tensor.datatype} {list(shape)}",
                )


@contextmanager
def _errors_of(model: str) -> Iterator[None]:
    """Turn tritonclient's one error type into ours, keeping the cause."""
    try:
        yield
    except InferenceServerException as error:
        raise _translate(model, error) from error


def _translate(model: str, error: InferenceServerException) -> ModelError:
    status = (error.status() or "").removeprefix("StatusCode.")
    text = error.message() or status
    if "must specify the START flag" in text or "send START" in text:
        return SequenceLostError(model, text)
    is_down = (
        status in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"}
        or "is not healthy" in text  # a Python stub died; Triton never restarts it
        or "has no available versions" in text  # unloading, or the server is about to exit
    )
    return (ModelUnavailableError if is_down else ModelError)(model, text)
