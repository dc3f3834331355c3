"""What `make bench-sam2` writes: JSON with one row a line, Markdown tables, and a plot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.sam2_contenders import Setting

TINY = "sam2.1_hiera_tiny"
OBJECTS = (1, 5, 11, 22, 44)
STREAMS = (1, 2, 4, 8)
TEAMS = 22
"""Objects that the aims are stated for."""


@dataclass(frozen=True, slots=True)
class Row:
    """One setting and what a frame of it costs.

    Attributes:
        setting: What was measured.
        gflop_per_frame: Billions of operations for all objects of one frame of one stream.
        ms_per_frame: Wall time likewise: of a step of all streams, divided by the streams. Median
            over the repeats; None where it was not timed.
        cpu_ms_per_frame: Likewise CPU time of this process.
        repeats: Timed steps.
    """

    setting: Setting
    gflop_per_frame: float
    ms_per_frame: float | None = None
    cpu_ms_per_frame: float | None = None
    repeats: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the row as the JSON has it."""
        one = self.setting
        return {
            "engine": one.engine,
            "mode": one.mode,
            "size": one.size,
            "objects": one.objects,
            "streams": one.streams,
            "ms_per_frame": _rounded(self.ms_per_frame),
            "gflop_per_frame": _rounded(self.gflop_per_frame),
            "cpu_ms_per_frame": _rounded(self.cpu_ms_per_frame),
            "timed": self.ms_per_frame is not None,
            "repeats": self.repeats,
            "dtype": one.dtype,
            "network": one.network,
            "warm": True,
        }


def ratios(rows: Sequence[Row]) -> dict[str, float | None]:
    """Return what the issue set aims for, from the times of one run; None where one is missing."""
    frame = {
        (size, n): _ms(rows, "official", "frame", size, n) for size in (1024, 512) for n in OBJECTS
    }
    found = {
        f"official_1024_over_window_{size}_at_{TEAMS}": _ratio(
            frame[1024, TEAMS], _ms(rows, "touchline", "window", size, TEAMS)
        )
        for size in (512, 256, 128)
    }
    for (size, objects), official in frame.items():
        ours = _ms(rows, "touchline", "frame", size, objects)
        found[f"frame_over_official_{size}_at_{objects}"] = _ratio(ours, official)
    for size in (512, 256, 128):
        one, teams = (_ms(rows, "touchline", "window", size, n) for n in (1, TEAMS))
        found[f"window_{size}_at_{TEAMS}_over_1"] = _ratio(teams, one)
    return found


def table(rows: Sequence[Row]) -> str:
    """Write milliseconds and GFLOP per frame as Markdown, one line per engine, view and streams."""
    head = ["engine", "mode", "network", "dtype", "size", "streams"]
    head += [f"{n} objects: ms (GFLOP)" for n in OBJECTS]
    cells: dict[tuple[str, ...], dict[int, str]] = {}
    for row in rows:
        one = row.setting
        key = (one.engine, one.mode, one.network, one.dtype, str(one.size), str(one.streams))
        time = "-" if row.ms_per_frame is None else _short(row.ms_per_frame)
        cells.setdefault(key, {})[one.objects] = f"{time} ({_short(row.gflop_per_frame)})"
    lines = [[*key, *(found.get(n, "") for n in OBJECTS)] for key, found in cells.items()]
    return markdown(head, lines)


def markdown(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """Write a Markdown table."""
    rule = "|" + " --- |" * len(head)
    return "\n".join(
        [f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(map(str, line))} |" for line in lines)]
    )


def write_json(report: Mapping[str, Any], path: Path) -> None:
    """Write a report whose lists of objects have one object a line."""
    parts = []
    for key, value in report.items():
        text = json.dumps(value)
        if isinstance(value, list):
            text = "[\n" + ",\n".join(f"    {json.dumps(item)}" for item in value) + "\n  ]"
        parts.append(f"  {json.dumps(key)}: {text}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the time of a frame over its objects, one stream, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="tight")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="objects", ylabel="ms per frame")
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        one = row.setting
        if row.ms_per_frame is not None and one.streams == 1 and one.dtype == "bfloat16":
            name = f"{one.engine} {one.mode} {one.size}"
            name += "" if one.network == TINY else f", {one.network}"
            curves.setdefault(name, []).append((one.objects, row.ms_per_frame))
    for name, points in curves.items():
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=name)
    axes.set_xticks(OBJECTS, [str(n) for n in OBJECTS])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)


def _ms(rows: Sequence[Row], engine: str, mode: str, size: int, objects: int) -> float | None:
    """Time of the main network in bf16 with one stream."""
    for row in rows:
        one = row.setting
        is_main = one.network != "compact" and one.dtype == "bfloat16" and one.streams == 1
        if is_main and (one.engine, one.mode, one.size, one.objects) == (
            engine,
            mode,
            size,
            objects,
        ):
            return row.ms_per_frame
    return None


def _ratio(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else round(above / below, 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _short(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
