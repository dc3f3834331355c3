"""Pictures of `metrics.json`: small PNG files, also legible on a phone."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from training.evaluation.targets import TARGETS, Target

NAMES = ("clips", "precision_recall", "role_confusion", "risk_coverage")
"""The pictures, in the order of the report."""

_GREEN, _RED, _BLUE, _GREY = "#2a8c4a", "#c0392b", "#2c5d9b", "#888888"
_DPI = 110
_COLOURS = 64


def draw(metrics: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write `<name>.png` for each of `NAMES`.

    Args:
        metrics: What `training.evaluation.scores.evaluate` returns.
        directory: Where to; it must be there.
    """
    figures = (
        _clips(metrics),
        _precision_recall(metrics),
        _role_confusion(metrics["pooled"]["attributes"]["role_confusion"]),
        _risk_coverage(metrics["pooled"]["numbers"]),
    )
    paths = [directory / f"{name}.png" for name in NAMES]
    for path, figure in zip(paths, figures, strict=True):
        _save(figure, path)
    return paths


def _save(figure: Figure, path: Path) -> None:
    """Write with a palette: a third of the bytes of true colours."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    Image.open(buffer).convert("RGB").quantize(_COLOURS).save(path, optimize=True)


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _clips(metrics: Mapping[str, Any]) -> Figure:
    """Draw one row of bars per main figure: all clips, then each; a line marks the target."""
    bounded = [target for target in TARGETS if target.bound is not None]
    figure = _figure(6.4, 1.0 + (0.8 + 0.16 * len(metrics["clips"])) * len(bounded) / 1.5)
    rows = -(-len(bounded) // 2)
    for axes, target in zip(figure.subplots(rows, 2).flat, bounded, strict=False):
        _bars(axes, metrics, target)
    for spare in figure.axes[len(bounded) :]:
        spare.remove()
    return figure


def _bars(axes: Axes, metrics: Mapping[str, Any], target: Target) -> None:
    assert target.bound is not None
    names = ["all", *metrics["clips"]]
    values = [target.value(figures) for figures in (metrics["pooled"], *metrics["clips"].values())]
    known = [0.0 if value is None else value for value in values]
    colours = [
        _GREY if value is None else _GREEN if target.is_met(value) else _RED for value in values
    ]
    bars = axes.barh(names, known, color=colours, height=0.7)
    axes.axvline(target.bound, color="black", linestyle="--", linewidth=1)
    labels = axes.bar_label(bars, [_text(value) for value in values], fontsize=7, padding=3)
    for label in labels:  # the target's line must not cross out a figure
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    axes.set_xlim(0, 1.15 * max(1.0, target.bound, *known))
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)
    sign = "≤" if target.is_most else "≥"
    axes.set_title(f"{target.name} (target {sign} {target.bound:g})", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _precision_recall(metrics: Mapping[str, Any]) -> Figure:
    figure = _figure(5, 3.6)
    axes = figure.add_subplot()
    for number, clip in enumerate(metrics["clips"].values()):
        curve = clip["detection"]["pr_curve"]
        label = "each clip" if number == 0 else None
        axes.plot(curve["recall"], curve["precision"], color=_BLUE, linewidth=0.7, label=label)
    pooled = metrics["pooled"]["detection"]
    label = f"all clips: AP50 {_text(pooled['person']['ap50'])}"
    curve = pooled["pr_curve"]
    axes.plot(curve["recall"], curve["precision"], color="black", linewidth=2, label=label)
    axes.set(xlabel="recall", ylabel="precision", title="People at IoU 0.5")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="lower left")
    axes.grid(alpha=0.3)
    return figure


def _role_confusion(confusion: Mapping[str, Any]) -> Figure:
    counts = np.array(confusion["counts"], float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(5, 2.7)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(confusion["columns"])), confusion["columns"], fontsize=8)
    axes.set_yticks(range(len(confusion["rows"])), confusion["rows"], fontsize=8)
    for (row, column), value in np.ndenumerate(shares):
        text = f"{value:.2f}\n{counts[row, column]:.0f}"
        colour = "white" if value > 0.5 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set(xlabel="said", ylabel="is", title="Roles: share of the row, players x frames")
    return figure


def _risk_coverage(numbers: Mapping[str, Any]) -> Figure:
    figure = _figure(5, 3.2)
    axes = figure.add_subplot()
    for label, colour, part in (
        ("tracks", _BLUE, numbers),
        ("single frames", _GREY, numbers["frames"]),
    ):
        curve = part["risk_coverage"]
        axes.plot(
            curve["coverage"], curve["risk"], color=colour, marker=".", markersize=4, label=label
        )
    axes.axhline(0.05, color="black", linestyle="--", linewidth=1, label="target: 0.05")
    axes.set(xlabel="coverage (share answered)", ylabel="risk (share wrong)")
    axes.set(xlim=(0, 1.02), ylim=(-0.01, None), title="Shirt numbers, by confidence asked for")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    return figure


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
