"""A simulated day and what-ifs around it, as JSON and plots."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean

import matplotlib as mpl

from deploy.capacity.match_day import Day, Simulation
from deploy.capacity.plan import Plan
from deploy.capacity.profile import Profile

mpl.use("Agg")
from matplotlib import pyplot as plt

_SHARES = (0.55, 0.65, 0.75, 0.85, 0.95)
_START_S = (60.0, 240.0, 600.0)
_SEEDS = range(3)


@dataclass(frozen=True, slots=True)
class Point:
    """What one choice costs and gives, the mean of a few days.

    Attributes:
        start_s: From a new pod to its first answer.
        slots_share: Of the trackers' slots that the autoscaler fills.
        missed_share: Of the video that clients wanted to send.
        stream_hour_price: Of the GPUs, idle ones included.
    """

    start_s: float
    slots_share: float
    missed_share: float
    stream_hour_price: float


def write_study(profile: Profile, plan: Plan, output: Path) -> Day:
    """Simulate, and write `plan.json`, `match_day.png` and `curves.png`.

    Args:
        profile: What is simulated.
        plan: Of the same profile; gives the price.
        output: A folder.

    Returns:
        The day that is plotted.
    """
    day = Simulation(profile).run()
    points = list(_points(profile, plan.gpu_hour_price))
    summary = {
        "stream_hours": day.stream_hours,
        "missed_share": day.missed_share,
        "gpu_hours": day.gpu_hours,
        "stream_hour_price": day.gpu_hours * plan.gpu_hour_price / day.stream_hours,
        "refused": day.refused,
        "longest_wait_s": day.longest_wait_s,
    }
    curves = [asdict(point) for point in points]
    content = {"plan": plan.as_json(), "day": summary, "curves": curves}
    (output / "plan.json").write_text(json.dumps(content, indent=2) + "\n")
    _plot_day(day, plan, output / "match_day.png")
    _plot_curves(points, plan, output / "curves.png")
    return day


def _points(profile: Profile, gpu_hour_price: float) -> Iterator[Point]:
    for start_s in _START_S:
        for share in _SHARES:
            headroom = {**profile.table["headroom"], "slots": share}
            changed = replace(profile, table={**profile.table, "headroom": headroom})
            days = [Simulation(changed, seed=seed, start_s=start_s).run() for seed in _SEEDS]
            price = mean(day.gpu_hours / day.stream_hours for day in days) * gpu_hour_price
            yield Point(start_s, share, mean(day.missed_share for day in days), price)


def _plot_day(day: Day, plan: Plan, file: Path) -> None:
    hours = [moment.at_s / 3600 for moment in day.moments]
    _, (streams, gpus, missed) = plt.subplots(3, 1, figsize=(8, 7), sharex=True)
    streams.step(hours, [moment.served for moment in day.moments], where="post", label="served")
    wanted = [moment.wanted for moment in day.moments]
    streams.step(hours, wanted, where="post", linestyle=":", color="black", label="wanted")
    streams.set_ylabel("streams")
    for name in day.moments[0].gpus:
        count = [moment.gpus[name] for moment in day.moments]
        gpus.step(hours, count, where="post", label=name)
    gpus.set_ylabel(f"{plan.gpu} GPUs paid for")
    share = [100 * moment.missed for moment in day.moments]
    missed.step(hours, share, where="post", color="tab:red", label="wanted, not served in time")
    missed.set_ylabel("% of frames")
    missed.set_xlabel("hour of the day")
    for axes in (streams, gpus, missed):
        axes.set_xlim(9, 24)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left", fontsize="small")
    _save(file)


def _plot_curves(points: list[Point], plan: Plan, file: Path) -> None:
    _, axes = plt.subplots(figsize=(6, 4))
    for start_s in _START_S:
        mine = [point for point in points if point.start_s == start_s]
        prices = [point.stream_hour_price for point in mine]
        missed = [100 * point.missed_share for point in mine]
        axes.plot(prices, missed, marker="o", label=f"a replica starts in {start_s:.0f} s")
        for point, price, miss in zip(mine, prices, missed, strict=True):
            axes.annotate(f"{point.slots_share:.2f}", (price, miss), fontsize=7)
    axes.set_xlabel(
        f"$ per stream-hour ({plan.gpu} at {plan.gpu_hour_price:g} an hour, an example)"
    )
    axes.set_ylabel("% of video not served in time")
    axes.set_title("by the share of slots that the autoscaler fills", fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(file)


def _save(file: Path) -> None:
    plt.tight_layout()
    plt.savefig(file, dpi=90)
    plt.close()
