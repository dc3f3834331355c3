"""The experiments of the load test: so many streams at such a rate, and what becomes of them."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.telemetry import LatencyHistogram
from tests.load.broadcaster import Broadcaster, live_config, stored_config
from tests.load.network import Relay
from tests.load.pictures import MatchPictures
from tests.load.tally import fine_histogram, jain_index

_RECONNECTING = 4


@dataclass(frozen=True)
class Point:
    """What became of some live streams.

    Attributes:
        streams: Broadcasters that came.
        refused: Of these, turned away at the door.
        frame_rate: Frames per second of each.
        offered_fps: Frames per second of all that came, refused ones included.
        goodput_fps: Recognitions in time per second, of all streams together.
        lost_share: Frames of admitted streams that became a gap or were dropped by the camera.
        missed_share: Of their frames, those recognised too late, not answered in time at all, or
            dropped as they would be, be it by the camera for want of credit.
        p50_ms: Median time from a frame's arrival to its recognition.
        p95_ms: Likewise the 95th percentile.
        p99_ms: Likewise the 99th percentile.
        fairness: Jain's index of the goodput of admitted streams.
        worst_to_best: Goodput of the worst admitted stream divided by that of the best.
        is_accounted: Whether every frame was answered exactly once.
        reconnected: Connections that broke and were opened again.
        refusals: How often the server ended a stream with which error.
        counts: See `Tally.counts`, of all streams.
    """

    streams: int
    refused: int
    frame_rate: float
    offered_fps: float
    goodput_fps: float
    lost_share: float
    missed_share: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    fairness: float
    worst_to_best: float
    is_accounted: bool
    reconnected: int
    refusals: dict[str, int]
    counts: dict[str, int]


@dataclass(frozen=True)
class Conditions:
    """What all experiments of a run share.

    Attributes:
        target: `host:port` of the orchestrator.
        pictures: The match.
        warm_up_s: While streams connect and people are first seen, nothing is counted.
        seconds: Length of one experiment after the warm-up.
        budget_s: Latency budget of live streams.
    """

    target: str
    pictures: MatchPictures
    warm_up_s: float
    seconds: float
    budget_s: float

    @property
    def stream_s(self) -> float:
        """Length of a stream in seconds."""
        return self.warm_up_s + self.seconds

    def pause_s(self, streams: int) -> float:
        """Return the time from the beginning of one of so many streams to that of the next."""
        return self.warm_up_s / 2 / streams


async def live_point(
    conditions: Conditions,
    streams: int,
    frame_rate: float,
    *,
    first_seed: int = 0,
    reconnecting: bool = True,
) -> Point:
    """Play live streams side by side; every fourth may lose its connection halfway."""
    async with contextlib.AsyncExitStack() as stack:
        broadcasters = []
        for k in range(streams):
            target = conditions.target
            if reconnecting and k % _RECONNECTING == _RECONNECTING - 1:
                relay = await stack.enter_async_context(Relay(target))
                target = relay.address
                half = conditions.warm_up_s + conditions.seconds / 2
                asyncio.get_running_loop().call_later(half, relay.cut)
            broadcasters.append(
                Broadcaster(
                    target,
                    live_config(f"live {k}", frame_rate, conditions.budget_s),
                    conditions.pictures,
                    seconds=conditions.stream_s,
                    seed=first_seed + k,
                )
            )
        changes, latencies = await _play(broadcasters, conditions)
    return _point(broadcasters, changes, latencies, frame_rate, conditions.seconds)


async def saturated_fps(conditions: Conditions, streams: int) -> float:
    """Return the frames per second that lossless streams get through together."""
    broadcasters = [
        Broadcaster(
            conditions.target,
            stored_config(f"stored {k}", 25),
            conditions.pictures,
            seconds=conditions.stream_s,
            seed=k,
        )
        for k in range(streams)
    ]
    changes, _ = await _play(broadcasters, conditions)
    refused = [b.tally.refusal for b in broadcasters if b.tally.refusal]
    if refused:
        raise RuntimeError(f"expected {streams} admitted streams: {refused[0]}")
    return sum(change["in_time"] for change in changes) / conditions.seconds


async def _play(
    broadcasters: Sequence[Broadcaster], conditions: Conditions
) -> tuple[list[Counter[str]], LatencyHistogram]:
    """Play all to the end; return what was counted in the measured seconds after the warm-up.

    The streams come one after the other, within the first half of the warm-up.
    """
    end_of_warm_up, latencies = time.monotonic() + conditions.warm_up_s, fine_histogram()
    async with asyncio.TaskGroup() as group:
        for broadcaster in broadcasters:
            group.create_task(broadcaster.play())
            await asyncio.sleep(conditions.pause_s(len(broadcasters)))
        await asyncio.sleep(end_of_warm_up - time.monotonic())
        before = [broadcaster.tally.snapshot() for broadcaster in broadcasters]
        for broadcaster in broadcasters:
            broadcaster.tally.latencies = latencies
        await asyncio.sleep(end_of_warm_up + conditions.seconds - time.monotonic())
        changes = [broadcaster.tally.snapshot() for broadcaster in broadcasters]
        for broadcaster in broadcasters:  # the first ones end now, and leave the others more room
            broadcaster.tally.latencies = fine_histogram()
    for change, counted in zip(changes, before, strict=True):
        change.subtract(counted)
    return changes, latencies


def _point(
    broadcasters: Sequence[Broadcaster],
    changes: Sequence[Counter[str]],
    latencies: LatencyHistogram,
    frame_rate: float,
    seconds: float,
) -> Point:
    is_admitted = [broadcaster.tally.counts["started"] > 0 for broadcaster in broadcasters]
    admitted = [change for change, is_in in zip(changes, is_admitted, strict=True) if is_in]
    shares = [change["in_time"] / seconds for change in admitted]
    total = Counter[str]()
    for change in admitted:  # `sum` would leave out what became less, as frames that were overdue
        total.update(change)
    lost = total["skipped"] + sum(n for kind, n in total.items() if kind.startswith("gap."))
    missed = total["late"] + total["overdue"] + total["gap.OVERLOADED"] + total["skipped"]
    frames = max(1, total["sent"] + total["skipped"])
    every = sum((broadcaster.tally.counts for broadcaster in broadcasters), Counter[str]())
    accounted = [b.tally.is_accounted for b in broadcasters if b.tally.counts["started"]]
    return Point(
        streams=len(broadcasters),
        refused=is_admitted.count(False),
        frame_rate=frame_rate,
        offered_fps=len(broadcasters) * frame_rate,
        goodput_fps=round(sum(shares), 2),
        lost_share=round(lost / frames, 4),
        missed_share=round(missed / frames, 4),
        p50_ms=round(1000 * latencies.quantile(0.5), 1),
        p95_ms=round(1000 * latencies.quantile(0.95), 1),
        p99_ms=round(1000 * latencies.quantile(0.99), 1),
        fairness=round(jain_index(shares), 4),
        worst_to_best=round(min(shares) / max(shares), 4) if shares and max(shares) else 1.0,
        is_accounted=all(accounted),
        reconnected=every["started"] - is_admitted.count(True),
        refusals=dict(Counter(b.tally.refusal for b in broadcasters if b.tally.refusal)),
        counts=dict(every),
    )
