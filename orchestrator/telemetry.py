"""What is measured of a stream, and how the process logs."""

import logging
import math
import sys
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from orchestrator.types import Degradation, GapReason

STAGES = ("queue", "decode", "detect", "track", "identify", "number", "total")
"""Stage names, in the order of the walk."""

_SHORTEST_S = 1e-5
_PER_DECADE = 60
_BUCKETS = 7 * _PER_DECADE


class LatencyHistogram:
    """Durations in fixed logarithmic buckets from 10 µs to 100 s, about 4 % wide."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)

    def add(self, seconds: float) -> None:
        """Count one duration; what lies beyond the range counts in the outermost bucket."""
        place = math.log10(max(seconds, _SHORTEST_S) / _SHORTEST_S) * _PER_DECADE
        self._counts[min(int(place), _BUCKETS - 1)] += 1

    def quantile(self, share: float) -> float:
        """Return the duration in seconds that `share` of all stay below; 0 if there are none."""
        total = int(self._counts.sum())
        if not total:
            return 0.0
        rank = max(1, math.ceil(share * total))
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        return float(_SHORTEST_S * 10 ** ((bucket + 0.5) / _PER_DECADE))


@dataclass(slots=True)
class StreamStats:
    """Totals of one stream; bounded, whatever its length."""

    received: int = 0
    recognized: int = 0
    gaps: Counter[GapReason] = field(default_factory=Counter)
    degradations: Counter[Degradation] = field(default_factory=Counter)
    latencies: dict[str, LatencyHistogram] = field(
        default_factory=lambda: {stage: LatencyHistogram() for stage in STAGES}
    )


def configure_logging(level: str = "INFO") -> None:
    """Log to standard error, one line a record. Called once, by the process's entry point."""
    logging.basicConfig(
        level=level,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
