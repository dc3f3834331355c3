"""How much a model answers, and how fast: moving figures, cheap enough for every request."""

import math
import time
from collections import deque
from collections.abc import Callable

_WINDOW_S = 10.0
_SAMPLES = 512
_SMOOTHING = 0.1
_HALF_LIFE_S = 10.0
_FOUNDED_S = 0.5
"""Saturated time that a measured capacity rests on at least."""

Clock = Callable[[], float]


class Latency:
    """Durations in seconds, over the last ten seconds and the last 512."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)
        self.mean_s = 0.0
        """Smoothed over about ten samples; 0 before the first."""

    def add(self, seconds: float) -> None:
        """Count one duration."""
        step = _SMOOTHING if self._samples else 1.0
        self.mean_s += step * (seconds - self.mean_s)
        self._samples.append((self._clock(), seconds))

    def p90(self) -> float:
        """Return the 90th percentile; 0 if nothing was measured lately."""
        since = self._clock() - _WINDOW_S
        recent = sorted(seconds for at, seconds in self._samples if at >= since)
        return recent[math.ceil(0.9 * len(recent)) - 1] if recent else 0.0


class Rate:
    """Rows per second over the last ten seconds, counted by the second."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int]] = deque(maxlen=int(_WINDOW_S))

    def add(self, rows: int) -> None:
        """Count rows that were answered now."""
        second = int(self._clock())
        if self._seconds and self._seconds[-1][0] == second:
            rows += self._seconds.pop()[1]
        self._seconds.append((second, rows))

    def per_s(self) -> float:
        """Return rows per second."""
        since = self._clock() - _WINDOW_S
        return sum(rows for second, rows in self._seconds if second >= since) / _WINDOW_S


class Capacity:
    """What one replica can do: its rate over the times in which it never lacked work."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._saturated_since: float | None = None
        self._rows = 0.0
        self._seconds = 0.0

    def add(self, rows: float, *, is_saturated: bool) -> None:
        """Count rows that were answered now, and say whether work is left to fill the replica."""
        now = self._clock()
        if self._saturated_since is not None:
            seconds = now - self._saturated_since
            kept = 0.5 ** (seconds / _HALF_LIFE_S)
            self._rows = kept * self._rows + rows
            self._seconds = kept * self._seconds + seconds
        self._saturated_since = now if is_saturated else None

    def rows_per_s(self) -> float | None:
        """Return rows per second; None while it was not saturated for long enough."""
        return self._rows / self._seconds if self._seconds >= _FOUNDED_S else None
