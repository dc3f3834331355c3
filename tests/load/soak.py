"""The soak test: `make soak`. Streams for half an hour, while memory is watched."""

import argparse
import asyncio
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.local.cluster import LocalCluster
from deploy.local.orchestrator import OrchestratorProcess
from tests.bench.results import write_report
from tests.load.broadcaster import Broadcaster, live_config
from tests.load.network import Uplink
from tests.load.pictures import MatchPictures
from tests.load.tally import Tally

_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / (1 << 20)
_WARM_UP_SHARE = 1 / 6
_COMPARED_SHARE = 1 / 6
"""Memory right after the warm-up is compared with memory at the end, over so much of the run."""
_UPLINK = Uplink(stall_every_s=20.0, stall_s=4.0)
"""Held frames come at once, from the first stall on: pools of pictures, whose memory is kept, reach
their bound in the warm-up, and not whenever the machine first is busy with something else."""


@dataclass(frozen=True)
class Growth:
    """Resident memory of one process, or of all decoding processes together.

    Attributes:
        process: What it is.
        begin_mb: Median after the warm-up.
        end_mb: Median at the end.
        growth_share: From the first to the second.
        samples: Seconds since the start, and MB.
    """

    process: str
    begin_mb: float
    end_mb: float
    growth_share: float
    samples: tuple[tuple[float, float], ...]


async def soak(minutes: float, streams: int, frame_rate: float) -> tuple[list[Growth], list[Tally]]:
    """Play streams; return how memory grew, and what was counted of each stream."""
    pictures, seconds = MatchPictures(), 60 * minutes
    async with (
        LocalCluster("sim") as cluster,
        OrchestratorProcess(cluster.endpoints) as served,
    ):
        broadcasters = [
            Broadcaster(
                served.target,
                live_config(f"soak {k}", frame_rate, 2.0),
                pictures,
                seconds=seconds,
                seed=k,
                uplink=_UPLINK,
            )
            for k in range(streams)
        ]
        roots = [served.pid, *(server.pid for server in cluster.servers)]
        async with asyncio.TaskGroup() as group:
            playing = [group.create_task(one.play()) for one in broadcasters]
            samples = await _watch(roots, playing, every_s=max(0.2, seconds / 180))
    grown = [growth(process, rows) for process, rows in sorted(samples.items())]
    return grown, [one.tally for one in broadcasters]


async def _watch(
    roots: Sequence[int], playing: Sequence[asyncio.Task[object]], every_s: float
) -> dict[str, list[tuple[float, float]]]:
    """Sample the memory of processes and their children until all streams have ended."""
    samples: dict[str, list[tuple[float, float]]] = defaultdict(list)
    began = time.monotonic()
    while not all(task.done() for task in playing):
        for process, mb in resident_mb(roots).items():
            samples[process].append((round(time.monotonic() - began, 1), round(mb, 1)))
        await asyncio.wait(playing, timeout=every_s)
    return samples


def growth(process: str, samples: Sequence[tuple[float, float]]) -> Growth:
    """Compare memory after the warm-up with memory at the end."""
    end = samples[-1][0]
    settled = [mb for at, mb in samples if at >= _WARM_UP_SHARE * end]
    count = max(1, round(_COMPARED_SHARE * len(samples)))
    before, after = statistics.median(settled[:count]), statistics.median(settled[-count:])
    return Growth(process, before, after, round(after / before - 1, 4), tuple(samples))


def resident_mb(roots: Sequence[int]) -> dict[str, float]:
    """Return the resident memory of processes and all their descendants by what they are, in MB.

    Of the orchestrator also what is shared: libraries, and the bounded pools of pictures.
    """
    parents = _parents()
    found: dict[str, float] = defaultdict(float)
    for pid in parents:
        if _is_below(pid, roots, parents):
            try:
                resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
                line = Path(f"/proc/{pid}/cmdline").read_text()
            except OSError:  # it ended meanwhile
                continue
            if not line:  # likewise, and nobody has asked how
                continue
            kind = _kind(line)
            found[kind] += resident * _PAGE_MB
            if kind == "orchestrator":
                found["orchestrator, of that shared"] += shared * _PAGE_MB
    return found


def _parents() -> dict[int, int]:
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:  # it ended meanwhile
            continue
    return parents


def _is_below(pid: int, roots: Sequence[int], parents: dict[int, int]) -> bool:
    while pid not in roots:
        if pid not in parents:
            return False
        pid = parents[pid]
    return True


def _kind(command_line: str) -> str:
    """Say what a process is."""
    words = command_line.split("\0")
    if words[0].endswith("triton_python_backend_stub"):
        return f"model {Path(words[1]).parents[1].name}"
    if words[0].endswith("tritonserver"):
        return "tritonserver"
    if "die_with_parent" in command_line:
        return "guards"
    return "orchestrator" if words[-2] == "orchestrator" else "orchestrator's workers"


def main() -> None:
    """Soak, write the JSON, print a line per process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/soak.json"))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--frame-rate", type=float, default=2.0, help="frames/s of each stream")
    options = parser.parse_args()
    grown, tallies = asyncio.run(soak(options.minutes, options.streams, options.frame_rate))
    is_accounted = all(tally.is_accounted and not tally.refusal for tally in tallies)
    counts = sum((tally.counts for tally in tallies), Counter[str]())
    write_report(
        options.output,
        minutes=options.minutes,
        streams=options.streams,
        frame_rate=options.frame_rate,
        every_frame_accounted=is_accounted,
        reconnections=counts["started"] - options.streams,
        counts=counts,
        processes=[asdict(one) for one in grown],
    )
    for one in grown:
        print(f"{one.process}: {one.begin_mb} MB, then {one.end_mb} MB ({one.growth_share:+.1%})")
    print(f"every frame accounted for: {is_accounted}, of {counts['sent']}")


if __name__ == "__main__":
    main()
