"""All figures of runs, clip by clip and taken together."""

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any

from training.data.clips import Clip
from training.evaluation import (
    attributes,
    ball,
    detection,
    game_state,
    masks,
    numbers,
    revised,
    tracking,
)
from training.evaluation.matching import BALL_VISIBLE_PX, IGNORED_PX, MATCH_IOU, match_run
from training.evaluation.runs import Run
from training.evaluation.targets import TARGETS

VERSION = 1
"""Of the form of `metrics.json`; rises when a key changes its meaning or goes."""

SECTIONS: Mapping[str, ModuleType] = {
    "detection": detection,
    "tracking": tracking,
    "revised": revised,
    "masks": masks,
    "attributes": attributes,
    "numbers": numbers,
    "ball": ball,
    "game_state": game_state,
}
"""Each has `measure(matched)`, what one clip adds, and `figures(parts)`, what clips make together;
the figures of a section are documented there."""


def evaluate(pairs: Iterable[tuple[Run, Clip]]) -> dict[str, Any]:
    """Score runs against their truth.

    Returns:
        What `metrics.json` holds::

            version      VERSION
            rules        ignored_px, match_iou, ball_visible_px: see training.evaluation.matching
            definitions  by path, such as "tracking.hota": one sentence on each main figure
            targets      by path: bound, and whether it is the most allowed (is_most)
            clips        by name: frames, unanswered (frames without a result), and each of SECTIONS
            pooled       the same over all clips: counts are added up, then shares are taken

        Shares are in `[0, 1]`, rounded to 4 digits; None where there was nothing to measure.
    """
    names: list[str] = []
    parts: list[dict[str, Any]] = []
    for run, clip in pairs:
        names.append(clip.name)
        parts.append(_measure(run, clip))
    report = {
        "version": VERSION,
        "rules": {
            "ignored_px": IGNORED_PX,
            "match_iou": MATCH_IOU,
            "ball_visible_px": BALL_VISIBLE_PX,
        },
        "definitions": {target.path: target.definition for target in TARGETS},
        "targets": {
            target.path: {"bound": target.bound, "is_most": target.is_most}
            for target in TARGETS
            if target.bound is not None
        },
        "clips": {name: _figures([part]) for name, part in zip(names, parts, strict=True)},
        "pooled": _figures(parts),
    }
    return dict(_rounded(report))


def _measure(run: Run, clip: Clip) -> dict[str, Any]:
    matched = match_run(run, clip)
    return {
        "frames": len(matched.frames),
        "unanswered": sum(not frame.is_answered for frame in matched.frames),
        **{name: section.measure(matched) for name, section in SECTIONS.items()},
    }


def _figures(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        **{name: sum(part[name] for part in parts) for name in ("frames", "unanswered")},
        **{
            name: section.figures([part[name] for part in parts])
            for name, section in SECTIONS.items()
        },
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value
