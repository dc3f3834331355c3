"""The way from a broadcaster's camera to the server: jitter, bursts, and broken connections."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Uplink:
    """How frames reach the server.

    Attributes:
        jitter_s: Mean of the exponential delay of a frame, in seconds.
        stall_every_s: Time between two stalls, after each of which the held frames come at once.
        stall_s: Length of a stall in seconds.
    """

    jitter_s: float = 0.003
    stall_every_s: float = 5.0
    stall_s: float = 0.12

    def arrivals(self, frame_rate: float, rng: np.random.Generator) -> Iterator[float]:
        """Yield for frame after frame, in order, the seconds after which it arrives; for ever.

        No two broadcasters' cameras are in step: the first frame comes within a frame interval.
        """
        begin, stalled = rng.uniform(0, 1 / frame_rate), rng.uniform(0, self.stall_every_s)
        latest = 0.0
        for index in itertools.count():
            at = begin + index / frame_rate + rng.exponential(self.jitter_s)
            into_stall = (at + stalled) % self.stall_every_s
            if into_stall < self.stall_s:
                at += self.stall_s - into_stall
            latest = max(latest, at)
            yield latest


class Relay:
    """A TCP connection to a server that breaks or freezes when told to.

    Args:
        target: `host:port` of the server; may be changed while running.

    Attributes:
        address: `host:port` to connect to, within the context.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.address = ""
        self._open: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every open connection."""
        for writer in self._open:
            writer.transport.abort()

    def freeze(self) -> None:
        """Pass nothing on any more, in either direction, and close nothing: half-open."""
        self._flows.clear()

    def thaw(self) -> None:
        """Pass on again what was held back."""
        self._flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            host, port = self.target.rsplit(":", 1)
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            ends = {writer, far_writer}
            self._open |= ends
            try:
                await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
            finally:
                self._open -= ends
                far_writer.transport.abort()
        writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        writer.close()
