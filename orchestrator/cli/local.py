"""The cluster on this machine, for commands that are given no `--server`."""

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping

from rich.console import Console

from deploy.local.cluster import LocalCluster
from deploy.local.doctor import checks
from deploy.local.orchestrator import OrchestratorProcess
from deploy.local.ports import HOST
from orchestrator.cli.connection import client_flags, server_settings
from orchestrator.environment import read_settings
from orchestrator.errors import ClusterError, InvalidRequestError
from orchestrator.security.guard import Guard
from orchestrator.supervisor import reserved

console = Console(stderr=True, highlight=False)


@contextlib.asynccontextmanager
async def server_target(options: argparse.Namespace) -> AsyncIterator[str]:
    """Give the address of the server named by `--server`, or of one started for the occasion.

    Raises:
        InvalidRequestError: A flag means nothing with `--server`, or without; names it.
        ClusterError: The local cluster could not be started.
    """
    if options.server is not None:
        _expect_none(_cluster_flags(options), "expected without --server, whose models run already")
        yield options.server
        return
    _expect_none(client_flags(options), "expected with --server only")
    async with local_server(options) as target:
        yield target


@contextlib.asynccontextmanager
async def local_server(
    options: argparse.Namespace, *, host: str = HOST, port: int = 0
) -> AsyncIterator[str]:
    """Run tritonserver and the orchestrator for as long as the context is open."""
    settings = {"TOUCHLINE_SERVER__HOST": host}
    overrides = _overrides(options.weights)
    with console.status("starting tritonserver and loading the models ..."):
        async with contextlib.AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(
                LocalCluster(split=options.split, overrides=overrides)
            )
            orchestrator = await stack.enter_async_context(
                OrchestratorProcess(cluster.endpoints, port=port, settings=settings)
            )
            resources = stack.pop_all()
    async with resources:
        yield orchestrator.target


async def run_until_interrupted(options: argparse.Namespace) -> int:
    """Run the cluster in the foreground; `touchline up`.

    Raises:
        SettingError: A file of the flags or of the `TOUCHLINE_*` variables cannot be used, the port
            cannot be had, or it would be open to others unprotected.
        ClusterError: The cluster could not be started.
    """
    os.environ.update(server_settings(options))
    settings = read_settings()
    # Says now what would be said once all models are loaded.
    Guard(settings).close()
    with reserved(settings.server.host, options.port, is_shared=False):
        pass
    stopping = asyncio.Event()
    async with local_server(options, host=settings.server.host, port=options.port) as target:
        for number in (signal.SIGTERM, signal.SIGINT):  # not before: they also end a slow start
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
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


def _cluster_flags(options: argparse.Namespace) -> dict[str, object]:
    """Return the flags of the started cluster with what they were given."""
    return {"--split": options.split, "--weights": options.weights}


def _expect_none(flags: Mapping[str, object], expected: str) -> None:
    for flag, given in flags.items():
        if given:
            raise InvalidRequestError(flag, expected)


def _overrides(weights: list[str]) -> dict[str, dict[str, str]]:
    overrides: dict[str, dict[str, str]] = {}
    for item in weights:
        model, separator, path = item.partition("=")
        if not separator or not path:
            raise ClusterError(f"--weights {item}: expected MODEL=PATH")
        overrides[model] = {"weights": path}
    return overrides
