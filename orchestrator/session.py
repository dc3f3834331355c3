"""One stream's life. `process_frame` is the walk: read it and you know the product."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Self, TypeVar

from orchestrator.contracts import SAM2_TRACKER
from orchestrator.decoding import open_decoder
from orchestrator.errors import DeadlinePassedError, ModelError
from orchestrator.flow import Emit, Flow, Outcome, timed
from orchestrator.overload.admission import credit
from orchestrator.overload.control import LoadControl, StreamLoad
from orchestrator.overload.ladder import FULL_EFFORT, Effort
from orchestrator.settings import Settings
from orchestrator.stages.ball import BallFollower
from orchestrator.stages.detect import BALL, Detector
from orchestrator.stages.evidence import Person
from orchestrator.stages.identify import Identifier, embed_kits
from orchestrator.stages.number import NumberReader
from orchestrator.stages.pace import Pace
from orchestrator.stages.record import IdentityLedger, Observations
from orchestrator.stages.track import Tracker
from orchestrator.telemetry import StreamStats
from orchestrator.triton.client import TritonClient
from orchestrator.types.detections import Detections
from orchestrator.types.frames import EncodedFrame, Frame, LostFrame
from orchestrator.types.results import Degradation, IdentityUpdate, Recognition
from orchestrator.types.streams import Caller, StreamConfig

_NOBODY = Caller("")
_LEARNT_BYTES = 4 << 20
"""What the people of a long match take; the tracker's last picture comes on top."""

_T = TypeVar("_T")
log = logging.getLogger(__name__)


class StreamState:
    """What one stream has learnt; with it, another session can go on after a broken connection.

    Attributes:
        count: Frames tracked so far, with those that were lost between them.
        stats: Totals so far.
        size: Width and height of its pictures before rotation, in pixels; None until known.
        unanswered: Recognitions that the client has not been sent so far, by frame index.
        untold: Revisions that no answer has brought to the client so far.
    """

    def __init__(
        self,
        config: StreamConfig,
        triton: TritonClient,
        settings: Settings,
        *,
        tenant: str,
    ) -> None:
        rate = config.frame_rate
        self.config = config
        self._triton = triton
        self.detector = Detector(triton, settings.detect)
        self.ball = BallFollower(self.detector, frame_rate=rate)
        self.tracker = Tracker(triton, settings.track, frame_rate=rate)
        self.identifier = Identifier(triton, settings.identify, frame_rate=rate)
        self.reader = NumberReader(triton, settings.number, frame_rate=rate)
        self.ledger = IdentityLedger(config, settings.identify, settings.number)
        self.pace = Pace()
        self.count = 0
        self.stats = StreamStats(tenant)
        self.size: tuple[int, int] | None = None
        self.unanswered: dict[int, Recognition] = {}
        self.untold: deque[IdentityUpdate] = deque()

    async def learn_kits(self) -> None:
        """Have the sides named by the descriptions of their kits, if there are any to learn.

        Raises:
            ModelError: The text model gave no answer.
        """
        if self.ledger.awaits_kits:
            self.ledger.learn_kits(await embed_kits(self._triton, self.config))

    @property
    def is_untrained(self) -> bool:
        """Whether a model that is there has random weights."""
        return any(model.is_untrained for model in self._triton.models)

    @property
    def size_bytes(self) -> int:
        """Roughly what it takes in memory."""
        return _LEARNT_BYTES + self.tracker.size_bytes


class StreamSession:
    """One connection's walk over a stream: feed it with `run`, then `close` it.

    Args:
        config: The stream's validated config.
        state: What the stream has learnt so far; after `close` a successor can go on with it.
        settings: Limits and depths.
        control: What all streams of the process share under load.
    """

    def __init__(
        self, config: StreamConfig, state: StreamState, settings: Settings, control: LoadControl
    ) -> None:
        self.state = state
        self._config, self._settings = config, settings
        self._decoder = open_decoder(
            config,
            max_pixels=settings.server.max_frame_pixels,
            settings=settings.decode,
            size=state.size,
        )
        self._load = StreamLoad(config, control, settings)
        self._tracking, self._looking = asyncio.Lock(), asyncio.Lock()

    @classmethod
    async def open(
        cls,
        config: StreamConfig,
        triton: TritonClient,
        settings: Settings,
        *,
        control: LoadControl | None = None,
        caller: Caller = _NOBODY,
        state: StreamState | None = None,
    ) -> Self:
        """Open a session.

        Args:
            config: The stream's validated config.
            triton: The models.
            settings: All settings.
            control: What the process shares under load; None for a stream by itself.
            caller: On whose behalf the models are asked.
            state: Of a session that was closed, to go on with it; None starts afresh.

        Raises:
            ModelUnavailableError: There was no detector so far.
        """
        if state is None:
            state = StreamState(config, triton.for_caller(caller), settings, tenant=caller.tenant)
            try:
                await state.learn_kits()
            except ModelError as error:
                log.warning("no side is named until kit descriptions can be read: %s", error)
        return cls(config, state, settings, control or LoadControl(settings))

    async def process_frame(
        self, frame: Frame, found: Detections, effort: Effort = FULL_EFFORT
    ) -> tuple[Recognition, deque[IdentityUpdate]]:
        """Track, identify and number, record: the walk behind decoding and detection.

        While people of one frame are identified, the next one is tracked.

        Args:
            frame: The next frame in presentation order.
            found: Its detections.
            effort: What may be spent on it.

        Returns:
            The recognition, and the revisions of earlier ones that the client must still be told,
            to be taken out when it is.

        Raises:
            DeadlinePassedError: When its turn came, there was no time left to track it.
        """
        state, seconds = self.state, dict[str, float]()
        known = state.unanswered.get(frame.header.frame_index)
        if known is not None:  # sent again: who has moved on since must not be moved back
            return replace(known, header=frame.header, stage_seconds=seconds), state.untold
        hints, people = found.labelled(BALL), found.unlabelled(BALL)
        # Locks are fair: frames come out of each in the order in which they went in.
        async with self._tracking:
            self._require_time_to_track(frame)
            with timed(seconds, "track"):
                hurried = self._load.hurried(frame, "track")
                elapsed = state.pace.advance(frame.header.frame_index)
                state.count += elapsed
                count = state.count - 1
                track = partial(state.tracker.track, max_observed=effort.max_observed)
                tracks, (ball, no_look) = await asyncio.gather(
                    track(hurried, people, elapsed=elapsed),
                    state.ball.follow(hurried, hints, elapsed=elapsed),
                )
                if tracks.is_cut:
                    state.ball.forget()
        async with self._looking:
            seen = frame, tracks, count
            embed = partial(state.identifier.embed, *seen, stretch=effort.identify_stretch)
            read = partial(state.reader.read, *seen, stretch=effort.number_stretch)
            (embeddings, no_teams), (readings, no_numbers) = await asyncio.gather(
                _optional(embed, seconds, "identify"), _optional(read, seconds, "number")
            )
            players, updates = state.ledger.record(
                frame.header, count, tracks, Observations(embeddings or {}, readings or {})
            )

        missing = {
            Degradation.UNTRAINED_WEIGHTS: state.is_untrained,
            Degradation.TRACKER_UNAVAILABLE: tracks.is_degraded,
            Degradation.IDENTIFICATION_UNAVAILABLE: no_teams or state.ledger.awaits_kits,
            Degradation.NUMBERS_UNAVAILABLE: no_numbers,
            Degradation.BALL_UNAVAILABLE: no_look,
        }
        degradations = effort.degradations.union(kind for kind, is_so in missing.items() if is_so)
        recognition = Recognition(
            frame.header, frame.width, frame.height, players, ball, degradations, seconds
        )
        state.unanswered[frame.header.frame_index] = recognition
        state.untold.extend(updates)
        return recognition, state.untold

    async def run(self, frames: AsyncIterator[EncodedFrame | LostFrame], emit: Emit) -> None:
        """Recognise a whole stream; see `Flow.run`."""
        flow = Flow(  # not kept: it refers to this session, which would then outlive its stream
            self._config,
            self._settings,
            self._load,
            self.state.stats,
            decoder=self._decoder,
            detect=self.state.detector.detect,
            process=self.process_frame,
        )
        learning = asyncio.create_task(self._learn_kits())

        async def answer(outcome: Outcome) -> None:
            if isinstance(outcome, Recognition):
                self._forget_unanswered(outcome.header.frame_index)
            await emit(outcome)

        try:
            await flow.run(frames, answer)
        finally:
            learning.cancel()

    async def close(self) -> None:
        """Let frames that were begun end, and free what is held here and in the cluster."""
        async with self._tracking, self._looking:
            await self.state.tracker.close()
        self.state.size = self._decoder.size
        await asyncio.to_thread(self._decoder.close)

    @property
    def credit(self) -> int:
        """Frames that the client may have under way."""
        return credit(self._config, self._settings)

    @property
    def stats(self) -> StreamStats:
        """Totals so far."""
        return self.state.stats

    @property
    def people(self) -> tuple[Person, ...]:
        """Everybody recognised so far, by ascending track id."""
        return self.state.ledger.people

    def _forget_unanswered(self, index: int) -> None:
        """A frame is answered: nobody will send it, or one that comes before it, again."""
        unanswered = self.state.unanswered
        self.state.unanswered = {i: known for i, known in unanswered.items() if i > index}

    async def _learn_kits(self) -> None:
        """Try on beside the frames, which do not wait for it."""
        while self.state.ledger.awaits_kits:
            await asyncio.sleep(self._settings.identify.interval_s)
            with suppress(ModelError):
                await self.state.learn_kits()

    def _require_time_to_track(self, frame: Frame) -> None:
        detail = self._load.hopeless(frame.deadline, "track", 0)
        if detail:
            raise DeadlinePassedError(SAM2_TRACKER.name, detail)


async def _optional(
    ask: Callable[[], Awaitable[_T]], seconds: dict[str, float], stage: str
) -> tuple[_T | None, bool]:
    """Ask a stage that results can do without; return its answer, and whether it is missing."""
    try:
        with timed(seconds, stage):
            return await ask(), False
    except ModelError:
        return None, True
