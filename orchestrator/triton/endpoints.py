"""Where a model's replicas are: a fixed list, a DNS name, or a Kubernetes service."""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass

from orchestrator.errors import SettingError

_DNS, _KUBERNETES = "dns:///", "k8s:///"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server.

    Attributes:
        address: `host:port` of gRPC.
        is_terminating: Whether it is about to end: nothing new should go there.
    """

    address: str
    is_terminating: bool = False


Snapshots = AsyncGenerator[frozenset[Endpoint], None]
"""All servers as of now, given anew whenever that changes; the stream never ends by itself."""


def endpoints(addresses: str | Sequence[str], *, resolve_interval_s: float) -> Snapshots:
    """Return the servers behind the addresses of a setting.

    Args:
        addresses: `host:port`, or several; or one `dns:///host:port` or
            `k8s:///namespace/service:port-name`.
        resolve_interval_s: How often a name is resolved anew, in seconds.

    Raises:
        SettingError: An address is none of these.
    """
    listed = [addresses] if isinstance(addresses, str) else list(addresses)
    if len(listed) == 1 and listed[0].startswith(_DNS):
        host, port = _host_and_port(listed[0].removeprefix(_DNS))
        return resolved(host, port, resolve_interval_s)
    if len(listed) == 1 and listed[0].startswith(_KUBERNETES):
        # Imported here: the Kubernetes client takes a second, and only pods need it.
        from orchestrator.triton import endpoint_slices

        return endpoint_slices.watched(listed[0].removeprefix(_KUBERNETES))
    if not listed:
        raise SettingError("triton.urls", "expected at least one address")
    for address in listed:
        _host_and_port(address)
    return fixed(listed)


async def fixed(addresses: Iterable[str]) -> Snapshots:
    """Give the same servers for ever."""
    yield frozenset(Endpoint(address) for address in addresses)
    await asyncio.Event().wait()


async def resolved(host: str, port: int, interval_s: float) -> Snapshots:
    """Give all addresses of a name, asking every `interval_s`; failed look-ups change nothing."""
    known: frozenset[Endpoint] | None = None
    while True:
        try:
            found = await _look_up(host, port)
        except OSError as error:
            log.warning("dns:///%s:%d cannot be resolved: %s", host, port, error)
        else:
            if found != known:
                yield found
            known = found
        await asyncio.sleep(interval_s)


async def _look_up(host: str, port: int) -> frozenset[Endpoint]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return frozenset(Endpoint(joined(str(address[0]), port)) for *_, address in found)


def joined(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    is_port = port.isdecimal() and 0 < int(port) < 1 << 16
    if "/" in host or not _is_name(host) or not is_port:
        raise SettingError(
            "triton.urls",
            "expected HOST:PORT, or a single dns:///HOST:PORT or "
            f"k8s:///NAMESPACE/SERVICE:PORT-NAME, got {address!r}",
        )
    return host.strip("[]"), int(port)


def _is_name(host: str) -> bool:
    """Whether a resolver takes a host at all; it would say no by an error of its own kind."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False
