"""How much a model answers, and how fast: moving figures, cheap enough for every request."""

import math
import time
from collections import deque
from collections.abc import Callable

WINDOW_S = 10
"""Time over which `Rate` looks back, in whole seconds."""
_SMOOTHING = 0.1
_HALF_LIFE_S = 10.0
_FOUNDED_S = 0.5
"""Least time without a break in which a replica was saturated, to count."""

Clock = Callable[[], float]


class Latency:
    """A moving mean of durations.

    Attributes:
        mean_s: In seconds, smoothed over about ten; 0 before the first.
    """

    def __init__(self) -> None:
        self._step = 1.0
        self.mean_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.mean_s += self._step * (seconds - self.mean_s)
        self._step = _SMOOTHING


class Rate:
    """Rows per second over the last ten seconds, counted by the second."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._seconds: deque[tuple[int, int]] = deque(maxlen=WINDOW_S)

    def add(self, rows: int) -> None:
        """Count rows that were answered now."""
        second = int(self._clock())
        if self._seconds and self._seconds[-1][0] == second:
            rows += self._seconds.pop()[1]
        self._seconds.append((second, rows))

    def per_s(self) -> float:
        """Return rows per second."""
        since = self._clock() - WINDOW_S
        return sum(rows for second, rows in self._seconds if second >= since) / WINDOW_S


class Capacity:
    """What one replica can do: its rate over times in which it never lacked work.

    Answers come by the batch, so such a time counts once it has lasted: a short one may hold the
    answers of two batches and the work of none. Where nothing ever queues nothing is measured. That
    goes for a tracker whose slots fit into the batches in flight: its slots are what it can do.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._saturated_since = math.inf
        self._rows_since = 0.0
        self._rows = 0.0
        self._seconds = 0.0

    def add(self, rows: float, *, is_saturated: bool) -> None:
        """Count rows that were answered now, and say whether work is left to fill the replica."""
        now = self._clock()
        self._rows_since += rows
        if not is_saturated:
            self._saturated_since = math.inf
        elif self._saturated_since == math.inf:
            self._saturated_since, self._rows_since = now, 0.0
        elif now - self._saturated_since >= _FOUNDED_S:
            seconds = now - self._saturated_since
            kept = 0.5 ** (seconds / _HALF_LIFE_S)
            self._rows = kept * self._rows + self._rows_since
            self._seconds = kept * self._seconds + seconds
            self._saturated_since, self._rows_since = now, 0.0

    def rows_per_s(self) -> float | None:
        """Return rows per second; None while it was not saturated for long enough."""
        return self._rows / self._seconds if self._seconds else None
