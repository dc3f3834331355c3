"""TCP ports for a server on this machine."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HOST = "127.0.0.1"


class Ports(NamedTuple):
    """The TCP ports of one tritonserver on `HOST`."""

    http: int
    grpc: int
    metrics: int


def free_ports() -> Ports:
    """Return three ports that nothing listens on at this moment."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in Ports._fields]
        for probe in probes:
            probe.bind((HOST, 0))
        return Ports(*(probe.getsockname()[1] for probe in probes))


def listens(pid: int, ports: Ports) -> bool:
    """Return whether a process itself listens on all these ports; False if it has ended.

    A tritonserver opens them one after the other, and one that finds another process on the last
    has answered on the first already.
    """
    try:
        sockets = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    except FileNotFoundError:  # the process, or one of its files, is gone
        return False
    return set(ports) <= {port for port, inode in _listeners() if f"socket:[{inode}]" in sockets}


def _listeners() -> Iterator[tuple[int, str]]:
    """All listening TCP ports with the inodes of their sockets. Source: proc(5)."""
    for table in Path("/proc/net").glob("tcp*"):  # without IPv6 there is no `tcp6`
        for line in table.read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A":
                yield int(local.rpartition(":")[2], 16), inode
