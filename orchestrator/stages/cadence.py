"""Which tracks a per-crop model should look at in this frame.

Identity changes slowly, so people are looked at a few times a second and not on every frame; new
people first. The choice depends on the stream's own frames only, never on the clock.
"""

import numpy as np

from orchestrator.imaging import iou, stacked
from orchestrator.types.tracks import Track

_HIDDEN_IOU = 0.3
"""A crop that overlaps another person more than this shows mostly the wrong one."""


class Cadence:
    """Remembers when each object was looked at last."""

    def __init__(self, *, interval_s: float, frame_rate: float, max_crops: int) -> None:
        self._interval_frames = max(1, round(interval_s * frame_rate))
        self._max_crops = max_crops
        self._last: dict[int, int] = {}

    def due(self, seen: tuple[Track, ...], frame_count: int, stretch: int = 1) -> list[Track]:
        """Return the tracks to look at now, at most `max_crops`, by ascending object id.

        Args:
            seen: Tracks of this frame.
            frame_count: Number of the frame within the stream, lost ones counted.
            stretch: Factor on the time between two looks.
        """
        self._last = {t.object_id: self._last.get(t.object_id, -1) for t in seen}
        latest = frame_count - stretch * self._interval_frames
        is_due = {key for key, last in self._last.items() if last < 0 or last <= latest}
        if not is_due:
            return []
        waiting = [track for track in _unobstructed(seen) if track.object_id in is_due]
        waiting.sort(key=lambda track: (self._last[track.object_id], track.object_id))
        chosen = waiting[: self._max_crops]
        for track in chosen:
            self._last[track.object_id] = frame_count
        return sorted(chosen, key=lambda track: track.object_id)


def _unobstructed(seen: tuple[Track, ...]) -> list[Track]:
    """Return new tracks, and those that no other track overlaps much."""
    boxes = stacked([track.xyxy for track in seen])
    overlap = iou(boxes, boxes)
    np.fill_diagonal(overlap, 0.0)
    return [
        track
        for track, most in zip(seen, overlap.max(axis=1), strict=True)
        if track.is_new or most < _HIDDEN_IOU
    ]
