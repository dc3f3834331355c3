"""Check, count, convert or show labelled footage, or label people by a detector.

PATH is a file or folder of rendered truth (`<clip>.gt.json.gz`), COCO as Roboflow lays it out,
YOLO, MOTChallenge, SoccerNet Tracking, SoccerNet Game State Reconstruction, or masks as DAVIS lays
them out; which one it is, is recognised. `label` takes an unlabelled video instead.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.data.clips import Clip
from training.data.reading import check, read, recognise
from training.data.splits import Split, split_by_name, split_by_share
from training.data.summary import Summary, as_json, summarise
from training.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    actions = parser.add_subparsers(required=True, metavar="check|stats|convert|preview|label")
    checker = _action(
        actions, "check", "list all that is wrong; exit code 1 if anything is", _check
    )
    checker.add_argument("--json", action="store_true", help="print JSON")
    stats = _action(actions, "stats", "count clips, frames, boxes, sizes and numbers", _stats)
    stats.add_argument("--json", action="store_true", help="print JSON")
    converter = _action(actions, "convert", "write the data in another format", _convert)
    converter.add_argument("--to", choices=("coco", "yolo", "mot"), required=True)
    converter.add_argument("--output", type=Path, required=True, help="new or empty folder")
    converter.add_argument("--every", type=int, default=1, help="write every so many frames")
    converter.add_argument("--held-out", nargs="+", default=[], help="clips that become `valid`")
    converter.add_argument(
        "--held-out-share", type=float, default=0.0, help="or: share of frames to draw for `valid`"
    )
    converter.add_argument("--seed", type=int, default=0, help="of the draw")
    shower = _action(actions, "preview", "draw boxes, masks, ids and numbers on a sheet", _preview)
    shower.add_argument("--output", type=Path, required=True, help="picture to write: .png, .jpg")
    shower.add_argument("--frames", type=int, default=12, help="number of frames shown")
    labeller = _action(
        actions,
        "label",
        "find the people of an unlabelled video with a stand-in",
        _label,
        path="the video",
    )
    labeller.add_argument("--stand-in", type=Path, required=True, help="YOLOX detector, ONNX")
    labeller.add_argument(
        "--output", type=Path, required=True, help="new or empty folder: COCO labels"
    )
    labeller.add_argument("--every", type=int, default=5, help="label every so many frames")
    labeller.add_argument("--frames", type=int, help="use only so many frames from the start")


def _action(
    actions: Any, name: str, text: str, run: Any, path: str = "labelled footage"
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.add_argument("path", type=Path, metavar="PATH", help=path)
    parser.set_defaults(run=run)
    return parser


def _check(options: argparse.Namespace) -> int:
    clips, problems = check(options.path)
    frames = sum(len(clip.sightings) for clip in clips)
    if options.json:
        found = {"clips": len(clips), "frames": frames, "count": problems.count}
        print(json.dumps({**found, "problems": problems.messages}))
    else:
        print("".join(f"{message}\n" for message in problems.messages), end="")
        if problems.count > len(problems.messages):
            print(f"and {problems.count - len(problems.messages)} more")
        verdict = f"{problems.count} problems" if problems.count else "no problem"
        print(f"{recognise(options.path)}: {len(clips)} clips, {frames} frames, {verdict}")
    return 1 if problems.count else 0


def _stats(options: argparse.Namespace) -> int:
    summaries = summarise(read(options.path))
    if options.json:
        print(json.dumps(as_json(summaries)))
    else:
        _print_table(summaries)
    return 0


def _print_table(summaries: list[Summary]) -> None:
    from rich.console import Console
    from rich.table import Table

    kinds = list(summaries[-1].boxes)
    table = Table(caption="height: visible boxes, 5th/50th/95th percentile in px")
    table.add_column("clip")
    headings = [*kinds, "people height", "ball height", "people/frame", "readable", "masks"]
    for heading in ("frames", *headings):
        table.add_column(heading, justify="right")
    for summary in summaries:
        table.add_row(*_row(summary, kinds), end_section=summary is summaries[-2])
    # A pipe has no width of its own, and a table must not lose columns there.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _row(summary: Summary, kinds: list[str]) -> list[str]:
    heights = ["/".join(f"{v:g}" for v in summary.heights.get(g, ())) for g in ("people", "ball")]
    readable = "unknown" if summary.readable_numbers is None else str(summary.readable_numbers)
    return [
        summary.name,
        str(summary.frames),
        *(str(summary.boxes.get(kind, 0)) for kind in kinds),
        *heights,
        f"{summary.people_per_frame:.1f}",
        readable,
        "yes" if summary.masks else "no",
    ]


def _convert(options: argparse.Namespace) -> int:
    from training.data.writers import coco, mot, yolo

    if options.every < 1:
        raise InputError(f"--every: expected 1 or more, got {options.every}")
    _check_is_free(options.output)
    clips = read(options.path)
    split = _split(clips, options)
    for leak in split.leaks:
        sys.stderr.write(f"touchline: warning: {leak}\n")
    by_name = {clip.name: clip for clip in clips}
    sides = {"train": split.train, "valid": split.held_out}
    splits = {side: [by_name[n] for n in names] for side, names in sides.items() if names}
    with _appearing_whole(options.output) as folder:
        {"coco": coco, "yolo": yolo, "mot": mot}[options.to].write(splits, folder, options.every)
    for side, members in splits.items():
        print(f"{side}: {', '.join(clip.name for clip in members)}")
    return 0


def _check_is_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: expected a new or empty folder")
    if folder.is_mount():  # which nothing can be renamed to
        raise InputError(f"{folder}: expected a folder inside the mounted one")


@contextmanager
def _appearing_whole(folder: Path) -> Iterator[Path]:
    """Give a folder to fill, which takes the name `folder` once all is in it."""
    folder = folder.resolve()
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _split(clips: list[Clip], options: argparse.Namespace) -> Split:
    if options.held_out and options.held_out_share:
        raise InputError("--held-out, --held-out-share: expected one of the two")
    if options.held_out_share:
        return split_by_share(clips, options.held_out_share, options.seed)
    return split_by_name(clips, options.held_out)


def _label(options: argparse.Namespace) -> int:
    from training.data.pseudo_labels import StandIn, label
    from training.data.writers import coco

    _check_is_free(options.output)
    clip = label(
        options.path, StandIn(options.stand_in), every=options.every, frames=options.frames
    )
    with _appearing_whole(options.output) as folder:
        coco.write({"train": [clip]}, folder, options.every)
    found = sum(len(sightings) for sightings in clip.sightings)
    print(f"{options.output}: {found} people by {options.stand_in.name}; not truth, look at them")
    return 0


def _preview(options: argparse.Namespace) -> int:
    from PIL import Image

    from training.data.preview import contact_sheet

    if options.frames < 1:
        raise InputError(f"--frames: expected 1 or more, got {options.frames}")
    sheet = contact_sheet(read(options.path), options.frames)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        Image.fromarray(sheet).save(options.output)
    except ValueError as error:
        raise InputError(f"{options.output}: expected a name like sheet.png: {error}") from error
    print(f"{options.output}: {sheet.shape[1]}x{sheet.shape[0]} px")
    return 0
