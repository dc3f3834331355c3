"""Typed calls to the models: checked against their contracts, queued fairly, answered by a pool.

infer ─▶ checks and splits ─▶ pool of the model ─▶ queue ─▶ replica ─▶ tritonserver
"""

import asyncio
import copy
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Self

import numpy as np

from orchestrator.contracts import ModelContract
from orchestrator.settings import TritonSettings
from orchestrator.triton.codec import LiveModel, Tensor, check
from orchestrator.triton.connection import Connections
from orchestrator.triton.endpoints import endpoints
from orchestrator.triton.members import Members
from orchestrator.triton.pool import Pool, StatelessPool, nobody
from orchestrator.triton.repair import RELOAD_S
from orchestrator.triton.sequences import SequencePool
from orchestrator.triton.snapshot import PoolSnapshot
from orchestrator.triton.transport import SharedMemoryPool
from orchestrator.triton.wire import NO_OBJECTS, Request, SequenceStep
from orchestrator.types.streams import Caller

__all__ = ["NO_OBJECTS", "SequenceStep", "TritonClient"]

log = logging.getLogger(__name__)


class TritonClient:
    """The models of the cluster. Open with `async with`; one per process.

    Args:
        settings: Where the models are, and how replicas share the work.
        contracts: What the models must keep.
        optional: Those of them that may come later; calls fail until then.

    Raises:
        SettingError: An address or a TLS file cannot be used.
    """

    def __init__(
        self,
        settings: TritonSettings,
        contracts: tuple[ModelContract, ...],
        *,
        optional: tuple[ModelContract, ...] = (),
    ) -> None:
        self._settings = settings
        self._contracts = contracts
        self._optional = optional
        self._caller = Caller("")
        longest_call_s = max(settings.infer_timeout_s, RELOAD_S)
        self._connections = Connections(settings.tls, longest_call_s=longest_call_s)
        self._memory = SharedMemoryPool(settings.shared_memory_bytes)
        self._pools: dict[str, Pool] = {}

    async def __aenter__(self) -> Self:
        """Wait until every model has a replica that is ready, for optional ones a moment only.

        Raises:
            ModelUnavailableError: A model had none in time.
            TensorContractError: All replicas of a model differ from its contract.
        """
        try:
            self._pools = {contract.name: self._pool(contract) for contract in self._contracts}
            await self._open()
        except BaseExceptionGroup as errors:
            await self.__aexit__()
            raise _first(errors) from errors
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all channels and remove the shared memory."""
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        await self._connections.close()
        self._memory.close()

    def for_caller(self, caller: Caller) -> Self:
        """Return a view of this client whose calls queue as those of `caller`."""
        view = copy.copy(self)
        view._caller = caller
        return view

    def model(self, contract: ModelContract) -> LiveModel:
        """Return what the latest replica said of a model.

        Raises:
            ModelUnavailableError: There was none so far.
        """
        members = self._pools[contract.name].members
        if members.model is None:
            raise nobody(members)
        return members.model

    @property
    def models(self) -> tuple[LiveModel, ...]:
        """All models that have come so far, in the order of the contracts."""
        found = (pool.members.model for pool in self._pools.values())
        return tuple(model for model in found if model is not None)

    @property
    def uses_shared_memory(self) -> bool:
        """Whether large tensors travel by shared memory to every server in use."""
        return all(
            replica.connection.shares_memory
            for pool in self._pools.values()
            for replica in pool.members.usable
        )

    def snapshot(self) -> tuple[PoolSnapshot, ...]:
        """Return the state of every model's replicas and queue, in the order of the contracts."""
        return tuple(pool.snapshot() for pool in self._pools.values())

    async def infer(
        self,
        contract: ModelContract,
        inputs: Mapping[str, Tensor],
        *,
        step: SequenceStep | None = None,
        timeout_s: float | None = None,
        deadline: float = math.inf,
    ) -> dict[str, Tensor]:
        """Run one model on one batch; batches above the model's maximum are split.

        Args:
            contract: The model.
            inputs: Arrays by tensor name, each with a leading batch dimension.
            step: Sequence position; stateful models only.
            timeout_s: Longest wait in seconds, from when a replica is asked; None takes the
                setting.
            deadline: When the answer is worth nothing any more, in seconds of `time.monotonic`. A
                request that waits until then is never sent.

        Returns:
            Arrays by output name, rows as in the inputs.

        Raises:
            ModelUnavailableError: No replica lives, or none answered in time.
            ModelOverloadedError: There was no room for the request, or none in time.
            SequenceLostError: A stateful model no longer knows the sequence.
            TensorContractError: An array breaks the contract.
            ModelError: The model refused the request.
        """
        pool, model = self._pools[contract.name], self.model(contract)
        for name, array in inputs.items():
            check(model, name, array)
        request = Request(
            inputs, self._caller, timeout_s or self._settings.infer_timeout_s, deadline, step
        )
        if step is not None or request.rows <= model.max_batch_size:
            return await pool.infer(request)
        parts = await _all(pool, _split(request, model.max_batch_size))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    async def _open(self) -> None:
        """Look for all models at once; the optional ones' time begins once the others are there."""
        needed = [contract for contract in self._contracts if contract not in self._optional]
        names, longest_s = ", ".join(each.name for each in needed), self._settings.connect_timeout_s
        log.info("waiting for %s, at most %g s", names, longest_s)
        for pool in self._pools.values():
            pool.members.open()
        for contracts, seconds in (
            (needed, longest_s),
            (self._optional, self._settings.patience_s),
        ):
            async with asyncio.TaskGroup() as waiting:
                for contract in contracts:
                    members = self._pools[contract.name].members
                    is_needed = contract in needed
                    waiting.create_task(members.until_ready(seconds, is_needed=is_needed))

    def _pool(self, contract: ModelContract) -> Pool:
        addresses = self._settings.urls.get(contract.name, self._settings.url)
        found = endpoints(addresses, resolve_interval_s=self._settings.resolve_interval_s)
        members = Members(contract, self._settings, found, self._connections, self._memory)
        kind = SequencePool if contract.is_sequence else StatelessPool
        return kind(members, self._settings)


def _split(request: Request, most_rows: int) -> list[Request]:
    """Cut a request into requests of at most `most_rows` rows each."""
    return [
        replace(request, inputs={k: v[at : at + most_rows] for k, v in request.inputs.items()})
        for at in range(0, request.rows, most_rows)
    ]


async def _all(pool: Pool, requests: list[Request]) -> list[dict[str, Tensor]]:
    """Ask for all answers at once; the first failure calls the other requests back."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(pool.infer(request)) for request in requests]
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors
    return [task.result() for task in tasks]


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return one of the errors of a group, which callers of a single call expect."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
