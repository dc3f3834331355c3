"""The load test: `make load`. Writes `out/load.json` and `out/load.png`."""

import argparse
import asyncio
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from deploy.local.cluster import LocalCluster
from deploy.local.orchestrator import OrchestratorProcess
from tests.bench.results import write_report
from tests.load.measure import Conditions, Point, live_point, saturated_fps
from tests.load.pictures import MatchPictures
from tests.load.plots import plot
from tests.load.script import (
    Script,
    analyzed_tracker_frames_per_s,
    chain_latencies,
    tracker_frames_per_s,
)

MOST_STREAMS = 64
ADDED_STREAMS = 4
"""Share the load of 80 %."""
_MODELS = ("rfdetr_detector", "sam2_tracker", "siglip_embedder", "siglip_text", "resnet_jersey")


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        streams: Numbers of live streams, rising.
        direct_streams: Numbers of sequences with which the tracker alone is driven.
        broadcast_rates: Frame rates of real broadcasts, tried with one stream.
        seconds: Length of one measurement.
        warm_up_s: Before it.
        rounds: How often efficiency and added latency are measured; the median round counts.
    """

    streams: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    direct_streams: tuple[int, ...] = (4, 8, 16)
    broadcast_rates: tuple[float, ...] = (25.0, 50.0)
    seconds: float = 10.0
    warm_up_s: float = 3.0
    rounds: int = 3


QUICK = Plan(
    streams=(2,), direct_streams=(4,), broadcast_rates=(), seconds=1.0, warm_up_s=0.8, rounds=1
)


@dataclass(frozen=True)
class Efficiency:
    """Frames per second through the orchestrator against its bottleneck model alone.

    Attributes:
        streams: Lossless streams.
        tracker_fps: Of the tracker, driven by our closed loop at its best number of sequences.
        analyzer_fps: Of the tracker, driven by perf_analyzer; None where that is missing.
        orchestrator_fps: Through the orchestrator.
        share: The last divided by the better of the others.
    """

    streams: int
    tracker_fps: float
    analyzer_fps: float | None
    orchestrator_fps: float
    share: float

    @classmethod
    def of(
        cls, streams: int, looped: float, analyzed: float | None, through: float
    ) -> "Efficiency":
        """Compare, and round what is written."""
        share = through / max(looped, analyzed or 0.0)
        found = None if analyzed is None else round(analyzed, 2)
        return cls(streams, round(looped, 2), found, round(through, 2), round(share, 4))


@dataclass(frozen=True)
class Added:
    """Latency at four fifths of the capacity, against a script that calls the models directly.

    Attributes:
        script_p50_ms: From a frame's arrival to the last model's answer, without orchestrator.
        script_p99_ms: Likewise the 99th percentile.
        orchestrator: The same load through the orchestrator.
        added_share: What the orchestrator adds to the 99th percentile.
        missed_share: Frames recognised too late or dropped as they would be, of all rounds.
    """

    script_p50_ms: float
    script_p99_ms: float
    orchestrator: Point
    added_share: float
    missed_share: float


@dataclass(frozen=True)
class Report:
    """All that one run found.

    Attributes:
        efficiency: At saturation.
        added: At 80 % load.
        sweep: Live streams, from one to many.
        broadcast: One stream at the frame rates of real broadcasts.
        double_measured: Twice the tracker's capacity offered to a process that has measured it and
            so turns streams away.
        double_unmeasured: The same, to a process that has just started and lets all of them in.
        goodput_at_double: Goodput of the latter over the best of the sweep.
    """

    efficiency: Efficiency
    added: Added
    sweep: tuple[Point, ...]
    broadcast: tuple[Point, ...]
    double_measured: Point
    double_unmeasured: Point
    goodput_at_double: float


async def run(plan: Plan, profile: str, frame_rate: float, budget_s: float) -> Report:
    """Start the cluster and measure everything in it."""
    pictures = MatchPictures()
    for number in range(pictures.period):  # painted now, and not while times are taken
        pictures.jpeg(number)
    overrides = {model: {"profile": profile} for model in _MODELS}
    overrides["sam2_tracker"]["slots"] = str(2 * MOST_STREAMS)
    settings = {
        "TOUCHLINE_SERVER__MAX_STREAMS": str(2 * MOST_STREAMS),
        "TOUCHLINE_OVERLOAD__FIRST_STREAMS": str(2 * MOST_STREAMS),
    }
    async with (
        LocalCluster("sim", overrides=overrides) as cluster,
        OrchestratorProcess(cluster.endpoints, settings=settings) as served,
        Script(cluster.endpoints, pictures) as script,
    ):
        conditions = Conditions(served.target, pictures, plan.warm_up_s, plan.seconds, budget_s)
        efficiency = await _efficiency(plan, conditions, script)
        capacity = efficiency.tracker_fps
        doubled = max(2, round(2 * capacity / frame_rate))
        added = await _added(plan, conditions, script, 0.8 * capacity)
        sweep = [await live_point(conditions, n, frame_rate) for n in plan.streams]
        broadcast = [await live_point(conditions, 1, rate) for rate in plan.broadcast_rates]
        measured = await live_point(conditions, doubled, frame_rate)
        async with OrchestratorProcess(cluster.endpoints, settings=settings) as fresh:
            begun = replace(conditions, target=fresh.target)
            unmeasured = await live_point(begun, doubled, frame_rate)
    peak = max(point.goodput_fps for point in (*sweep, unmeasured))
    share = round(unmeasured.goodput_fps / peak, 4)
    return Report(efficiency, added, tuple(sweep), tuple(broadcast), measured, unmeasured, share)


async def _efficiency(plan: Plan, conditions: Conditions, script: Script) -> Efficiency:
    """Measure by turns, so that a noisy minute hits both alike; return the median round."""
    streams, rounds = max(plan.direct_streams), []
    for _ in range(plan.rounds):
        looped = await tracker_frames_per_s(script, plan.direct_streams, plan.seconds / 2)
        analyzed = await analyzed_tracker_frames_per_s(script, streams)
        through = await saturated_fps(conditions, streams)
        rounds.append(Efficiency.of(streams, looped, analyzed, through))
    return sorted(rounds, key=lambda one: one.share)[len(rounds) // 2]


async def _added(plan: Plan, conditions: Conditions, script: Script, fps: float) -> Added:
    """Offer the same frames at the same times to the bare models and to the orchestrator.

    By turns, as in `_efficiency`, every round with other arrivals; returns the median round.
    """
    rate, rounds = fps / ADDED_STREAMS, []
    for seed in range(0, plan.rounds * ADDED_STREAMS, ADDED_STREAMS):
        alone = await chain_latencies(script, ADDED_STREAMS, rate, conditions, first_seed=seed)
        p50_ms, p99_ms = (round(1000 * alone.quantile(share), 1) for share in (0.5, 0.99))
        point = await live_point(
            conditions, ADDED_STREAMS, rate, first_seed=seed, reconnecting=False
        )
        if point.refusals:
            raise RuntimeError(f"expected the whole load to be served: {point.refusals}")
        share = round(point.p99_ms / p99_ms - 1, 4)
        rounds.append(Added(p50_ms, p99_ms, point, share, point.missed_share))
    missed_share = round(sum(one.missed_share for one in rounds) / len(rounds), 4)
    median = sorted(rounds, key=lambda one: one.added_share)[len(rounds) // 2]
    return replace(median, missed_share=missed_share)


def main() -> None:
    """Measure, write JSON and plots, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/load.json"))
    parser.add_argument("--profile", default="bench", help="table of deploy/local/sim, e.g. h200")
    parser.add_argument("--frame-rate", type=float, default=5.0, help="frames/s of the sweep")
    parser.add_argument("--budget", type=float, default=1.0, help="their latency budget in seconds")
    parser.add_argument("--quick", action="store_true", help="a minute's smoke test")
    options = parser.parse_args()
    plan = QUICK if options.quick else Plan()
    report = asyncio.run(run(plan, options.profile, options.frame_rate, options.budget))
    write_report(
        options.output,
        models=f"sim, profile {options.profile}: no GPU is measured here",
        driver="own closed loop, and perf_analyzer where there is an analyzer_fps",
        frames="640x360 JPEG",
        plan=asdict(plan),
        **asdict(report),
    )
    plot(report.sweep, report.efficiency.tracker_fps, options.output.with_suffix(".png"))
    print(json.dumps(asdict(report.efficiency)))
    print(f"added p99 at 80 % load: {report.added.added_share:.1%}")
    print(f"missed at 80 % load: {report.added.missed_share:.2%}")
    print(f"goodput at twice the load, all let in: {report.goodput_at_double:.1%} of the peak")


if __name__ == "__main__":
    main()
