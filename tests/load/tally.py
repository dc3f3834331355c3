"""What is counted of simulated streams."""

import time
from collections import Counter
from collections.abc import Iterable

import numpy as np
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.telemetry import LatencyHistogram


def fine_histogram() -> LatencyHistogram:
    """Return a histogram whose quantiles are right to a quarter per cent."""
    return LatencyHistogram(per_decade=1000)


class Tally:
    """Counts of one stream; bounded whatever its length.

    Args:
        budget_s: A recognition is in time if it comes within this time of its frame's arrival.

    Attributes:
        counts: How often what happened: `sent`; `skipped`, dropped by the camera as there was no
            credit; `in_time` and `late` recognitions; `gap.REASON` and `degraded.DEGRADATION`, as
            the API names them without prefix; `repeated`, answers to frames not sent, or answered
            before; `started` and `resumed` connections; `refused` streams.
        refusal: Code and details of the server's refusal; empty if there was none.
        latencies: From the arrival of a frame to its recognition.
    """

    def __init__(self, budget_s: float) -> None:
        self.counts: Counter[str] = Counter()
        self.refusal = ""
        self.latencies = fine_histogram()
        self._budget_s = budget_s
        self._waiting: dict[int, float] = {}

    @property
    def is_accounted(self) -> bool:
        """Whether every frame sent so far was answered exactly once."""
        return not self._waiting and not self.counts["repeated"]

    @property
    def unanswered(self) -> int:
        """Frames sent and not answered so far."""
        return len(self._waiting)

    def snapshot(self) -> Counter[str]:
        """Return the counts, with `overdue`: frames not answered within the budget, nor so far."""
        latest = time.monotonic() - self._budget_s
        overdue = sum(arrival < latest for arrival in self._waiting.values())
        return self.counts + Counter(overdue=overdue)

    def note_sent(self, index: int, arrival: float) -> None:
        """Take note of a frame and of its arrival, `time.monotonic()`."""
        self.counts["sent"] += 1
        self._waiting[index] = arrival

    def note_refusal(self, reason: str) -> None:
        """Take note that the server ended the stream with an error."""
        self.counts["refused"] += 1
        self.refusal = reason

    def note(self, response: pb.RecognizeStreamResponse) -> None:
        """Take note of a response that came just now."""
        if response.HasField("started"):
            self.counts["started"] += 1
            self.counts["resumed"] += response.started.is_resumed
        if response.HasField("recognition"):
            self._note_recognition(response.recognition)
        if response.HasField("gap"):
            for index in range(response.gap.first_frame_index, response.gap.last_frame_index + 1):
                self._answer(index)
                self.counts[f"gap.{gap_reason(response.gap)}"] += 1

    def _note_recognition(self, recognition: pb.FrameRecognition) -> None:
        arrival = self._answer(recognition.frame_index)
        if arrival is None:
            return
        latency = time.monotonic() - arrival
        self.latencies.add(latency)
        self.counts["in_time" if latency <= self._budget_s else "late"] += 1
        for degradation in recognition.degradations:
            name = str(pb.Degradation.Name(degradation)).removeprefix("DEGRADATION_")
            self.counts[f"degraded.{name}"] += 1

    def _answer(self, index: int) -> float | None:
        arrival = self._waiting.pop(index, None)
        self.counts["repeated"] += arrival is None
        return arrival


def gap_reason(gap: pb.FrameGap) -> str:
    """Return the name of a gap's reason without its prefix."""
    return str(pb.GapReason.Name(gap.reason)).removeprefix("GAP_REASON_")


def jain_index(shares: Iterable[float]) -> float:
    """Return Jain's fairness index: 1 if all shares are equal, 1/n if one has all.

    Source: Jain, Chiu, Hawe, "A Quantitative Measure of Fairness", DEC TR-301, 1984.
    """
    array = np.array(list(shares), np.float64)
    squares = float((array**2).sum())
    return float(array.sum()) ** 2 / (len(array) * squares) if squares else 1.0
