"""What is done to a running cluster: real signals to real processes."""

import asyncio
import contextlib
import os
import re
import signal
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from deploy.local.tritonserver import TritonServer

_STUB = b"triton_python_backend_stub"


def stub_pid(server: TritonServer, model: str) -> int:
    """Return the process id of the one instance of a model."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            line = path.read_bytes()
            if all(part in line for part in (_STUB, server.name.encode(), f"/{model}/".encode())):
                return int(path.parent.name)
            if server.name.encode() in line:
                found.append(line)
    raise LookupError(f"{server.name}: expected a process of {model}, found {found}")


async def hang(server: TritonServer, seconds: float) -> None:
    """Stop a server with its models for a while: its connections stay open, nothing answers."""
    await stop([server.pid, *(stub_pid(server, model) for model in server.models)], seconds)


async def stop(pids: Sequence[int], seconds: float) -> None:
    """Stop processes for a while."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def restart(server: TritonServer) -> None:
    """End a server in good order, or clean up after a killed one, and start it where it was."""
    await server.stop()
    await server.start()


def live_sequences(server: TritonServer) -> float:
    """Return how many streams live in a tracker's server."""
    return _total(f"http://{server.metrics_endpoint}/metrics", "sam2_active_sequences")


def counted(orchestrator_log: str, name: str) -> float:
    """Return the sum of an orchestrator's metric over its labels; its log names the port."""
    page = re.search(r"metrics at (http://\S+)", orchestrator_log)
    if page is None:
        raise LookupError("expected the orchestrator's log to say where its metrics are")
    return _total(page[1], name)


def _total(url: str, name: str) -> float:
    with urllib.request.urlopen(url, timeout=5) as page:
        text = page.read().decode()
    found = re.findall(rf"^{name}\{{.*\}} (\S+)$", text, re.M)
    if not found:
        raise LookupError(f"{url}: expected {name}")
    return sum(map(float, found))
