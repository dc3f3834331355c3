"""TCP ports for a server on this machine."""

import contextlib
import socket
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
