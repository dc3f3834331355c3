"""What a chaos scenario wants to know of a stream: who kept their id, how long nothing came."""

import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from soccer.v1 import player_recognition_pb2 as pb
from touchline_sim.record import load_record

_SAME_IOU = 0.5
_QUIET_S = 2.0
_LASTING_S = 0.5
"""Trouble that lasts less, after a quiet while, is a busy machine's."""
_MISSING = {
    pb.DEGRADATION_TRACKER_UNAVAILABLE,
    pb.DEGRADATION_IDENTIFICATION_UNAVAILABLE,
    pb.DEGRADATION_NUMBERS_UNAVAILABLE,
}
_WINDOW_S = 1.5
"""Ids are taken from so much time before a fault, and as much after the recovery."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One recognition.

    Attributes:
        at: When it came, `time.monotonic()`.
        ids: Track id by person of the recording.
        in_sight: Everybody whom the recording shows there.
        is_whole: Whether no model was missing in it.
    """

    at: float
    ids: dict[int, int]
    in_sight: frozenset[int]
    is_whole: bool


class Journal:
    """Writes down one stream's recognitions and compares them with the recording.

    Args:
        first: Number of the recording's frame that is the stream's frame 0.

    Attributes:
        entries: All recognitions.
        gaps: When each lost frame was declared.
    """

    def __init__(self, first: int) -> None:
        self.entries: list[Entry] = []
        self.gaps: list[float] = []
        self._first = first
        self._record = load_record()

    def note(self, response: pb.RecognizeStreamResponse) -> None:
        """Write down a response."""
        if response.HasField("gap"):
            count = response.gap.last_frame_index - response.gap.first_frame_index + 1
            self.gaps += [time.monotonic()] * count
        if response.HasField("recognition"):
            number = self._first + response.recognition.frame_index
            in_sight = frozenset(self._record.scene(number).person_ids.tolist())
            ids = self._ids(response.recognition)
            is_whole = _MISSING.isdisjoint(response.recognition.degradations)
            self.entries.append(Entry(time.monotonic(), ids, in_sight, is_whole))

    def longest_gap_s(self, since: float, until: float, frame_rate: float) -> float:
        """Return the longest time without a recognition between two moments, less one frame's."""
        times = [since, *(entry.at for entry in self.entries if entry.at > since), until]
        return max(0.0, float(max(np.diff(times))) - 1 / frame_rate)

    def recovered_at(self, fault: float) -> float:
        """Return when a fault's last lost or incomplete frame came; the fault if there is none.

        What comes after a quiet while is laid to the fault only if it lasts.
        """
        recovered = fault
        for begin, end in self._troubles(fault):
            if begin <= recovered + _QUIET_S or end - begin >= _LASTING_S:
                recovered = end
        return recovered

    def ids_kept(self, fault: float) -> tuple[int, int]:
        """Count who is known before a fault and in sight all the while after the recovery.

        Returns:
            How many of them have the same track id as before, and how many they are.
        """
        begin = self._goes_on_at(self.recovered_at(fault))
        end = begin + _WINDOW_S
        before = self._usual_ids(fault - _WINDOW_S, fault)
        after = self._usual_ids(begin, end)
        there = set(before).intersection(
            *(one.in_sight for one in self.entries if begin < one.at <= end)
        )
        return sum(before[person] == after.get(person) for person in there), len(there)

    def _goes_on_at(self, recovered: float) -> float:
        """Return since when recognitions come again: a client that stands still gets none."""
        first = next((one.at for one in self.entries if one.at > recovered), recovered)
        return max(recovered, math.nextafter(first, -math.inf))

    def _troubles(self, since: float) -> Iterator[tuple[float, float]]:
        """Yield when frames were lost or incomplete, from and to, with quiet whiles between."""
        incomplete = [entry.at for entry in self.entries if not entry.is_whole]
        times = [at for at in sorted((*self.gaps, *incomplete)) if at > since]
        begins = [b for a, b in itertools.pairwise([-np.inf, *times]) if b - a > _QUIET_S]
        ends = [a for a, b in itertools.pairwise([*times, np.inf]) if b - a > _QUIET_S]
        yield from zip(begins, ends, strict=True)

    def _usual_ids(self, begin: float, end: float) -> dict[int, int]:
        """Return the most frequent track id of each person within a time."""
        seen: dict[int, Counter[int]] = {}
        for entry in self.entries:
            if begin < entry.at <= end:
                for person, track_id in entry.ids.items():
                    seen.setdefault(person, Counter())[track_id] += 1
        return {person: counter.most_common(1)[0][0] for person, counter in seen.items()}

    def _ids(self, recognition: pb.FrameRecognition) -> dict[int, int]:
        """Say who of the recording is which track."""
        scene = self._record.scene(self._first + recognition.frame_index)
        size = np.array([recognition.width_px, recognition.height_px] * 2)
        found = np.array(
            [[p.box.x_min, p.box.y_min, p.box.x_max, p.box.y_max] for p in recognition.players]
        ).reshape(-1, 4)
        overlaps = _iou(scene.boxes * size, found)
        return {
            person: recognition.players[int(row.argmax())].track_id
            for person, row in zip(scene.person_ids.tolist(), overlaps, strict=True)
            if row.max(initial=0.0) >= _SAME_IOU
        }


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return shared / (areas[0][:, None] + areas[1][None] - shared)
