"""Score recognised clips, or one model, against labelled footage.

A run: `touchline evaluate out/clips/* --truth FOOTAGE --output DIR` compares what
`touchline recognize` wrote with the truth of its clip, found by the video's name, and writes
metrics.json, plots and report.html.

A model: `touchline evaluate --of detector WEIGHTS --truth FOOTAGE` runs one model by itself on the
clips kept out of training (or on `--clips`) and writes its metrics.json. The detector, as ONNX, is
scored on footage of any format that `touchline data check` knows; the others need rendered clips.

Without truth: `touchline evaluate out/match --stand-in YOLOX.onnx --video match.mp4` tells how many
of the people that a detector of others finds on the grass the run boxed, too.
"""

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from training.errors import InputError
from training.whole_file import write_whole

MODELS = ("detector", "tracker", "jersey", "embedder")
"""Rooms of `training/` with `evaluate.evaluate(weights, footage, clips) -> figures`."""

METRICS = "metrics.json"
_CLIPS_HELP = "with --of: clips to run on; for the tracker also CLIP:FRAMES, its first frames"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `touchline evaluate` takes."""
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS",
        help="results.jsonl files, or the folders that hold them; with --of, the weights",
    )
    parser.add_argument(
        "--truth",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="the footage's folder, with CLIP.gt.json.gz or, in another format that `touchline "
        "data check` knows, a folder CLIP; or the truth of each of the results, of a single one as "
        "the file of its labels",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="write the figures here")
    parser.add_argument("--of", choices=MODELS, help="score this model by itself")
    parser.add_argument("--clips", nargs="+", metavar="CLIP", help=_CLIPS_HELP)
    parser.add_argument("--stand-in", type=Path, metavar="ONNX", help="instead of truth: a YOLOX")
    parser.add_argument("--video", type=Path, help="with --stand-in: the video of the results")
    parser.add_argument("--every", type=int, default=10, help="with --stand-in: frames to a look")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    if options.stand_in:
        if options.truth or options.of or options.clips:
            raise InputError("--stand-in: expected without --truth, --of and --clips")
        _evaluate_by_stand_in(options)
    elif not options.truth:
        raise InputError("--truth: expected the truth of the results, or --stand-in")
    elif options.video:
        raise InputError("--video: expected only with --stand-in")
    elif options.of:
        _evaluate_model(options)
    elif options.clips:
        raise InputError("--clips: expected only with --of; a run tells its clip itself")
    else:
        _evaluate_runs(options)
    return 0


def _evaluate_runs(options: argparse.Namespace) -> None:
    from rich.console import Console

    from training.evaluation import plots, report
    from training.evaluation.runs import read_run
    from training.evaluation.scores import evaluate
    from training.evaluation.truth import truth_of

    runs = [read_run(path) for path in options.results]
    metrics = evaluate(zip(runs, truth_of(runs, options.truth), strict=True))
    Console().print(report.table(metrics))
    if options.output:
        _write(metrics, options.output)
        pictures = plots.draw(metrics, options.output)
        report.write(metrics, pictures, options.output / "report.html")


def _evaluate_model(options: argparse.Namespace) -> None:
    from training.data.crops import HELD_OUT
    from training.data.readers import rendered

    if len(options.results) != 1 or len(options.truth) != 1:
        raise InputError(f"--of {options.of}: expected one weights file and one folder of footage")
    weights, footage = options.results[0], options.truth[0]
    for path in (weights, footage):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    is_rendered = bool(rendered.find(footage))
    if not is_rendered and options.of != "detector":
        raise InputError(
            f"{footage}: expected rendered clips ({rendered.LAYOUT}): only they tell the masks, "
            f"kits and numbers that a {options.of} is scored on"
        )
    # The tracker has its own: stretches of these without a camera cut.
    clips = options.clips or (HELD_OUT if is_rendered and options.of != "tracker" else ())
    room = import_module(f"training.{options.of}.evaluate")
    metrics = room.evaluate(weights, footage, tuple(clips))
    print(json.dumps(metrics, indent=2))
    if options.output:
        _write(metrics, options.output)


def _evaluate_by_stand_in(options: argparse.Namespace) -> None:
    from PIL import Image

    from training.data.pseudo_labels import StandIn
    from training.evaluation import stand_in
    from training.evaluation.runs import read_run

    if options.video is None or len(options.results) != 1 or options.every < 1:
        raise InputError("--stand-in: expected one of RESULTS, its --video, --every of 1 or more")
    run, detector = read_run(options.results[0]), StandIn(options.stand_in)
    metrics = stand_in.evaluate(run, options.video, detector, options.every)
    print(json.dumps(metrics, indent=2))
    if options.output:
        _write(metrics, options.output)
        middle = sorted(run.frames)[len(run.frames) // 2]
        shown = Image.fromarray(stand_in.picture(run, options.video, detector, middle))
        shown.thumbnail((1600, 1600))
        shown.save(options.output / "boxes.jpg", quality=80)


def _write(metrics: dict[str, Any], directory: Path) -> None:
    write_whole(directory / METRICS, (json.dumps(metrics, indent=1) + "\n").encode())
