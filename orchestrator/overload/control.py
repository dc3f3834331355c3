"""What all streams of a process share under load, and what load means for each of them."""

import asyncio
import math
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace

from orchestrator.metrics import DEADLINE_MISSES
from orchestrator.overload.ladder import FULL_EFFORT, Effort, Ladder, Level
from orchestrator.overload.profile import Profile
from orchestrator.settings import Settings
from orchestrator.triton.meter import WINDOW_S, Rate
from orchestrator.types.frames import Frame
from orchestrator.types.streams import StreamConfig

_MISS = 2.0
"""Strain of a frame that was lost in the queue of a model."""
_SMOOTHING = 0.2
"""Weight of the newest frame in a stream's pace: one slow frame is no overload."""


class LoadControl:
    """The process's measured profile and its ladder; one per process."""

    def __init__(self, settings: Settings) -> None:
        self.profile = Profile(settings.overload.profile_window_s)
        # Times measured on one step tell nothing of another.
        self.ladder = Ladder(settings.overload, time.monotonic, on_change=self.profile.clear)
        self._probe_interval_s = settings.overload.probe_interval_s
        self._probed_at = -math.inf
        self._answered = Rate(time.monotonic)
        self._single = asyncio.Lock()

    @property
    def frames_per_s(self) -> float:
        """Frames recognised per second, over the last ten seconds, in all streams."""
        return self._answered.per_s()

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left out of the frames of the last ten seconds."""
        return self.ladder.normal_s >= WINDOW_S

    def observe(self, stage_seconds: dict[str, float]) -> None:
        """Take note of a recognised frame and its stage times, in seconds."""
        self.profile.observe(stage_seconds)
        self._answered.add(1)

    def may_probe(self) -> bool:
        """Say whether one frame may try in spite of its expectation; the next one must wait.

        All streams together get one each interval: many streams' tries would fill the models with
        frames that come too late.
        """
        now = time.monotonic()
        if now - self._probed_at < self._probe_interval_s:
            return False
        self._probed_at = now
        return True

    def lossless_turn(self) -> AbstractAsyncContextManager[None]:
        """Hold this while a frame of a lossless stream is detected: they yield to live ones.

        While live streams have nothing to spare, one such frame of the whole process goes at a
        time, the longest waiting first.
        """
        return self._single if self.ladder.is_tight else nullcontext()


class StreamLoad:
    """One stream under load: a lossless one waits, a live one loses frames or detail.

    For a lossless stream nothing here depends on the clock.
    """

    def __init__(self, config: StreamConfig, control: LoadControl, settings: Settings) -> None:
        self._control = control
        self._is_live = config.is_live
        self._frame_rate = config.frame_rate
        self._budget_s = config.latency_budget_s if config.is_live else None
        self._detect_ahead = settings.stream.detect_ahead
        self._probe_deadline = -math.inf
        self._thinned = 0
        self._pace = 0.0

    @property
    def effort(self) -> Effort:
        """What the next frame may cost."""
        return self._control.ladder.effort if self._is_live else FULL_EFFORT

    def deadline(self, arrived: float) -> float:
        """Return when the result of a frame that arrived then is worth nothing any more."""
        return math.inf if self._budget_s is None else arrived + self._budget_s

    def hurried(self, frame: Frame, stage: str) -> Frame:
        """Return a frame with the deadline of a stage that begins now: later ones need time too."""
        if frame.deadline == math.inf:
            return frame
        return replace(frame, deadline=self._control.profile.stage_deadline(stage, frame.deadline))

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Hold this while a frame is detected."""
        return nullcontext() if self._is_live else self._control.lossless_turn()

    def excess(self) -> str | None:
        """Say why the next frame, whatever its age, is dropped; None if it is not.

        Call it once for each frame.
        """
        if not self._is_live or not self._control.ladder.is_thinning:
            return None
        self._thinned += 1
        return "overload: every second frame is dropped" if self._thinned % 2 else None

    def hopeless(self, deadline: float, stage: str, ahead: int) -> str | None:
        """Say why a frame is not worth the work that is left; None if it is.

        Now and then a frame goes on in spite of its expectation, or nobody would learn that the
        stages became faster; one whose time is over never does.

        Args:
            deadline: Of the frame.
            stage: The stage that it would begin now.
            ahead: Frames of this stream that must be tracked before it.
        """
        now = time.monotonic()
        if deadline == math.inf:
            return None
        if now > deadline:
            DEADLINE_MISSES.inc()
            return f"not recognised within {self._budget_s:g} s"
        profile = self._control.profile
        needed = profile.remaining(stage) + ahead * profile.seconds("track")
        if now + needed <= deadline or self._is_probe(deadline):
            return None
        DEADLINE_MISSES.inc()
        self._observe_given_up()
        return (
            f"overload: given up before {stage}, needs {needed:.2f} s more, of "
            f"{self._budget_s:g} s {deadline - now:.2f} s are left"
        )

    def observe(self, level: Level, stage_seconds: dict[str, float]) -> None:
        """Take note of an answered frame: the level at which it was done, and its stage times."""
        self._control.observe(stage_seconds)
        if self._is_live:
            self._control.ladder.observe(level, self._strain(stage_seconds))
        if self._budget_s is not None and stage_seconds["total"] > self._budget_s:
            DEADLINE_MISSES.inc()

    def observe_miss(self, stage_seconds: dict[str, float]) -> None:
        """Take note of a live frame that a model had no time for, and of its times so far."""
        DEADLINE_MISSES.inc()
        self._control.profile.observe(stage_seconds)
        self._control.ladder.observe(self._control.ladder.level, _MISS)

    def _is_probe(self, deadline: float) -> bool:
        is_chosen = deadline == self._probe_deadline  # before an earlier stage
        if not is_chosen and self._control.may_probe():
            self._probe_deadline = deadline
            return True
        return is_chosen

    def _observe_given_up(self) -> None:
        """Take note of a frame given up that would have been late even without a wait."""
        assert self._budget_s is not None
        lateness = self._control.profile.remaining("decode") / self._budget_s
        if lateness > 1:
            self._control.ladder.observe(self._control.ladder.level, lateness)

    def _strain(self, stage_seconds: dict[str, float]) -> float:
        """How near a frame came to what its stream can bear.

        Waits behind the stream's own frames do not count: they come from clients that send faster
        than they said, or that do not read. A stage too slow for the stream's rate shows as pace.
        """
        seconds = {"decode": 0.0, "detect": 0.0, "track": 0.0, **stage_seconds}
        last = max(seconds.get("identify", 0.0), seconds.get("number", 0.0))
        detect = seconds["detect"] / (1 + self._detect_ahead)
        slowest = max(seconds["decode"], detect, seconds["track"], last)
        self._pace += _SMOOTHING * (slowest * self._frame_rate - self._pace)
        spent = seconds["decode"] + seconds["detect"] + seconds["track"] + last
        lateness = spent / self._budget_s if self._budget_s else 0.0
        return max(self._pace, lateness)
