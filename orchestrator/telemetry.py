"""What is measured of one stream; the process's metrics are counted along."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from orchestrator import metrics
from orchestrator.types.frames import GapReason
from orchestrator.types.results import Degradation, IdentityUpdate, Recognition

STAGES = ("queue", "decode", "detect", "track", "identify", "number", "total")
"""Stage names, in the order of the walk."""

_SHORTEST_S = 1e-5
_DECADES = 7


class LatencyHistogram:
    """Durations in fixed logarithmic buckets from 10 µs to 100 s.

    Args:
        per_decade: Buckets from a duration to ten times that; 60 are about 4 % wide.
    """

    def __init__(self, per_decade: int = 60) -> None:
        self._per_decade = per_decade
        self._counts = np.zeros(_DECADES * per_decade, np.int64)

    def add(self, seconds: float) -> None:
        """Count one duration; what lies beyond the range counts in the outermost bucket."""
        place = math.log10(max(seconds, _SHORTEST_S) / _SHORTEST_S) * self._per_decade
        self._counts[min(int(place), len(self._counts) - 1)] += 1

    def quantile(self, share: float) -> float:
        """Return the duration in seconds that `share` of all stay below; 0 if there are none."""
        total = int(self._counts.sum())
        if not total:
            return 0.0
        rank = max(1, math.ceil(share * total))
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        return float(_SHORTEST_S * 10 ** ((bucket + 0.5) / self._per_decade))


_STAGE_SECONDS = {stage: metrics.STAGE_SECONDS.labels(stage) for stage in STAGES}


@dataclass(slots=True)
class StreamStats:
    """Totals of one stream; bounded, whatever its length.

    Attributes:
        tenant: Configured name of who is billed for the stream.
        tracked: People in the latest recognition; they count as tracked until `close`.
    """

    tenant: str = "default"
    received: int = 0
    recognized: int = 0
    tracked: int = 0
    gaps: Counter[GapReason] = field(default_factory=Counter)
    degradations: Counter[Degradation] = field(default_factory=Counter)
    latencies: dict[str, LatencyHistogram] = field(
        default_factory=lambda: {stage: LatencyHistogram() for stage in STAGES}
    )

    def __post_init__(self) -> None:
        metrics.expose_tenant(self.tenant, (reason.name.lower() for reason in GapReason))

    def count_received(self, byte_count: int) -> None:
        """Count a frame that the client sent, with its encoded size in bytes."""
        self.received += 1
        metrics.FRAMES_RECEIVED.labels(self.tenant).inc()
        metrics.BYTES_RECEIVED.labels(self.tenant).inc(byte_count)

    def count_lost(self, reason: GapReason) -> None:
        """Count a frame that is answered by a gap."""
        self.gaps[reason] += 1
        metrics.FRAMES_LOST.labels(self.tenant, reason.name.lower()).inc()

    def count_recognized(self, recognition: Recognition) -> None:
        """Count a frame that is answered by a recognition."""
        self.recognized += 1
        metrics.FRAMES_RECOGNIZED.labels(self.tenant).inc()
        self.degradations.update(recognition.degradations)
        for kind in recognition.degradations:
            metrics.DEGRADED_FRAMES.labels(kind.name.lower()).inc()
        for stage, seconds in recognition.stage_seconds.items():
            self.latencies[stage].add(seconds)
            _STAGE_SECONDS[stage].observe(seconds)
        self._count_tracks(len(recognition.players))

    def count_updates(self, updates: Iterable[IdentityUpdate]) -> None:
        """Count revisions of what was said before."""
        for update in updates:
            merged = () if update.merged_into_track_id is None else ("merged",)
            for name in (*update.changed, *merged):
                metrics.IDENTITY_UPDATES.labels(name).inc()

    def close(self) -> None:
        """The stream has ended: nobody is tracked in it any more."""
        self._count_tracks(0)

    def _count_tracks(self, count: int) -> None:
        metrics.TRACKS.inc(count - self.tracked)
        self.tracked = count
