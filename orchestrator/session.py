"""One stream's life: the walk of a frame through the stages, in order, with bounded room.

    received ─▶ decoded ─▶ detected (ahead) ─▶ tracked ─▶ identified ∥ numbered ─▶ recorded

Every frame received is answered exactly once, by a `Recognition` or a `LostFrame`, in presentation
order. At most `credit` frames are under way: a lossless client is slowed down, a live one loses the
surplus.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from orchestrator.decoding import open_decoder
from orchestrator.errors import ModelError
from orchestrator.settings import Settings
from orchestrator.stages.ball import BallFollower
from orchestrator.stages.detect import Detector
from orchestrator.stages.evidence import Person
from orchestrator.stages.identify import Embedding, Identifier, embed_texts
from orchestrator.stages.number import NumberReader
from orchestrator.stages.record import Ledger, Observations
from orchestrator.stages.track import Tracker
from orchestrator.telemetry import StreamStats
from orchestrator.triton.client import TritonClient
from orchestrator.types import (
    Degradation,
    Detections,
    EncodedFrame,
    Frame,
    FrameHeader,
    GapReason,
    IdentityUpdate,
    LostFrame,
    NumberReading,
    Recognition,
    StreamConfig,
    Tracks,
)
from orchestrator.video_decoding import MAX_HELD_FRAMES

Outcome = Recognition | LostFrame | IdentityUpdate
Emit = Callable[[Outcome], Awaitable[None]]

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


class StreamSession:
    """All state of one stream. Open with `StreamSession.open`, feed with `run`, then `close`."""

    def __init__(
        self,
        config: StreamConfig,
        triton: TritonClient,
        settings: Settings,
        kits: NDArray[np.float32] | None = None,
    ) -> None:
        rate = config.frame_rate
        self._config = config
        self._settings = settings
        self._decoder = open_decoder(config, max_pixels=settings.server.max_frame_pixels)
        self._detector = Detector(triton, settings.detect)
        self._ball = BallFollower()
        self._tracker = Tracker(triton, settings.track, frame_rate=rate)
        self._identifier = Identifier(triton, settings.identify, frame_rate=rate)
        self._reader = NumberReader(triton, settings.number, frame_rate=rate)
        self._ledger = Ledger(config, settings.identify, settings.number, kits=kits)
        self._untrained = any(m.parameters.get("weights") == "random" for m in triton.models)
        self.credit = settings.stream.credit_frame_count
        if config.encoding.is_video:
            self.credit += MAX_HELD_FRAMES + 1
        self._room = asyncio.Semaphore(self.credit)
        self._arrived: dict[int, float] = {}
        self._newest_index = -1
        self._answered_index = -1
        self._frame_count = 0
        self.stats = StreamStats()

    @classmethod
    async def open(cls, config: StreamConfig, triton: TritonClient, settings: Settings) -> Self:
        """Open a session, embedding the kit descriptions of the config.

        Raises:
            ModelError: There are kit descriptions, and the text model gave no answer.
        """
        return cls(config, triton, settings, await _kits(config, triton))

    async def process_frame(self, frame: Frame, found: Detections) -> list[Outcome]:
        """The walk behind detection: track, identify and number, record.

        Args:
            frame: The next frame in presentation order.
            found: Its detections.

        Returns:
            The recognition, then the revisions of earlier ones that it brought.
        """
        seconds: dict[str, float] = {}
        is_ball = np.array([label == "ball" for label in found.label], np.bool_)
        ball = self._ball.follow(found.where(is_ball), width=frame.width)
        with _timed(seconds, "track"):
            tracks = await self._tracker.track(frame, found.where(~is_ball))
        (embeddings, no_teams), (readings, no_numbers) = await asyncio.gather(
            self._identify(frame, tracks, seconds), self._read_numbers(frame, tracks, seconds)
        )
        players, updates = self._ledger.record(
            frame.header, self._frame_count, tracks, Observations(embeddings, readings)
        )
        self._frame_count += 1
        missing = {
            Degradation.UNTRAINED_WEIGHTS: self._untrained,
            Degradation.TRACKER_UNAVAILABLE: tracks.is_degraded,
            Degradation.IDENTIFICATION_UNAVAILABLE: no_teams,
            Degradation.NUMBERS_UNAVAILABLE: no_numbers,
        }
        degradations = frozenset(kind for kind, is_missing in missing.items() if is_missing)
        recognition = Recognition(
            frame.header, frame.width, frame.height, players, ball, degradations, seconds
        )
        return [recognition, *updates]

    async def run(self, frames: AsyncIterator[EncodedFrame], emit: Emit) -> None:
        """Recognise a whole stream.

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

    async def close(self) -> None:
        """Free what the stream holds here and in the cluster."""
        await self._tracker.close()
        await asyncio.to_thread(self._decoder.close)

    @property
    def people(self) -> tuple[Person, ...]:
        """Everybody recognised so far, by ascending track id."""
        return self._ledger.people

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
        if not self._is_next(header.frame_index):
            detail = f"frame_index: expected more than {self._newest_index}, 0 or more, and unused"
        elif len(encoded.data) > limit:
            detail = f"data: expected at most {limit} bytes, got {len(encoded.data)}"
            return LostFrame(header, GapReason.DECODE_ERROR, detail)
        elif len(header.timecode) > _MAX_TIMECODE:
            detail = f"timecode: expected at most {_MAX_TIMECODE} characters"
        elif self._config.is_live and self._room.locked():
            detail = f"more than {self.credit} frames under way"
            return LostFrame(header, GapReason.OVERLOADED, detail)
        else:
            return None
        return LostFrame(header, GapReason.INVALID_FRAME, detail)

    def _is_next(self, index: int) -> bool:
        if self._config.encoding.is_video:  # access units come in decoding order
            return index > self._answered_index and index not in self._arrived
        return index > self._newest_index

    async def _detect_ahead(self, inbox: _Inbox, ready: _Ready, tasks: asyncio.TaskGroup) -> None:
        """Decode in order and start detecting each picture at once, a few ahead of tracking."""
        while (item := await inbox.get()) is not None:
            if isinstance(item, _Refused):
                await ready.put(item)
                continue
            arrived = self._arrived[item.header.frame_index]
            seconds = {"queue": time.monotonic() - arrived}
            with _timed(seconds, "decode"):
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
        return _Work(picture, seconds, tasks.create_task(self._detect(picture, seconds)))

    async def _detect(self, frame: Frame, seconds: dict[str, float]) -> Detections | LostFrame:
        try:
            with _timed(seconds, "detect"):
                return await self._detector.detect(frame)
        except ModelError as error:
            return LostFrame(frame.header, GapReason.MODEL_UNAVAILABLE, str(error))

    async def _answer(self, ready: _Ready, emit: Emit) -> None:
        while (work := await ready.get()) is not None:
            if isinstance(work, _Refused):
                self.stats.gaps[work.lost.reason] += 1
                await emit(work.lost)
                continue
            outcomes: list[Outcome] = (
                [work] if isinstance(work, LostFrame) else await self._recognize(work)
            )
            self._account(outcomes[0])
            for outcome in outcomes:
                await emit(outcome)
            self._room.release()

    async def _recognize(self, work: _Work) -> list[Outcome]:
        header = work.frame.header
        found = await work.detecting
        if isinstance(found, LostFrame):
            return [found]
        if self._is_late(header):
            return [self._late(header)]
        try:
            outcomes = await self.process_frame(work.frame, found)
        except Exception:  # one frame's bug must not end a match
            log.exception("stream %s frame %d", self._config.stream_name, header.frame_index)
            return [LostFrame(header, GapReason.INTERNAL, "the server failed on this frame")]
        assert isinstance(outcomes[0], Recognition)
        seconds = outcomes[0].stage_seconds
        seconds.update(work.seconds)
        seconds["total"] = time.monotonic() - self._arrived[header.frame_index]
        return outcomes

    def _account(self, answer: Outcome) -> None:
        """Enter an answered frame in the totals."""
        assert not isinstance(answer, IdentityUpdate)
        self._answered_index = max(self._answered_index, answer.header.frame_index)
        del self._arrived[answer.header.frame_index]
        if isinstance(answer, LostFrame):
            self.stats.gaps[answer.reason] += 1
        else:
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

    async def _identify(
        self, frame: Frame, tracks: Tracks, seconds: dict[str, float]
    ) -> tuple[dict[int, Embedding], bool]:
        try:
            with _timed(seconds, "identify"):
                return await self._identifier.embed(frame, tracks, self._frame_count), False
        except ModelError:
            return {}, True

    async def _read_numbers(
        self, frame: Frame, tracks: Tracks, seconds: dict[str, float]
    ) -> tuple[dict[int, NumberReading], bool]:
        try:
            with _timed(seconds, "number"):
                return await self._reader.read(frame, tracks, self._frame_count), False
        except ModelError:
            return {}, True


async def _kits(config: StreamConfig, triton: TritonClient) -> NDArray[np.float32] | None:
    """Embed the kit descriptions, `(2, D)`; a side without one is the other's opposite."""
    texts = [config.team_a.kit_description, config.team_b.kit_description]
    given = [text for text in texts if text]
    if not given:
        return None
    embedded = iter(await embed_texts(triton, given))
    a, b = (next(embedded) if text else None for text in texts)
    rows = [-b if a is None and b is not None else a, -a if b is None and a is not None else b]
    return np.stack([row for row in rows if row is not None])


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    begun = time.monotonic()
    try:
        yield
    finally:
        seconds[stage] = time.monotonic() - begun
