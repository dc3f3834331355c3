"""One stream's life. `process_frame` is the walk: read it and you know the product."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.decoding import open_decoder
from orchestrator.errors import ModelError
from orchestrator.flow import Emit, Flow, timed
from orchestrator.settings import Settings
from orchestrator.stages.ball import BallFollower
from orchestrator.stages.detect import BALL, Detector
from orchestrator.stages.evidence import Person
from orchestrator.stages.identify import Identifier, embed_texts
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
    IdentityUpdate,
    Recognition,
    StreamConfig,
)

_T = TypeVar("_T")


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
        self._decoder = open_decoder(config, max_pixels=settings.server.max_frame_pixels)
        self._detector = Detector(triton, settings.detect)
        self._ball = BallFollower(self._detector)
        self._tracker = Tracker(triton, settings.track, frame_rate=rate)
        self._identifier = Identifier(triton, settings.identify, frame_rate=rate)
        self._reader = NumberReader(triton, settings.number, frame_rate=rate)
        self._ledger = Ledger(config, settings.identify, settings.number, kits=kits)
        self._untrained = any(m.parameters.get("weights") == "random" for m in triton.models)
        self._count = 0
        self._flow = Flow(
            config,
            settings,
            decoder=self._decoder,
            detect=self._detector.detect,
            process=self.process_frame,
        )

    @classmethod
    async def open(cls, config: StreamConfig, triton: TritonClient, settings: Settings) -> Self:
        """Open a session, embedding the kit descriptions of the config.

        Raises:
            ModelError: There are kit descriptions, and the text model gave no answer.
        """
        return cls(config, triton, settings, await _kits(config, triton))

    async def process_frame(
        self, frame: Frame, found: Detections
    ) -> tuple[Recognition, list[IdentityUpdate]]:
        """Track, identify and number, record: the walk behind decoding and detection.

        Args:
            frame: The next frame in presentation order.
            found: Its detections.

        Returns:
            The recognition, and the revisions of earlier ones that it brought.
        """
        seconds: dict[str, float] = {}
        hints, people = found.labelled(BALL), found.unlabelled(BALL)
        with timed(seconds, "track"):
            tracks, ball = await asyncio.gather(
                self._tracker.track(frame, people), self._ball.follow(frame, hints)
            )
        embedding = self._identifier.embed(frame, tracks, self._count)
        reading = self._reader.read(frame, tracks, self._count)
        (embeddings, no_teams), (readings, no_numbers) = await asyncio.gather(
            _optional(embedding, seconds, "identify"), _optional(reading, seconds, "number")
        )
        players, updates = self._ledger.record(
            frame.header, self._count, tracks, Observations(embeddings or {}, readings or {})
        )

        self._count += 1
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
        return recognition, updates

    async def run(self, frames: AsyncIterator[EncodedFrame], emit: Emit) -> None:
        """Recognise a whole stream; see `Flow.run`."""
        await self._flow.run(frames, emit)

    async def close(self) -> None:
        """Free what the stream holds here and in the cluster."""
        await self._tracker.close()
        await asyncio.to_thread(self._decoder.close)

    @property
    def credit(self) -> int:
        """Frames that the client may have under way."""
        return self._flow.credit

    @property
    def stats(self) -> StreamStats:
        """Totals so far."""
        return self._flow.stats

    @property
    def people(self) -> tuple[Person, ...]:
        """Everybody recognised so far, by ascending track id."""
        return self._ledger.people


async def _optional(
    asking: Awaitable[_T], seconds: dict[str, float], stage: str
) -> tuple[_T | None, bool]:
    """Await a stage that results can do without; return its answer, and whether it is missing."""
    try:
        with timed(seconds, stage):
            return await asking, False
    except ModelError:
        return None, True


async def _kits(config: StreamConfig, triton: TritonClient) -> NDArray[np.float32] | None:
    """Embed the kit descriptions, `(2, D)`; a side without one is the other's opposite."""
    texts = [config.team_a.kit_description, config.team_b.kit_description]
    given = [text for text in texts if text]
    if not given:
        return None
    embedded = await embed_texts(triton, given)
    if len(given) == 2:
        return np.asarray(np.stack(embedded), np.float32)
    known = embedded[0]
    return np.asarray([known, -known] if texts[0] else [-known, known], np.float32)
