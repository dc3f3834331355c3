"""`make bench-sam2`: what SAM2 costs over objects and streams, upstream's predictor against ours.

On a CPU only a part of the cross product is timed, since all of it would take hours; operations are
counted for all of it. On a CUDA device everything is timed. Figures of one run compare with each
other only.
"""

import argparse
import asyncio
import os
import platform
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import torch

from tests.bench import sam2_frames, sam2_memory, sam2_report
from tests.bench.sam2_contenders import COMPACT, Contenders, Setting, gflop
from tests.bench.sam2_official import OfficialStart, random_predictor
from tests.bench.sam2_report import OBJECTS, STREAMS, TEAMS, Row

_SLOW_GFLOP, _VERY_SLOW_GFLOP = 1_500, 20_000
"""From about 3 and 40 seconds of one core on, a step is repeated less often."""
_BOUNDED_FRAMES, _GROWING_FRAMES, _LARGE_FRAMES = 10_000, 100, 3
_REQUESTS = 60


def settings(network: str) -> list[Setting]:
    """All settings: the cross product in bf16, and a few in fp32."""
    views = [
        Setting(network, "official", "frame", 1024, "bfloat16", 1, 1),
        Setting(network, "official", "frame", 512, "bfloat16", 1, 1),
        Setting(network, "touchline", "frame", 1024, "bfloat16", 1, 1),
        Setting(network, "touchline", "frame", 512, "bfloat16", 1, 1),
        Setting(network, "touchline", "window", 512, "bfloat16", 1, 1),
        Setting(network, "touchline", "window", 256, "bfloat16", 1, 1),
        Setting(network, "touchline", "window", 128, "bfloat16", 1, 1),
        Setting(COMPACT, "touchline", "window", 128, "bfloat16", 1, 1),
    ]
    crossed = [
        replace(view, objects=objects, streams=streams)
        for view, streams, objects in product(views, STREAMS, OBJECTS)
    ]
    in_fp32 = [
        replace(view, dtype="float32", objects=objects)
        for view in views
        if view.network != COMPACT and view.size <= 512
        for objects in ((1,) if view.size == 512 else (1, TEAMS))
    ]
    return crossed + in_fp32


def is_timed(setting: Setting, device: torch.device) -> bool:
    """Whether there is time for it: objects with one stream, and streams with five objects."""
    if device.type == "cuda":
        return True
    if setting.streams == 1:
        return setting.objects <= TEAMS or setting.engine == "official" or setting.size <= 256
    if setting.objects != 5 or setting.size > 512:
        return False
    if setting.engine == "official":  # takes one stream after the other
        return setting.streams == 2
    return setting.mode == "frame" or setting.size <= 256


def repeats(gflop_per_step: float, device: torch.device) -> tuple[int, int]:
    """Return how often a step is run untimed and timed."""
    if device.type == "cuda":
        return 5, 20
    if gflop_per_step > _VERY_SLOW_GFLOP:
        return 0, 1
    return (0, 2) if gflop_per_step > _SLOW_GFLOP else (1, 3)


def counted(chosen: Iterable[Setting], contenders: Contenders) -> list[Row]:
    """Count the operations of all settings; the contenders are on the `meta` device.

    Neither a type nor other streams change what a frame needs, as a test shows: one count serves.
    """
    rows: list[Row] = []
    known: dict[Setting, float] = {}
    for setting in chosen:
        key = replace(setting, dtype="float32", streams=1)
        if key not in known:
            known[key] = gflop(contenders.make(key))
        rows.append(Row(setting, known[key]))
    return rows


def timed(rows: Sequence[Row], contenders: Contenders) -> list[Row]:
    """Time the settings; those of equal objects, streams and type take turns."""
    device = contenders.device
    groups: dict[tuple[str, int, int], list[Row]] = defaultdict(list)
    for row in rows:
        if is_timed(row.setting, device):
            one = row.setting
            groups[one.dtype, one.streams, one.objects].append(row)
    found: dict[Setting, Row] = {}
    for (dtype, *_), group in groups.items():
        # Open over all steps, autocast converts upstream's weights only once.
        with torch.autocast(device.type, torch.bfloat16, dtype == "bfloat16"):
            found |= {row.setting: row for row in _in_turns(group, contenders)}
    return [found.get(row.setting, row) for row in rows]


def _in_turns(group: Sequence[Row], contenders: Contenders) -> list[Row]:
    device = contenders.device
    plans = [repeats(row.gflop_per_frame * row.setting.streams, device) for row in group]
    running = [contenders.make(row.setting) for row in group]
    samples: list[list[tuple[float, float]]] = [[] for _ in group]
    for turn in range(max(map(sum, plans))):
        for contender, plan, mine in zip(running, plans, samples, strict=True):
            if turn < sum(plan):
                mine.append(_time_step(contender, device))
    return [
        _with_times(row, mine[warmups:])
        for row, (warmups, _), mine in zip(group, plans, samples, strict=True)
    ]


def _time_step(contender: Any, device: torch.device) -> tuple[float, float]:
    """Wall and CPU milliseconds of a step of all streams."""
    _wait_for(device)
    wall, cpu = time.perf_counter(), time.process_time()
    contender.step()
    _wait_for(device)
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _with_times(row: Row, samples: Sequence[tuple[float, float]]) -> Row:
    wall, cpu = (
        statistics.median(column) / row.setting.streams for column in zip(*samples, strict=True)
    )
    row = replace(row, ms_per_frame=wall, cpu_ms_per_frame=cpu, repeats=len(samples))
    one = row.setting
    print(
        f"{one.engine} {one.mode} {one.size} {one.network} {one.dtype}: {one.objects} objects, "
        f"{one.streams} streams: {wall:.1f} ms, {row.gflop_per_frame:.1f} GFLOP",
        flush=True,
    )
    return row


def memory(device: torch.device, network: str) -> dict[str, Any]:
    """Measure what a long stream holds, ours bounded and upstream's growing."""
    bounded = sam2_memory.touchline_growth(device, TEAMS, _BOUNDED_FRAMES)
    small, large = (
        sam2_memory.official_growth(
            OfficialStart(random_predictor(network, size).to(device)), frames
        )
        for size, frames in ((64, _GROWING_FRAMES), (1024, _LARGE_FRAMES))
    )
    return {
        "touchline_bytes_per_object_and_frame": sam2_memory.bytes_per_frame(bounded),
        "official_64_bytes_per_object_and_frame": sam2_memory.bytes_per_frame(small),
        "official_1024_bytes_per_object_and_frame": sam2_memory.bytes_per_frame(large),
        "samples": [asdict(sample) for sample in bounded + small + large],
    }


def machine(device: torch.device) -> str:
    """Describe the class of machine."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {os.cpu_count()} cores {platform.machine()}"
    amx = " with AMX" if "amx_bf16" in Path("/proc/cpuinfo").read_text() else ""
    return f"{os.cpu_count()} cores {platform.machine()}{amx}, no GPU, shared"


def run(network: str, device: torch.device) -> tuple[dict[str, Any], list[Row]]:
    """Measure everything."""
    begun, load = time.monotonic(), os.getloadavg()[0]
    frames = asyncio.run(sam2_frames.measure(_REQUESTS))
    held = memory(device, network)
    rows = counted(settings(network), Contenders(torch.device("meta")))
    rows = timed(rows, Contenders(device))
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(device),
        "threads": torch.get_num_threads(),
        "load_average": [round(load, 2), round(os.getloadavg()[0], 2)],
        "ratios": sam2_report.ratios(rows),
        "rows": [row.as_dict() for row in rows],
        "memory": held,
        "frame_input": [asdict(row) for row in frames],
    }
    return report | {"minutes": round((time.monotonic() - begun) / 60, 1)}, rows


def main() -> None:
    """Measure, print the tables, write the JSON and beside it the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--network", default=sam2_report.TINY, help="a published SAM 2.1 network")
    options = parser.parse_args()
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    report, rows = run(options.network, device)
    sam2_report.write_json(report, options.output)
    sam2_report.plot(rows, options.output.with_suffix(".png"))
    print(sam2_report.table(rows))
    print(sam2_report.markdown(("ratio", "value"), list(report["ratios"].items())))
    frames = report["frame_input"]
    print(sam2_report.markdown(list(frames[0]), [list(row.values()) for row in frames]))


if __name__ == "__main__":
    main()
