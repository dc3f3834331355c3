"""The cluster on one machine: all models in one tritonserver, or one tritonserver per model."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from deploy.local.repository import (
    DEFAULT_REPOSITORY,
    Overrides,
    model_names,
    staged_repository,
)
from deploy.local.tritonserver import TritonServer
from orchestrator.errors import ClusterError


class LocalCluster:
    """Real tritonservers on 127.0.0.1 that live as long as the async context.

    >>> async with LocalCluster() as cluster:
    ...     channel = grpc.aio.insecure_channel(cluster.endpoints["rfdetr_detector"])

    Attributes:
        servers: The running servers; empty outside the context.
    """

    def __init__(
        self,
        variant: str = "cpu",
        split: bool = False,
        models: Sequence[str] | None = None,
        overrides: Overrides | None = None,
        repository: Path | None = None,
        *,
        replicas: Mapping[str, int] | None = None,
        threads: int = 1,
        startup_seconds: float = 120.0,
    ) -> None:
        """Describe a cluster; entering the context starts it.

        Args:
            variant: Which configs the models are loaded with: `cpu`, `sim` or `default`.
            split: Whether each model gets a server of its own, as in production.
            models: Names of the models to serve; None for all of the repository.
            overrides: Config parameters to change, by model.
            repository: The model repository; None for the product's own.
            replicas: Number of servers by model; those models get servers of their own.
            threads: Native threads of each model process, 1 or more.
            startup_seconds: How long the models may take to load.
        """
        self.servers: tuple[TritonServer, ...] = ()
        self._variant = variant
        self._split = split
        self._models = models
        self._overrides = overrides or {}
        self._repository = repository or DEFAULT_REPOSITORY
        self._replicas = replicas or {}
        self._threads = threads
        self._startup_seconds = startup_seconds
        self._stack = contextlib.AsyncExitStack()

    @property
    def endpoints(self) -> dict[str, str]:
        """`host:port` of gRPC by model name; the first one's of several replicas."""
        return {model: found[0] for model, found in self.replica_endpoints.items()}

    @property
    def replica_endpoints(self) -> dict[str, list[str]]:
        """`host:port` of gRPC of all replicas by model name."""
        return {
            model: [server.endpoint for server in servers]
            for model, servers in self.replicas.items()
        }

    @property
    def replicas(self) -> dict[str, list[TritonServer]]:
        """The servers of each model."""
        models = dict.fromkeys(model for server in self.servers for model in server.models)
        return {
            model: [server for server in self.servers if model in server.models] for model in models
        }

    @property
    def metrics_endpoints(self) -> dict[str, str]:
        """`host:port` of Prometheus metrics by model name."""
        return {
            model: server.metrics_endpoint for server in self.servers for model in server.models
        }

    @property
    def logs(self) -> dict[str, Path]:
        """Log file of the server by model name; the files go when the context ends."""
        return {model: server.log for server in self.servers for model in server.models}

    async def __aenter__(self) -> Self:
        """Start all servers at once and return when every model is ready.

        Raises:
            ClusterError: A model or override is unknown, or a server did not start; then none is
                left running.
        """
        models = self._known_models()
        async with contextlib.AsyncExitStack() as stack:
            repository = stack.enter_context(
                staged_repository(
                    self._overrides, repository=self._repository, variant=self._variant
                )
            )
            servers = tuple(self._server(repository, group) for group in self._groups(models))
            stack.push_async_callback(_stop_all, servers)
            await _start_all(servers)
            self.servers = servers
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.servers = ()
        await self._stack.aclose()

    def _known_models(self) -> tuple[str, ...]:
        known = model_names(self._repository)
        wanted = known if self._models is None else tuple(self._models)
        for model in (*wanted, *self._replicas):
            if model not in known:
                raise ClusterError(f"model {model!r}: expected one of {', '.join(known)}")
        return wanted

    def _groups(self, models: Sequence[str]) -> list[tuple[str, ...]]:
        """Return the models of each server."""
        alone = [model for model in models if self._split or model in self._replicas]
        together = tuple(model for model in models if model not in alone)
        apart = [(model,) for model in alone for _ in range(self._replicas.get(model, 1))]
        return [*([together] if together else []), *apart]

    def _server(self, repository: Path, models: Sequence[str]) -> TritonServer:
        return TritonServer(
            repository,
            models,
            variant=self._variant,
            threads=self._threads,
            startup_seconds=self._startup_seconds,
        )


async def _start_all(servers: Sequence[TritonServer]) -> None:
    """Start the servers side by side; the first failure cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.start())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _stop_all(servers: Sequence[TritonServer]) -> None:
    await asyncio.gather(*(server.stop() for server in servers))
