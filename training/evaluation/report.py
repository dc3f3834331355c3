"""What a person reads of `metrics.json`: a page that needs no other file, and a terminal table."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.table import Table

from training.evaluation.switches import CAUSES
from training.evaluation.targets import TARGETS, Target

_TEMPLATE = "report.html.jinja"

_CAPTIONS = {
    "clips": "Main figures by clip; the broken line is the target.",
    "precision_recall": "Precision and recall of people as the confidence asked for falls.",
    "role_confusion": "What people are, and what was said of them.",
    "risk_coverage": "Wrong shirt numbers as less confidence is asked for.",
}


def write(metrics: Mapping[str, Any], pictures: Sequence[Path], path: Path) -> None:
    """Write the page.

    Args:
        metrics: What `training.evaluation.scores.evaluate` returns.
        pictures: PNG files, which the page takes in.
        path: The HTML file to write.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = [
        (target, text(target.value(metrics["pooled"])), bound(target), verdict(target, metrics))
        for target in TARGETS
    ]
    page = environment.get_template(_TEMPLATE).render(
        metrics=metrics,
        rows=rows,
        clips=[
            (name, figures["frames"], [text(target.value(figures)) for target in TARGETS])
            for name, figures in metrics["clips"].items()
        ],
        targets=TARGETS,
        losses={name: clip["tracking"]["deta_loss"] for name, clip in metrics["clips"].items()},
        switches=metrics["pooled"]["tracking"]["switch_causes"],
        causes=CAUSES,
        pictures=[(_CAPTIONS[picture.stem], _data_url(picture)) for picture in pictures],
    )
    path.write_text(page, encoding="utf-8")


def table(metrics: Mapping[str, Any]) -> Table:
    """Return the main figures for a terminal: of all clips, and of the clip that does worst."""
    result = Table("figure", "target", "all clips", "worst clip")
    pooled = metrics["pooled"]
    result.caption = f"{pooled['frames']} frames, {pooled['unanswered']} without a result"
    for target in TARGETS:
        value = target.value(pooled)
        colour = {"met": "green", "missed": "red"}.get(verdict(target, metrics), "default")
        clips = {name: target.value(figures) for name, figures in metrics["clips"].items()}
        result.add_row(
            target.name, bound(target), f"[{colour}]{text(value)}", _worst(target, clips)
        )
    return result


def _worst(target: Target, clips: Mapping[str, float | None]) -> str:
    known = [(value, name) for name, value in clips.items() if value is not None]
    if not known:
        return ""
    value, name = (max if target.is_most else min)(known)
    return f"{text(value)} {name}"


def text(value: float | None) -> str:
    """Return a figure as it is shown; a dash where there was nothing to measure."""
    return "-" if value is None else f"{value:.3f}"


def bound(target: Target) -> str:
    """Return what is to be reached, as it is shown."""
    if target.bound is None:
        return ""
    return f"{'≤' if target.is_most else '≥'} {target.bound:g}"


def verdict(target: Target, metrics: Mapping[str, Any]) -> str:
    """Return `met` or `missed`; nothing without a target or a figure."""
    value = target.value(metrics["pooled"])
    if target.bound is None or value is None:
        return ""
    return "met" if target.is_met(value) else "missed"


def _data_url(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
