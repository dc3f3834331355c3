"""The cluster on this machine, for commands that are given no `--server`."""

import argparse
import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator

from rich.console import Console

from deploy.local.cluster import LocalCluster
from deploy.local.doctor import checks
from deploy.local.orchestrator import OrchestratorProcess
from orchestrator.cli.connection import server_settings
from orchestrator.errors import ClusterError

console = Console(stderr=True, highlight=False)


@contextlib.asynccontextmanager
async def server_target(options: argparse.Namespace) -> AsyncIterator[str]:
    """Give the address of the server named by `--server`, or of one started for the occasion.

    Raises:
        ClusterError: The local cluster could not be started.
    """
    if options.server:
        yield options.server
        return
    async with local_server(options, port=0) as target:
        yield target


@contextlib.asynccontextmanager
async def local_server(options: argparse.Namespace, *, port: int) -> AsyncIterator[str]:
    """Run tritonserver and the orchestrator for as long as the context is open."""
    overrides = _overrides(options.weights)
    with console.status("starting tritonserver and loading the models ..."):
        async with contextlib.AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(
                LocalCluster(split=options.split, overrides=overrides)
            )
            orchestrator = await stack.enter_async_context(
                OrchestratorProcess(cluster.endpoints, port=port, settings=server_settings(options))
            )
            resources = stack.pop_all()
    async with resources:
        yield orchestrator.target


async def run_until_interrupted(options: argparse.Namespace) -> int:
    """Run the cluster in the foreground; `touchline up`."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with local_server(options, port=options.port) as target:
        console.print(f"serving soccer.v1.PlayerRecognitionService on [bold]{target}[/]")
        console.print(f"try: touchline recognize VIDEO --output DIR --server {target}")
        await stopping.wait()
        console.print("stopping ...")
    return 0


def print_checks() -> int:
    """Print what this machine has and lacks; `touchline doctor`."""
    found = checks()
    for check in found:
        mark = "[green]ok[/]     " if check.ok else "[red]missing[/]"
        console.print(f"{mark} {check.name}: {check.detail}", soft_wrap=True)
        if not check.ok:
            console.print(f"        → {check.remedy}", soft_wrap=True)
    return 0 if all(check.ok for check in found) else 1


def _overrides(weights: list[str]) -> dict[str, dict[str, str]]:
    overrides: dict[str, dict[str, str]] = {}
    for item in weights:
        model, separator, path = item.partition("=")
        if not separator or not path:
            raise ClusterError(f"--weights {item}: expected MODEL=PATH")
        overrides[model] = {"weights": path}
    return overrides
