"""The flow of one stream's frames: each answered exactly once, in order, in bounded room.

    received ─▶ decoded ─▶ detected (ahead) ─▶ processed ─▶ emitted

At most `credit` frames are under way: a lossless client is slowed down, a live one loses the
surplus, and what comes too late, declared.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from orchestrator.decoding import Decoder
from orchestrator.errors import ModelError
from orchestrator.settings import Settings
from orchestrator.telemetry import StreamStats
from orchestrator.types import (
    Detections,
    EncodedFrame,
    Frame,
    FrameHeader,
    GapReason,
    IdentityUpdate,
    LostFrame,
    Recognition,
    StreamConfig,
)
from orchestrator.video_decoding import MAX_HELD_FRAMES

Outcome = Recognition | LostFrame | IdentityUpdate
Emit = Callable[[Outcome], Awaitable[None]]
Detect = Callable[[Frame], Awaitable[Detections]]
Process = Callable[[Frame, Detections], Awaitable[tuple[Recognition, list[IdentityUpdate]]]]

_MOST_REFUSALS = 256
"""Frames refused unread that may wait for their gap to be sent."""
_MAX_TIMECODE = 32

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Refused:
    """A frame that was turned away unread; it never held room."""

    lost: LostFrame


@dataclass(slots=True)
class _Work:
    """A decoded frame on its way, with its detection under way."""

    frame: Frame
    seconds: dict[str, float]
    detecting: asyncio.Task[Detections | LostFrame]


_Inbox = asyncio.Queue[EncodedFrame | _Refused | None]
_Ready = asyncio.Queue[_Work | LostFrame | _Refused | None]


class Flow:
    """Runs the frames of one stream through decoding, detection and processing.

    Args:
        config: The stream's validated config.
        settings: Limits and depths.
        decoder: Turns encoded frames into pictures; blocking, called from a thread.
        detect: Finds people and ball; called for several frames at once.
        process: Does all the rest; called for one frame at a time, in order.
    """

    def __init__(
        self,
        config: StreamConfig,
        settings: Settings,
        *,
        decoder: Decoder,
        detect: Detect,
        process: Process,
    ) -> None:
        self._config = config
        self._settings = settings
        self._decoder = decoder
        self._detect = detect
        self._process = process
        self.credit = settings.stream.credit_frame_count
        if config.encoding.is_video:
            self.credit += MAX_HELD_FRAMES + 1
        self._room = asyncio.Semaphore(self.credit)
        self._arrived: dict[int, float] = {}
        self._newest_index = -1
        self._answered_index = -1
        self.stats = StreamStats()

    async def run(self, frames: AsyncIterator[EncodedFrame], emit: Emit) -> None:
        """Run a whole stream.

        Args:
            frames: What the client sends; its end ends the stream.
            emit: Takes each outcome in order. While it waits, the stream stands still.
        """
        inbox: _Inbox = asyncio.Queue(self.credit + _MOST_REFUSALS)
        ready: _Ready = asyncio.Queue(self._settings.stream.detect_ahead)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive(frames, inbox))
            tasks.create_task(self._detect_ahead(inbox, ready, tasks))
            tasks.create_task(self._answer(ready, emit))

    async def _receive(self, frames: AsyncIterator[EncodedFrame], inbox: _Inbox) -> None:
        async for encoded in frames:
            self.stats.received += 1
            refusal = self._refusal(encoded)
            if refusal is not None:
                await inbox.put(_Refused(refusal))
                continue
            await self._room.acquire()
            self._arrived[encoded.header.frame_index] = time.monotonic()
            self._newest_index = max(self._newest_index, encoded.header.frame_index)
            await inbox.put(encoded)
        await inbox.put(None)

    def _refusal(self, encoded: EncodedFrame) -> LostFrame | None:
        """Say why a frame is not even decoded; None if it is welcome."""
        header, limit = encoded.header, self._settings.server.max_frame_bytes
        reason = GapReason.INVALID_FRAME
        if not self._is_next(header.frame_index):
            detail = f"frame_index: expected more than {self._newest_index}, 0 or more, and unused"
        elif len(header.timecode) > _MAX_TIMECODE:
            detail = f"timecode: expected at most {_MAX_TIMECODE} characters"
        elif len(encoded.data) > limit:
            reason = GapReason.DECODE_ERROR
            detail = f"data: expected at most {limit} bytes, got {len(encoded.data)}"
        elif self._config.is_live and self._room.locked():
            reason = GapReason.OVERLOADED
            detail = f"more than {self.credit} frames under way"
        else:
            return None
        return LostFrame(header, reason, detail)

    def _is_next(self, index: int) -> bool:
        if self._config.encoding.is_video:  # access units come in decoding order
            return index > self._answered_index and index not in self._arrived
        return index > self._newest_index

    async def _detect_ahead(self, inbox: _Inbox, ready: _Ready, tasks: asyncio.TaskGroup) -> None:
        """Decode in order and start detecting each picture at once, a few ahead of processing."""
        while (item := await inbox.get()) is not None:
            if isinstance(item, _Refused):
                await ready.put(item)
                continue
            seconds = {"queue": time.monotonic() - self._arrived[item.header.frame_index]}
            with timed(seconds, "decode"):
                decoded = await asyncio.to_thread(self._decoder.decode, item)
            for picture in decoded:
                await ready.put(self._start(picture, seconds, tasks))
        for picture in await asyncio.to_thread(self._decoder.flush):
            await ready.put(self._start(picture, {}, tasks))
        await ready.put(None)

    def _start(
        self, picture: Frame | LostFrame, seconds: dict[str, float], tasks: asyncio.TaskGroup
    ) -> _Work | LostFrame:
        if isinstance(picture, LostFrame):
            return picture
        if self._is_late(picture.header):
            return self._late(picture.header)
        seconds = dict(seconds)
        return _Work(picture, seconds, tasks.create_task(self._find(picture, seconds)))

    async def _find(self, frame: Frame, seconds: dict[str, float]) -> Detections | LostFrame:
        try:
            with timed(seconds, "detect"):
                return await self._detect(frame)
        except ModelError as error:
            return LostFrame(frame.header, GapReason.MODEL_UNAVAILABLE, str(error))

    async def _answer(self, ready: _Ready, emit: Emit) -> None:
        while (work := await ready.get()) is not None:
            if isinstance(work, _Refused):
                self.stats.gaps[work.lost.reason] += 1
                await emit(work.lost)
                continue
            answer, updates = (
                (work, []) if isinstance(work, LostFrame) else await self._recognize(work)
            )
            self._account(answer)
            for outcome in (answer, *updates):
                await emit(outcome)
            self._room.release()

    async def _recognize(self, work: _Work) -> tuple[Recognition | LostFrame, list[IdentityUpdate]]:
        header = work.frame.header
        found = await work.detecting
        if isinstance(found, LostFrame):
            return found, []
        if self._is_late(header):
            return self._late(header), []
        try:
            recognition, updates = await self._process(work.frame, found)
        except Exception:  # one frame's bug must not end a match
            log.exception("stream %s frame %d", self._config.stream_name, header.frame_index)
            detail = "the server failed on this frame"
            return LostFrame(header, GapReason.INTERNAL, detail), []
        recognition.stage_seconds.update(work.seconds)
        elapsed = time.monotonic() - self._arrived[header.frame_index]
        recognition.stage_seconds["total"] = elapsed
        return recognition, updates

    def _account(self, answer: Recognition | LostFrame) -> None:
        """Enter an answered frame in the totals."""
        self._answered_index = max(self._answered_index, answer.header.frame_index)
        del self._arrived[answer.header.frame_index]
        if isinstance(answer, LostFrame):
            self.stats.gaps[answer.reason] += 1
            return
        self.stats.recognized += 1
        self.stats.degradations.update(answer.degradations)
        for stage, seconds in answer.stage_seconds.items():
            self.stats.latencies[stage].add(seconds)

    def _is_late(self, header: FrameHeader) -> bool:
        budget = self._config.latency_budget_s
        if not self._config.is_live or budget is None:
            return False
        return time.monotonic() - self._arrived[header.frame_index] > budget

    def _late(self, header: FrameHeader) -> LostFrame:
        detail = f"not recognised within {self._config.latency_budget_s} s"
        return LostFrame(header, GapReason.OVERLOADED, detail)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note the wall time of a block under the name of its stage."""
    begun = time.monotonic()
    try:
        yield
    finally:
        seconds[stage] = time.monotonic() - begun
