"""`make bench`: what the orchestrator itself costs, and where a frame's time goes.

Plays the demo clip through the real cluster over both transports, with one stream and with eight,
in turns, and reports medians over the rounds. Figures of one run compare with each other only.
"""

import argparse
import asyncio
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from soccer.v1 import player_recognition_pb2 as pb

from deploy.local.cluster import LocalCluster
from deploy.local.orchestrator import OrchestratorProcess
from orchestrator.telemetry import STAGES
from tests.bench.results import write_results
from tests.conftest import DATA
from tests.stream.streams import play, stored_stream

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        transport: How large tensors travelled to Triton: `shared_memory` or `grpc`.
        streams: Streams at the same time.
        frames_per_s: Frames of all streams together per second of wall time.
        orchestrator_cpu_ms: CPU time of the orchestrator's processes per frame, decoding included.
        p50_ms: Median wall time of each stage, the median of the streams.
        p99_ms: Likewise the 99th percentile.
    """

    transport: str
    streams: int
    frames_per_s: float
    orchestrator_cpu_ms: float
    p50_ms: dict[str, float]
    p99_ms: dict[str, float]


async def measure(served: OrchestratorProcess, transport: str, streams: int, frames: int) -> Row:
    """Play the clip once through some streams at the same time."""
    config, messages = stored_stream(DATA / "demo_01.mp4", frames)
    cpu, begun = tree_cpu_seconds(served.pid), time.monotonic()
    played = await asyncio.gather(*(play(served.target, config, messages) for _ in range(streams)))
    seconds, cpu = time.monotonic() - begun, tree_cpu_seconds(served.pid) - cpu
    summaries = [responses[-1].summary for responses in played]
    if any(summary.recognized_frame_count != frames for summary in summaries):
        raise RuntimeError(f"expected {frames} recognised frames in every stream")
    return Row(
        transport,
        streams,
        round(streams * frames / seconds, 2),
        round(1000 * cpu / (streams * frames), 2),
        stage_ms(summaries, "p50"),
        stage_ms(summaries, "p99"),
    )


def stage_ms(summaries: list[pb.StreamSummary], quantile: str) -> dict[str, float]:
    """Median over streams of one quantile of each stage, in milliseconds."""
    by_stage = [
        {s.stage: getattr(s, quantile).ToNanoseconds() / 1e6 for s in summary.stage_latencies}
        for summary in summaries
    ]
    return {stage: round(statistics.median(s[stage] for s in by_stage), 1) for stage in STAGES}


def tree_cpu_seconds(pid: int) -> float:
    """User and system time of a process, of those that it started, and of theirs that ended."""
    process = Path("/proc", str(pid))
    fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
    children = [
        int(child)
        for task in (process / "task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    own = sum(int(ticks) for ticks in fields[11:15]) / _TICKS_PER_S
    return own + sum(tree_cpu_seconds(child) for child in children)


def median(rows: list[Row]) -> Row:
    """Combine repeated measurements of one setting."""
    first = rows[0]
    return Row(
        first.transport,
        first.streams,
        statistics.median(row.frames_per_s for row in rows),
        statistics.median(row.orchestrator_cpu_ms for row in rows),
        {stage: statistics.median(row.p50_ms[stage] for row in rows) for stage in STAGES},
        {stage: statistics.median(row.p99_ms[stage] for row in rows) for stage in STAGES},
    )


async def run(frames: int, rounds: int) -> list[Row]:
    """Measure all settings, taking turns so that a noisy minute hits all alike."""
    settings = [(t, n) for t in ("shared_memory", "grpc") for n in (1, 8)]
    measured: dict[tuple[str, int], list[Row]] = {setting: [] for setting in settings}
    async with LocalCluster() as cluster:
        for _ in range(rounds):
            for transport, streams in settings:
                options = {"TOUCHLINE_TRITON__TRANSPORT": transport}
                async with OrchestratorProcess(cluster.endpoints, settings=options) as served:
                    await measure(served, transport, 1, 3)  # connections, first decodes
                    row = await measure(served, transport, streams, frames)
                measured[transport, streams].append(row)
    return [median(rows) for rows in measured.values()]


def table(rows: list[Row]) -> str:
    """Write the rows as Markdown."""
    head = ["transport", "streams", "frames/s", "orchestrator CPU-ms/frame"]
    head += [f"{stage} p50/p99 ms" for stage in STAGES]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        cells = [row.transport, row.streams, row.frames_per_s, row.orchestrator_cpu_ms]
        cells += [f"{row.p50_ms[stage]} / {row.p99_ms[stage]}" for stage in STAGES]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows = asyncio.run(run(options.frames, options.rounds))
    write_results(options.output, rows, frames_per_stream=options.frames, rounds=options.rounds)
    print(table(rows))


if __name__ == "__main__":
    main()
