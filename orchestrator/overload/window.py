"""Quantiles of what was measured lately."""

import math
from collections import deque


class MovingWindow:
    """The values of the last seconds; older ones are forgotten.

    Args:
        span_s: Age at which a value is forgotten, in seconds.
        most: Most values kept; the oldest go first.
    """

    def __init__(self, span_s: float, *, most: int = 128) -> None:
        self._span_s = span_s
        self._values: deque[tuple[float, float]] = deque(maxlen=most)
        self._sorted: list[float] | None = None

    def add(self, value: float, now: float) -> None:
        """Take note of a value at a time, in seconds; times must not fall."""
        self._values.append((now, value))
        self._sorted = None

    def quantile(self, share: float, now: float) -> float | None:
        """Return the least value that `share` of all do not exceed; None if there are none."""
        self._forget(now)
        if not self._values:
            return None
        if self._sorted is None:
            self._sorted = sorted(value for _, value in self._values)
        return self._sorted[max(0, math.ceil(share * len(self._sorted)) - 1)]

    def clear(self) -> None:
        """Forget all values."""
        self._values.clear()
        self._sorted = None

    def _forget(self, now: float) -> None:
        while self._values and now - self._values[0][0] > self._span_s:
            self._values.popleft()
            self._sorted = None
