"""Plots of a load test."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from tests.load.measure import Point

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes


def plot(sweep: Sequence[Point], capacity_fps: float, output: Path) -> None:
    """Draw goodput, latency, losses and fairness over the number of streams into a PNG file.

    Args:
        sweep: One point per number of streams, rising.
        capacity_fps: Of the bottleneck model alone.
        output: The file.
    """
    streams = [point.streams for point in sweep]
    figure, ((goodput, latency), (losses, fairness)) = plt.subplots(2, 2, figsize=(10, 7))
    goodput.plot(streams, [point.goodput_fps for point in sweep], marker="o", label="goodput")
    goodput.axhline(capacity_fps, linestyle=":", color="grey", label="bottleneck model alone")
    _finish(goodput, "frames/s in time", streams)
    for share in ("p50", "p95", "p99"):
        times = [getattr(point, f"{share}_ms") for point in sweep]
        latency.plot(streams, times, marker="o", label=share)
    _finish(latency, "ms from arrival to recognition", streams)
    losses.plot(streams, [point.refused / point.streams for point in sweep], marker="o",
                label="streams refused")  # fmt: skip
    losses.plot(streams, [point.lost_share for point in sweep], marker="o",
                label="frames of admitted streams lost")  # fmt: skip
    _finish(losses, "share", streams)
    fairness.plot(streams, [point.fairness for point in sweep], marker="o", label="Jain's index")
    fairness.plot(streams, [point.worst_to_best for point in sweep], marker="o",
                  label="worst / best stream")  # fmt: skip
    _finish(fairness, "fairness of admitted streams", streams)
    figure.tight_layout()
    figure.savefig(output, dpi=110)
    plt.close(figure)


def _finish(axes: Axes, label: str, streams: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(streams), [str(count) for count in streams])
    axes.set_xlabel("live streams")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
