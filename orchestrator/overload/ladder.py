"""The ladder of degradations: step by step less is done per live frame, and more again.

Up is fast, down is slow, and a step down that had to be taken back makes the next try later: under
a load that lies between two steps the ladder rests instead of swinging.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from orchestrator.metrics import DEGRADATION_LEVEL
from orchestrator.overload.window import MovingWindow
from orchestrator.settings import OverloadSettings
from orchestrator.types.results import Degradation

_PRESSURE_SHARE = 0.9
_LONGEST_PATIENCE = 16
"""Most that the time before a step down grows, as a factor."""

log = logging.getLogger(__name__)


class Level(IntEnum):
    """How much is left out of live frames; each step includes those before it."""

    NORMAL = 0
    IDENTIFY_LESS = 1
    NUMBER_LESS = 2
    SEGMENT_LESS = 3
    BOXES_ONLY = 4
    THIN_FRAMES = 5


_DEGRADATIONS = {
    Level.IDENTIFY_LESS: Degradation.IDENTIFIED_LESS_OFTEN,
    Level.NUMBER_LESS: Degradation.NUMBERED_LESS_OFTEN,
    Level.SEGMENT_LESS: Degradation.SEGMENTED_LESS_OFTEN,
    Level.BOXES_ONLY: Degradation.BOXES_ONLY,
}


@dataclass(frozen=True, slots=True)
class Effort:
    """What is spent on one frame.

    Attributes:
        level: The ladder's step that it belongs to.
        identify_stretch: Factor on the time between two embeddings of a track.
        number_stretch: Factor on the time between two readings of a track.
        max_observed: Most objects that SAM2 looks for, 0 for all; None asks it for none at all.
    """

    level: Level = Level.NORMAL
    identify_stretch: int = 1
    number_stretch: int = 1
    max_observed: int | None = 0

    @property
    def degradations(self) -> frozenset[Degradation]:
        """What a result lacks for it."""
        lacking = {kind for level, kind in _DEGRADATIONS.items() if level <= self.level}
        if Degradation.BOXES_ONLY in lacking:
            lacking.remove(Degradation.SEGMENTED_LESS_OFTEN)
        return frozenset(lacking)


FULL_EFFORT = Effort()


class Ladder:
    """The process's level of degradation, set by the strain of its live frames.

    Args:
        settings: Marks and times.
        clock: Seconds that never fall.
        on_change: Called after every step.
    """

    def __init__(
        self,
        settings: OverloadSettings,
        clock: Callable[[], float] = time.monotonic,
        *,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._on_change = on_change
        self._level = Level.NORMAL
        self._strain = MovingWindow(settings.ladder_window_s)
        self._patience_s = settings.lower_after_s
        self._high_since: float | None = None
        self._calm_since: float | None = clock()
        self._lowered_at = float("-inf")
        self._entered_at = float("-inf")
        self._is_climbing = False
        DEGRADATION_LEVEL.set_function(lambda: float(self.level))

    @property
    def level(self) -> Level:
        """The level now; without live frames it falls back to normal by itself."""
        self._settle(self._clock())
        return self._level

    @property
    def effort(self) -> Effort:
        """What a live frame may cost now."""
        level, settings = self.level, self._settings
        observed: int | None = settings.max_observed if level >= Level.SEGMENT_LESS else 0
        if level >= Level.BOXES_ONLY:
            observed = None
        return Effort(
            level,
            settings.stretch if level >= Level.IDENTIFY_LESS else 1,
            settings.stretch if level >= Level.NUMBER_LESS else 1,
            observed,
        )

    @property
    def normal_s(self) -> float:
        """How long nothing has been left out, in seconds; infinite if nothing ever was."""
        return 0.0 if self.level > Level.NORMAL else self._clock() - self._entered_at

    @property
    def is_thinning(self) -> bool:
        """Whether every second live frame is to be dropped.

        On the last step that is so while strain is high, not all the time: half of all frames would
        often be more than need be.
        """
        is_last = self.level == Level.THIN_FRAMES
        return is_last and self._pressure(self._clock()) > self._settings.high_mark

    @property
    def is_tight(self) -> bool:
        """Whether live streams have nothing to spare for others."""
        return self.level > Level.NORMAL or self._pressure(self._clock()) > self._settings.low_mark

    def observe(self, level: Level, strain: float) -> None:
        """Take note of an answered live frame.

        Args:
            level: At which it was done. What was begun at another level tells nothing of this one.
            strain: How near it came to what its stream can bear; 1 is the limit.
        """
        now = self._clock()
        self._settle(now)
        if level != self._level:
            return
        self._strain.add(strain, now)
        self._settle(now)

    def reset(self) -> None:
        """Go back to normal: nobody is left who could be overloaded."""
        self._strain.clear()
        self._high_since, self._patience_s = None, self._settings.lower_after_s
        self._is_climbing = False
        if self._level > Level.NORMAL:
            self._enter(Level.NORMAL)

    def _pressure(self, now: float) -> float:
        return self._strain.quantile(_PRESSURE_SHARE, now) or 0.0

    def _settle(self, now: float) -> None:
        """Bring the level up to date."""
        pressure = self._pressure(now)
        if pressure > self._settings.high_mark:
            self._calm_since = None
            self._high_since = now if self._high_since is None else self._high_since
            if now - self._high_since >= self._raise_after_s(pressure):
                self._raise(now)
            return
        self._high_since = None
        if pressure:  # not merely no news of this step so far
            self._is_climbing = False
        if pressure >= self._settings.low_mark:
            self._calm_since = None
            return
        self._calm_since = now if self._calm_since is None else self._calm_since
        while self._level > Level.NORMAL and now - self._calm_since >= self._patience_s:
            self._lower(self._calm_since + self._patience_s)

    def _raise_after_s(self, pressure: float) -> float:
        """How long strain must be high: if it has outlasted a step, it is no burst any more."""
        excess = pressure / self._settings.high_mark if self._is_climbing else 1.0
        return self._settings.raise_after_s / excess

    def _raise(self, now: float) -> None:
        self._high_since, self._is_climbing = None, True
        self._strain.clear()
        if self._level == Level.THIN_FRAMES:
            return
        was_hasty = now - self._lowered_at < self._patience_s
        longest = _LONGEST_PATIENCE * self._settings.lower_after_s
        self._patience_s = (
            min(2 * self._patience_s, longest) if was_hasty else self._settings.lower_after_s
        )
        self._enter(Level(self._level + 1))

    def _lower(self, now: float) -> None:
        self._lowered_at = self._calm_since = now
        self._is_climbing = False
        self._strain.clear()
        self._enter(Level(self._level - 1))

    def _enter(self, level: Level) -> None:
        log.warning("degradation level %s after %s", level.name, self._level.name)
        self._level, self._entered_at = level, self._clock()
        self._on_change()
