"""`touchline plan`: what a number of streams needs and costs."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from orchestrator.cli.outputs import all_or_nothing

if TYPE_CHECKING:
    from deploy.capacity.plan import Plan


def add_plan_command(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `touchline plan`."""
    parser.add_argument("--streams", type=int, metavar="N", help="live at the same time")
    parser.add_argument("--fps", type=float, metavar="RATE", help="frames a second of each")
    parser.add_argument("--gpu", metavar="h200|a100|l4|t4")
    parser.add_argument("--people", type=int, metavar="N", help="in sight at once")
    parser.add_argument(
        "--observed", type=int, metavar="N", help="people that SAM2 looks for in a frame, at most"
    )
    parser.add_argument("--gpu-hour-price", type=_price, metavar="MONEY")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.add_argument(
        "--simulate", type=Path, metavar="DIR", help="simulate a match day; write JSON and plots"
    )
    parser.set_defaults(run=plan_streams)


def plan_streams(options: argparse.Namespace) -> int:
    """Print a plan; return the exit code.

    Raises:
        CapacityError: The GPU cannot serve such streams, or a number is out of range.
        InvalidRequestError: There is no folder to write to; raised before the simulation.
    """
    from deploy.capacity.plan import make_plan
    from deploy.capacity.profile import load

    workload = {"streams": options.streams, "frame_rate": options.fps}
    watched = {"people": options.people, "observed": options.observed}
    profile = load(options.gpu, **workload, **watched)
    plan = make_plan(profile, options.gpu_hour_price)
    if options.simulate is not None:
        from deploy.capacity.study import write_study  # matplotlib takes a second

        with all_or_nothing(options.simulate, "--simulate") as draft:
            write_study(profile, plan, draft)
    if options.json:
        print(json.dumps(plan.as_json(), indent=2))
        return 0
    console = Console()
    console.print(_table(plan))
    for line in _notes(plan):
        console.print(line, soft_wrap=True)
    return 0


def _table(plan: "Plan") -> Table:
    title = f"{plan.streams} streams of {plan.frame_rate:g} frames a second on {plan.gpu}"
    table = Table("", "load", "one replica can", "replicas", "left", title=title)
    for need in plan.needs:
        load_text, capacity = f"{need.load:.4g} {need.unit}", f"{need.capacity:.4g} {need.unit}"
        table.add_row(need.name, load_text, capacity, str(need.replicas), f"{need.headroom:.0%}")
    return table


def _notes(plan: "Plan") -> list[str]:
    price = "an example, give --gpu-hour-price" if plan.is_example else "as given"
    notes = [
        f"{plan.gpus} GPUs at {plan.gpu_hour_price:g} an hour ({price}): "
        f"{plan.stream_hour_price:.2f} per stream-hour, CPUs not included.",
        f"SAM2 looks for {plan.observed} people in each frame (parameter max_observed).",
    ]
    tracker = next(need for need in plan.needs if need.name == "sam2_tracker")
    if tracker.capacity < plan.slots:
        notes.append(
            f"Its config lets in {plan.slots} streams per replica, but this GPU keeps up with "
            f"{tracker.capacity:.0f}: set slots to that, or streams that meet will be degraded."
        )
    if not plan.is_measured:
        notes.append("Most latencies behind this are estimates: measure yours before you buy.")
    return notes


def _price(text: str) -> float:
    try:
        if 0 <= float(text) < 1e6:
            return float(text)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"expected 0 or more, got {text!r}")
