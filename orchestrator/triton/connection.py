"""The channel to one tritonserver, shared by the pools of all models that it serves."""

import asyncio
import logging
import random
import time
from pathlib import Path

import grpc
from tritonclient.grpc import aio as triton_aio
from tritonclient.utils import InferenceServerException

from orchestrator.errors import SettingError
from orchestrator.settings import TritonTlsSettings
from orchestrator.triton.transport import Region, SharedMemoryPool

_RENEW_S = 5.0
"""Pools of one hung server find out at about the same time; one new channel does for all."""
_CALL_S = 1.0

_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # gRPC's own back-off grows to two minutes; the pool decides how often a server is tried.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Otherwise a new channel would share the dead connection of the one that it replaces.
    ("grpc.use_local_subchannel_pool", 1),
]

log = logging.getLogger(__name__)


class Connection:
    """One server and the shared-memory regions that it knows.

    Attributes:
        address: `host:port`.
        shares_memory: Whether the server opens regions of this host, as last probed.
    """

    def __init__(
        self,
        address: str,
        credentials: grpc.ChannelCredentials | None,
        server_name: str,
        longest_call_s: float,
    ) -> None:
        self.address = address
        self.shares_memory = False
        self._longest_call_s = longest_call_s
        self._credentials = credentials
        self._options = list(_OPTIONS)
        if server_name:
            self._options.append(("grpc.ssl_target_name_override", server_name))
        self._registered: set[str] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._open()

    @property
    def client(self) -> triton_aio.InferenceServerClient:
        """The present channel's client; never kept, since `renew` replaces it."""
        return self._client

    def renew(self) -> None:
        """Connect anew: this connection may be half open, that is dead without knowing it.

        Calls under way may finish: a channel that is closed cancels them, and their callers.
        """
        if time.monotonic() - self._opened_at < _RENEW_S:
            return
        task = asyncio.create_task(_close_later(self._client, self._longest_call_s))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self._open()

    async def probe_shared_memory(self, memory: SharedMemoryPool) -> bool:
        """Find out whether the server sees this host's /dev/shm by registering a region."""
        self._registered.clear()  # it may be a new server at the old address
        region = memory.acquire(1)
        if region is None:
            return False
        try:
            await self.register(region)
        except InferenceServerException:
            self.shares_memory = False
        else:
            self.shares_memory = True
        finally:
            memory.release(region)
        return self.shares_memory

    async def register(self, region: Region) -> None:
        """Make a region known to the server, once."""
        if region.name in self._registered:
            return
        try:
            await self.client.register_system_shared_memory(
                region.name, f"/{region.name}", region.byte_size, client_timeout=_CALL_S
            )
        except InferenceServerException as error:
            if "already in manager" not in (error.message() or ""):
                raise
        self._registered.add(region.name)

    def forget_regions(self) -> None:
        """Register all regions anew: the server was restarted and knows none."""
        self._registered.clear()

    async def close(self) -> None:
        """Drop this process's regions from the server and close the channel."""
        for name in self._registered:
            try:
                await self.client.unregister_system_shared_memory(name, client_timeout=_CALL_S)
            except InferenceServerException:
                break
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._client.close()

    def _open(self) -> None:
        self._opened_at = time.monotonic()
        self._client = triton_aio.InferenceServerClient(
            self.address, creds=self._credentials, channel_args=self._options
        )


class Connections:
    """One connection for each address, however many pools use it.

    Args:
        tls: How to connect.
        longest_call_s: Longest time that any call takes, in seconds.

    Raises:
        SettingError: A TLS file cannot be read.
    """

    def __init__(self, tls: TritonTlsSettings, *, longest_call_s: float) -> None:
        self._tls = tls
        self._longest_call_s = longest_call_s
        self._credentials = _credentials(tls)
        self._open: dict[str, tuple[Connection, int]] = {}

    def acquire(self, address: str) -> Connection:
        """Return the connection to an address; give it back by `release`."""
        connection, users = self._open.get(address) or (self._connect(address), 0)
        self._open[address] = connection, users + 1
        return connection

    def another(self, connection: Connection) -> Connection | None:
        """Return the connection to some other server, if there is one."""
        others = [other for other, _ in self._open.values() if other is not connection]
        return random.choice(others) if others else None

    async def close(self) -> None:
        """Close all connections."""
        for connection, _ in self._open.values():
            await connection.close()
        self._open.clear()

    async def release(self, connection: Connection) -> None:
        """Close a connection when nobody uses it any more."""
        _, users = self._open.pop(connection.address)
        if users > 1:
            self._open[connection.address] = connection, users - 1
        else:
            await connection.close()

    def _connect(self, address: str) -> Connection:
        """Connect with the TLS files as they are now: certificates are renewed while we run."""
        try:
            self._credentials = _credentials(self._tls)
        except SettingError as error:
            log.warning("%s; the files read before are used", error)
        return Connection(address, self._credentials, self._tls.server_name, self._longest_call_s)


async def _close_later(client: triton_aio.InferenceServerClient, seconds: float) -> None:
    try:
        await asyncio.sleep(seconds)
    finally:
        await client.close()


def _credentials(tls: TritonTlsSettings) -> grpc.ChannelCredentials | None:
    if tls.ca is None and tls.cert is None:
        return None
    return grpc.ssl_channel_credentials(
        _read("triton.tls.ca", tls.ca),
        _read("triton.tls.key", tls.key),
        _read("triton.tls.cert", tls.cert),
    )


def _read(setting: str, file: Path | None) -> bytes | None:
    try:
        return file.read_bytes() if file else None
    except OSError as error:
        raise SettingError(setting, f"cannot be read: {error.strerror}") from error
