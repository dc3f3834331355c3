"""A stream's frames, decoded by a worker that may crash, hang or lie."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.decode_guard import wire
from orchestrator.decode_guard.nursery import Nursery
from orchestrator.decode_guard.orders import Fork
from orchestrator.decode_guard.ring import PictureRing
from orchestrator.errors import OverloadedError
from orchestrator.settings import DecodeSettings
from orchestrator.types.frames import (
    EncodedFrame,
    Encoding,
    Frame,
    FrameHeader,
    GapReason,
    LostFrame,
)
from orchestrator.video_decoding import MAX_HELD_FRAMES

_SLOTS = 8
"""Pictures that a flow keeps at once: two ahead, one decoded, one tracked and the one before it,
and some that a test or a slow model holds on to. Further ones are copied."""
_FORGIVEN_AFTER = 1000
"""Frames after which the loss of a worker is no longer held against a stream."""
_SIGNAL_NAMES = {number.value: number.name for number in signal.Signals}
"""Real-time signals, which a hostile worker may choose to die of, have none."""


@dataclass(frozen=True, slots=True)
class _Worker:
    pid: int
    channel: socket.socket


class GuardedSource:
    """Decodes one stream in a process of its own, started with the first frame.

    A frame that ends the worker is lost with all frames that it held back, and the next gets a new
    one. A stream that loses `max_worker_losses` of them gets no more: all further frames are lost.

    Thread-safe, as a stream may be closed while a frame is decoded.

    Args:
        encoding: A compressed encoding.
        max_pixels: Largest picture, width x height.
        settings: Limits of the worker.
        nursery: Where workers come from.

    Raises:
        OverloadedError: The host has no memory or open file to spare.
    """

    def __init__(
        self,
        encoding: Encoding,
        *,
        max_pixels: int,
        settings: DecodeSettings,
        nursery: Nursery,
    ) -> None:
        self._encoding = encoding
        self._settings = settings
        self._nursery = nursery
        try:
            self._ring = PictureRing(_SLOTS, 3 * max_pixels)
        except OSError as error:
            raise OverloadedError(f"no memory for pictures can be had: {error}") from error
        self._order = Fork(
            encoding=encoding.name,
            max_pixels=max_pixels,
            slots=_SLOTS,
            cpu_limit_s=settings.cpu_limit_s,
            memory_bytes=settings.memory_bytes,
        )
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._waiting: dict[int, FrameHeader] = {}
        self._tickets = 0
        self._losses: list[int] = []
        """Tickets at which a worker was lost."""

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker; None before the first frame and after the last."""
        return self._worker.pid if self._worker else None

    def decode(self, encoded: EncodedFrame) -> list[Frame | LostFrame]:
        """Take one encoded frame and return those that are decided by now."""
        with self._lock:
            self._tickets += 1
            is_over = self._ring.is_closed or len(self._losses) >= self._settings.max_worker_losses
            if is_over:
                return [self._refuse(encoded.header)]
            self._waiting[self._tickets] = encoded.header
            request = wire.Request(
                kind="decode",
                slot=self._ring.free_slot,
                ticket=self._tickets,
                frame_index=encoded.header.frame_index,
                pts=encoded.header.pts,
            )
            return self._converse(request, encoded.data)

    def flush(self) -> list[Frame | LostFrame]:
        """Return all that is held back."""
        with self._lock:
            if not self._waiting:
                return []
            request = wire.Request(kind="flush", slot=self._ring.free_slot)
            return self._converse(request, b"")

    def close(self) -> None:
        """End the worker; pictures stay valid for as long as somebody refers to them.

        A frame that comes after all, as from a thread that was late, is lost.
        """
        with self._lock:
            self._bury()
            self._waiting.clear()
            self._ring.close()

    def _converse(self, request: wire.Request, data: bytes) -> list[Frame | LostFrame]:
        """Send one request and collect its outcomes; the worker's end loses all that wait."""
        try:
            worker = self._worker or self._hire()
        except OSError as error:  # the host's want, which is not held against the stream
            return list(self._lose_all(f"no decoder can be started: {error}"))
        outcomes: list[Frame | LostFrame] = []
        try:
            for outcome in self._exchange(worker, request, data):
                outcomes.append(outcome)  # noqa: PERF402  # keeps what came before an error
        except (OSError, EOFError, ValueError) as error:
            outcomes += self._lose_worker(error)
        return outcomes

    def _exchange(
        self, worker: _Worker, request: wire.Request, data: bytes
    ) -> Iterator[Frame | LostFrame]:
        deadline = time.monotonic() + self._settings.timeout_s
        left = 1
        while left:
            worker.channel.settimeout(max(deadline - time.monotonic(), 1e-3))
            wire.send(worker.channel, request, data)
            head, _ = wire.receive(worker.channel, most_bytes=0, deadline=deadline)
            answer = wire.Answer.model_validate_json(head)
            left, data = answer.left, b""
            if answer.ticket is not None:
                yield self._outcome(answer, answer.ticket, request.slot)
            request = wire.Request(kind="next", slot=self._ring.free_slot)
        if len(self._waiting) > MAX_HELD_FRAMES:
            raise ValueError("more frames were held back than a codec may")

    def _outcome(self, answer: wire.Answer, ticket: int, slot: int) -> Frame | LostFrame:
        if ticket not in self._waiting or answer.left >= len(self._waiting):
            raise ValueError("an answer was for a frame that was not given")
        header = self._waiting[ticket]
        if answer.detail:
            del self._waiting[ticket]
            return LostFrame(header, GapReason.DECODE_ERROR, answer.detail)
        frame = Frame(header, self._ring.take(slot, answer.height, answer.width))
        del self._waiting[ticket]
        return frame

    def _hire(self) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                pid = self._nursery.fork(self._order, theirs.fileno(), self._ring.descriptor)
            except BaseException:
                ours.close()
                raise
        self._worker = _Worker(pid, ours)
        return self._worker

    def _lose_worker(self, error: Exception) -> list[LostFrame]:
        """Bury the worker, and give up the frames that only it knew."""
        cause = self._cause(error, self._bury())
        self._losses = [t for t in self._losses if t > self._tickets - _FORGIVEN_AFTER]
        self._losses.append(self._tickets)
        return self._lose_all(f"{self._encoding.name} data ended its decoder: {cause}")

    def _lose_all(self, detail: str) -> list[LostFrame]:
        lost = sorted(self._waiting.values(), key=lambda header: header.frame_index)
        self._waiting.clear()
        return [LostFrame(header, GapReason.DECODE_ERROR, detail) for header in lost]

    def _cause(self, error: Exception, exit_code: int | None) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self._settings.timeout_s:g} s"
        if exit_code == -signal.SIGPROF:
            return f"it needs more than {self._settings.cpu_limit_s:g} s of CPU time"
        if exit_code is not None and exit_code < 0 and not isinstance(error, ValueError):
            return f"it died of {_SIGNAL_NAMES.get(-exit_code, f'signal {-exit_code}')}"
        return str(error)

    def _bury(self) -> int | None:
        """End the worker and return its exit code, if it can be known."""
        worker, self._worker = self._worker, None
        if worker is None:
            return None
        worker.channel.close()
        return self._nursery.end(worker.pid)

    def _refuse(self, header: FrameHeader) -> LostFrame:
        detail = f"not decoded: this stream's data ended its decoder {len(self._losses)} times"
        return LostFrame(header, GapReason.DECODE_ERROR, detail)
