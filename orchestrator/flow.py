"""The flow of one stream's frames: each answered exactly once, in order, in bounded room.

    received ─▶ decoded ─▶ detected (ahead) ─▶ processed (overlapping) ─▶ emitted

At most `credit` frames are under way: a lossless client is slowed down; a live one loses, declared,
the surplus and what cannot be in time, before a model has worked on it.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from orchestrator.arrivals import Arrivals, Refused
from orchestrator.decoding import Decoder
from orchestrator.errors import ModelError, ModelOverloadedError
from orchestrator.overload.admission import credit
from orchestrator.overload.control import StreamLoad
from orchestrator.overload.ladder import Effort
from orchestrator.settings import Settings
from orchestrator.telemetry import StreamStats
from orchestrator.tracing import FrameTraces, stage_span
from orchestrator.types.detections import Detections
from orchestrator.types.frames import EncodedFrame, Frame, FrameHeader, GapReason, LostFrame
from orchestrator.types.results import IdentityUpdate, Recognition
from orchestrator.types.streams import StreamConfig

Outcome = Recognition | LostFrame | IdentityUpdate
Emit = Callable[[Outcome], Awaitable[None]]
Detect = Callable[[Frame], Awaitable[Detections]]
Updates = deque[IdentityUpdate]
Process = Callable[[Frame, Detections, Effort], Awaitable[tuple[Recognition, Updates]]]

_MOST_REFUSALS = 256
"""Frames refused unread that may wait for their gap to be sent."""
_MOST_REPEATED = 4
"""Units answered before that may wait to be decoded once more for others' sake."""
_MAX_TIMECODE = 32
_ROOM_S = 0.05
"""After this time a lossless stream tries again where there was no room for its frame."""
_FAILED = "stream %r failed on a frame"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Work:
    """A decoded frame on its way, with its detection under way."""

    frame: Frame
    seconds: dict[str, float]
    detecting: asyncio.Task[Detections | LostFrame]


_Decided = tuple[Frame | LostFrame | Refused, dict[str, float]]
"""What became of a frame that was taken, and its times so far."""
_Inbox = asyncio.Queue[EncodedFrame | Refused | None]
_Ready = asyncio.Queue[_Work | LostFrame | Refused | None]
_Answer = tuple[Recognition | LostFrame, Updates]
_Done = asyncio.Queue[asyncio.Task[_Answer] | LostFrame | Refused | None]


class Flow:
    """Runs the frames of one stream through decoding, detection and processing.

    Args:
        config: The stream's validated config.
        settings: Limits and depths.
        load: What load means for this stream.
        stats: Where every frame is counted.
        decoder: Turns encoded frames into pictures; blocking, called from a thread.
        detect: Finds people and ball; called for several frames at once.
        process: Does all the rest; called in order, for a few frames at once. It is never cancelled
            halfway. `ModelOverloadedError` from it means that it gave the frame up untouched. It
            returns a recognition, and the queue of revisions out of which those up to the frame are
            taken once the recognition was emitted.
    """

    def __init__(
        self,
        config: StreamConfig,
        settings: Settings,
        load: StreamLoad,
        stats: StreamStats,
        *,
        decoder: Decoder,
        detect: Detect,
        process: Process,
    ) -> None:
        self._config = config
        self._settings = settings
        self._load = load
        self.stats = stats
        self._decoder = decoder
        self._detect = detect
        self._process = process
        self.credit = credit(config, settings)
        # One more if live: with an answer comes credit for another frame, and that may be here
        # before the answer's revisions are told and its room is free.
        self._room = asyncio.Semaphore(self.credit + config.is_live)
        self._repeats = asyncio.Semaphore(_MOST_REPEATED)
        """Units that were answered before have room of their own: credit for them is back by then,
        and what a live client sends for it must not be refused."""
        self._arrivals = Arrivals(is_video=config.encoding.is_video)
        self._seconds: dict[int, dict[str, float]] = {}
        """Times so far of the frames that the decoder holds back, by index."""
        self._ahead = 0
        """Frames whose detection has begun and whose processing has not ended."""
        self._traces = FrameTraces()

    async def run(self, frames: AsyncIterator[EncodedFrame | LostFrame], emit: Emit) -> None:
        """Run a whole stream.

        Args:
            frames: What the client sends, some of it refused already; its end ends the stream.
            emit: Takes each outcome in order. While it waits, the stream stands still.
        """
        inbox: _Inbox = asyncio.Queue(self.credit + _MOST_REPEATED + _MOST_REFUSALS)
        ready: _Ready = asyncio.Queue(self._settings.stream.detect_ahead)
        done: _Done = asyncio.Queue(1)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._receive(frames, inbox))
                tasks.create_task(self._detect_ahead(inbox, ready, tasks))
                tasks.create_task(self._process_in_order(ready, done, tasks))
                tasks.create_task(self._answer(done, emit))
        finally:
            self.stats.received = self.stats.recognized + self.stats.gaps.total()
            self.stats.close()
            self._traces.close()

    async def _receive(
        self, frames: AsyncIterator[EncodedFrame | LostFrame], inbox: _Inbox
    ) -> None:
        async for encoded in frames:
            if isinstance(encoded, LostFrame):
                self.stats.count_received(0)
                await inbox.put(Refused(encoded))
                continue
            if not encoded.is_answered:
                self.stats.count_received(len(encoded.data))
                refusal = self._refusal(encoded)
                if refusal is not None:
                    await inbox.put(Refused(refusal))
                    continue
            elif len(encoded.data) > self._settings.server.max_frame_bytes:
                continue  # its answer was that it is too large
            await (self._repeats if encoded.is_answered else self._room).acquire()
            if not encoded.is_answered:
                self._arrivals.expect(encoded.header.frame_index)
                self._traces.begin(encoded.header.frame_index)
            await inbox.put(encoded)
        await inbox.put(None)

    def _refusal(self, encoded: EncodedFrame) -> LostFrame | None:
        """Say why a frame is not even decoded; None if it is welcome."""
        header, limit = encoded.header, self._settings.server.max_frame_bytes
        reason = GapReason.INVALID_FRAME
        if not self._arrivals.is_free(header.frame_index):
            newest = self._arrivals.newest_index
            detail = f"frame_index: expected more than {newest}, 0 or more, and unused"
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

    async def _detect_ahead(self, inbox: _Inbox, ready: _Ready, tasks: asyncio.TaskGroup) -> None:
        """Decode in order and start detecting each picture at once, a few ahead of processing."""
        while (item := await inbox.get()) is not None:
            for picture, seconds in await self._take(item):
                await ready.put(self._start(picture, seconds, tasks))
        for picture, seconds in self._decided(await asyncio.to_thread(self._decoder.flush)):
            await ready.put(self._start(picture, seconds, tasks))
        await ready.put(None)

    async def _take(self, item: EncodedFrame | Refused) -> list[_Decided]:
        """Take the next frame; return what is decided by now, with the times so far."""
        if isinstance(item, EncodedFrame):
            if not item.is_answered:
                return await self._decode(item)
            decoded = await self._decode_unawaited(item)
            self._repeats.release()
            return decoded
        if not self._arrivals.must_queue(item):
            return [(item, {})]
        self._arrivals.queue(item)
        # The decoder, which knows the order, gives it back in its turn.
        return await self._decode_unawaited(EncodedFrame(item.lost.header, b""))

    async def _decode_unawaited(self, encoded: EncodedFrame) -> list[_Decided]:
        """Decode a frame whose own picture nobody waits for; return which others are decided."""
        return self._decided(await asyncio.to_thread(self._decoder.decode, encoded))

    async def _decode(self, encoded: EncodedFrame) -> list[_Decided]:
        """Decode one frame; return the pictures that are decided by now, with their times."""
        index = encoded.header.frame_index
        if not self._config.encoding.is_video:  # what follows an access unit may need it
            lost = self._unwanted(encoded.header, "decode")
            if lost is not None:
                return [(lost, {})]
        seconds = {"queue": time.monotonic() - self._arrivals.since(index)}
        self._seconds[index] = seconds
        with self._traces.of(index), timed(seconds, "decode"):
            decoded = await asyncio.to_thread(self._decoder.decode, encoded)
        return self._decided(decoded)

    def _decided(self, decoded: list[Frame | LostFrame]) -> list[_Decided]:
        """Return what somebody waits for of what is decided now, each with its own times."""
        return [(item, self._times(item)) for item in self._arrivals.awaited(decoded)]

    def _times(self, item: Frame | LostFrame | Refused) -> dict[str, float]:
        return {} if isinstance(item, Refused) else self._seconds.pop(item.header.frame_index, {})

    def _start(
        self,
        picture: Frame | LostFrame | Refused,
        seconds: dict[str, float],
        tasks: asyncio.TaskGroup,
    ) -> _Work | LostFrame | Refused:
        """Start detecting in a picture, unless that is vain."""
        if not isinstance(picture, Frame):
            return picture
        lost = self._unwanted(picture.header, "detect")
        if lost is not None:
            return lost
        frame = replace(picture, deadline=self._deadline(picture.header))
        self._ahead += 1
        return _Work(frame, seconds, tasks.create_task(self._find(frame, seconds)))

    def _unwanted(self, header: FrameHeader, stage: str) -> LostFrame | None:
        """Say why a frame is given up before a stage, overload being the reason; None if not."""
        is_first = (stage == "detect") == self._config.encoding.is_video
        detail = (self._load.excess() if is_first else None) or self._load.hopeless(
            self._deadline(header), stage, self._ahead
        )
        return LostFrame(header, GapReason.OVERLOADED, detail) if detail else None

    def _deadline(self, header: FrameHeader) -> float:
        return self._load.deadline(self._arrivals.since(header.frame_index))

    async def _find(self, frame: Frame, seconds: dict[str, float]) -> Detections | LostFrame:
        while True:
            try:
                async with self._load.turn():
                    with self._traces.of(frame.header.frame_index), timed(seconds, "detect"):
                        return await self._detect(self._load.hurried(frame, "detect"))
            except ModelOverloadedError as error:
                if self._config.is_live:
                    self._load.observe_miss(seconds)
                    return LostFrame(frame.header, GapReason.OVERLOADED, str(error))
                await asyncio.sleep(_ROOM_S)
            except ModelError as error:
                return LostFrame(frame.header, GapReason.MODEL_UNAVAILABLE, str(error))
            except Exception:  # one frame's bug must not end a match
                log.exception(_FAILED, self._config.stream_name)
                return _failed(frame.header)

    async def _process_in_order(self, ready: _Ready, done: _Done, tasks: asyncio.TaskGroup) -> None:
        """Start processing each frame whose detections are there, the next before one has ended."""
        while (work := await ready.get()) is not None:
            if isinstance(work, _Work):
                found = await work.detecting
                await done.put(tasks.create_task(self._recognize(work, found)))
            else:
                await done.put(work)
        await done.put(None)

    async def _recognize(self, work: _Work, found: Detections | LostFrame) -> _Answer:
        header = work.frame.header
        with self._traces.of(header.frame_index):
            try:
                if isinstance(found, LostFrame):
                    return found, Updates()
                return await self._process_whole(work, found)
            except ModelOverloadedError as error:
                return LostFrame(header, GapReason.OVERLOADED, str(error)), Updates()
            except Exception:  # likewise
                log.exception(_FAILED, self._config.stream_name)
                return _failed(header), Updates()
            finally:
                self._ahead -= 1

    async def _process_whole(self, work: _Work, found: Detections) -> _Answer:
        effort = self._load.effort
        # Shielded: a client that vanishes must not leave what the stream has learnt in pieces.
        recognition, updates = await asyncio.shield(self._process(work.frame, found, effort))
        recognition.stage_seconds.update(work.seconds)
        elapsed = time.monotonic() - self._arrivals.since(work.frame.header.frame_index)
        recognition.stage_seconds["total"] = elapsed
        self._load.observe(effort.level, recognition.stage_seconds)
        return recognition, updates

    async def _answer(self, done: _Done, emit: Emit) -> None:
        while (item := await done.get()) is not None:
            if isinstance(item, Refused):
                self.stats.count_lost(item.lost.reason)
                await emit(item.lost)
                continue
            answer, updates = (item, Updates()) if isinstance(item, LostFrame) else await item
            self._account(answer)
            await emit(answer)
            await self._tell(updates, answer.header.frame_index, emit)
            self._room.release()

    async def _tell(self, updates: Updates, index: int, emit: Emit) -> None:
        """Emit what was revised up to a frame; what a broken connection cuts off stays untold."""
        while updates and updates[0].frame_index <= index:
            update = updates.popleft()
            self.stats.count_updates((update,))
            await emit(update)

    def _account(self, answer: Recognition | LostFrame) -> None:
        """Enter an answered frame in the totals."""
        self._arrivals.settle(answer.header.frame_index)
        if isinstance(answer, LostFrame):
            self.stats.count_lost(answer.reason)
            self._traces.end(answer.header.frame_index, answer.reason)
        else:
            self.stats.count_recognized(answer)
            self._traces.end(answer.header.frame_index)


def _failed(header: FrameHeader) -> LostFrame:
    return LostFrame(header, GapReason.INTERNAL, "the server failed on this frame")


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note the wall time of a block under the name of its stage."""
    begun = time.monotonic()
    try:
        with stage_span(stage):
            yield
    finally:
        seconds[stage] = time.monotonic() - begun
