"""`touchline top`: what orchestrators are doing, from their metrics."""

import argparse
import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.cli.scrape import Change, Scrape, between, read
from orchestrator.errors import MetricsError
from orchestrator.overload.ladder import Level
from orchestrator.telemetry import STAGES

_LEVELS = {float(level): level.name.lower() for level in Level}


async def watch(options: argparse.Namespace) -> int:
    """Show tables until interrupted, or once.

    Raises:
        MetricsError: No orchestrator answers at the start.
    """
    console = Console(markup=False)  # names are nobody's commands
    before = await read(options.urls)
    if not before.processes:
        raise MetricsError("; ".join(before.problems))
    with _screen(console, is_kept=options.once) as show:
        while True:
            await asyncio.sleep(options.interval)
            now = await read(options.urls)
            show(picture(before, now))
            if options.once:
                return int(bool(now.problems))
            before = now


@contextmanager
def _screen(console: Console, *, is_kept: bool) -> Iterator[Callable[[Group], None]]:
    """Give what shows a picture: in place of the last one, or below it where that cannot be."""
    if is_kept or console.is_dumb_terminal or not console.is_terminal:
        yield console.print
        return
    with Live(Text("reading ..."), console=console, screen=True, auto_refresh=False) as live:
        yield partial(live.update, refresh=True)


def picture(before: Scrape, now: Scrape) -> Group:
    """Return all tables, below what is wrong with processes that do not answer."""
    problems, change = [Text(text, style="red") for text in now.problems], between(before, now)
    if not change.now.values:
        return Group(*problems)
    tables = (_summary(change), _tenants(change), _models(change), _stages(change))
    return Group(*problems, *tables)


def _summary(change: Change) -> Text:
    now = change.now
    level = now.total("touchline_degradation_level")
    used, slots = (now.total(f"touchline_tracker_slots{suffix}") for suffix in ("_used", ""))
    facts = {
        "streams": f"{now.total('touchline_streams'):.0f}",
        "tracks": f"{now.total('touchline_tracks'):.0f}",
        "frames/s": f"{change.rate('touchline_frames_recognized_total'):.1f}",
        "late/s": f"{change.rate('touchline_deadline_misses_total'):.1f}",
        "SAM2 slots": f"{used:.0f} of {slots:.0f}",
        "level": _LEVELS.get(level, f"{level:g}"),
    }
    text = Text("  ").join(Text.assemble((f"{k} ", "dim"), (v, "bold")) for k, v in facts.items())
    text.stylize("yellow" if level else "default")
    for reason, rate in _losses(change):
        text.append(f"\nlost/s {reason}: {rate:.1f}", "yellow")
    return text


def _losses(change: Change) -> Iterator[tuple[str, float]]:
    name = "touchline_frames_lost_total"
    for reason in change.now.label_values(name, "reason"):
        rate = change.rate(name, reason=reason)
        if rate > 0:
            yield reason, rate


def _tenants(change: Change) -> Table:
    table = _table("tenant", "streams", "received/s", "recognized/s", "lost/s", "MB/s")
    for tenant in change.now.label_values("touchline_frames_received_total", "tenant"):
        table.add_row(
            tenant,
            f"{change.now.total('touchline_streams', tenant=tenant):.0f}",
            f"{change.rate('touchline_frames_received_total', tenant=tenant):.1f}",
            f"{change.rate('touchline_frames_recognized_total', tenant=tenant):.1f}",
            f"{change.rate('touchline_frames_lost_total', tenant=tenant):.1f}",
            f"{change.rate('touchline_bytes_received_total', tenant=tenant) / 1e6:.2f}",
        )
    return table


def _models(change: Change) -> Table:
    table = _table("model", "replicas", "in flight", "queued", "rows/s", "queue p90", "service p90")
    now = change.now
    for model in now.label_values("touchline_model_replicas", "model"):
        table.add_row(
            model,
            _replicas(change, model),
            f"{now.total('touchline_model_in_flight', model=model):.0f}",
            f"{now.total('touchline_model_queued', model=model):.0f}",
            f"{now.total('touchline_model_rows_per_second', model=model):.1f}",
            _milliseconds(change.quantile(0.9, "touchline_model_queue_seconds", model=model)),
            _milliseconds(change.quantile(0.9, "touchline_model_service_seconds", model=model)),
        )
    return table


def _replicas(change: Change, model: str) -> str:
    """Return the number of replicas in each state that any is in."""
    name = "touchline_model_replicas"
    counts = {
        state: change.now.total(name, model=model, state=state)
        for state in change.now.label_values(name, "state")
    }
    present = [f"{count:.0f} {state}" for state, count in counts.items() if count]
    return ", ".join(sorted(present, key=lambda text: "ready" not in text)) or "none"


def _stages(change: Change) -> Table:
    table = _table("stage", "p50", "p90", "p99")
    for stage in STAGES:
        quantiles = [
            change.quantile(share, "touchline_stage_seconds", stage=stage)
            for share in (0.5, 0.9, 0.99)
        ]
        table.add_row(stage, *map(_milliseconds, quantiles))
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
