"""Write a checkpoint as the ONNX graphs that are served, each one checked before it appears.

  touchline export detector CHECKPOINT --output DIR --pictures CLIP   RF-DETR
  touchline export jersey CHECKPOINT --output DIR --pictures CLIP     the multi-head ResNet
  touchline export check FILE...                                      would TensorRT take them?

An export writes MODEL.PRECISION.onnx for every precision asked for, and notes in export.json their
checksums, their origin and their distance from torch, beside those of other files of the folder:

  fp32          as trained; what `touchline engine build` starts from
  fp16          computed in fp16, for TensorRT 10 (strongly typed) and 11
  fp16-stored   half the file, computed in fp32: for CPUs
  int8          the smallest file; on CPUs a detector gains a fifth in speed, a ResNet loses a third

All take uint8 pixels in any batch size and give fp32. A precision whose answers on --pictures
differ from torch's by more than its limits (training/export/families.py) is refused with the
figures, and nothing is written.

`check` parses each file as TensorRT's strongly typed builder does, with --build it also compiles
it for the given GPUs. It needs no GPU, but the packages tensorrt-rtx-cu13-libs and
tensorrt-rtx-cu13-bindings. TensorRT-RTX is a close relative of TensorRT, not TensorRT itself: what
it refuses because of types TensorRT 11 refuses, too; what it takes is not yet proven to run. It
compiles fp32 graphs from capability 80 on only, and takes no int8 ones.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from training.export.precision import Precision
from training.export.rtx import CAPABILITIES

if TYPE_CHECKING:
    from training.export.families import Family
    from training.export.files import Source

_SIZES = ("micro", "nano", "small", "medium", "large")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    models = parser.add_subparsers(required=True, metavar="detector|jersey|check")
    detector = models.add_parser("detector", help="a checkpoint of RF-DETR")
    detector.add_argument("--size", choices=_SIZES, default="micro", help="default: %(default)s")
    detector.add_argument("--labels", help="comma list; default: the names in the checkpoint")
    detector.set_defaults(run=_export_detector)
    jersey = models.add_parser("jersey", help="a checkpoint of the jersey network")
    jersey.set_defaults(run=_export_jersey)
    for model in (detector, jersey):
        _add_export_arguments(model)
    check = models.add_parser("check", help="parse files with TensorRT-RTX, without a GPU")
    check.add_argument("files", type=Path, nargs="+", metavar="FILE")
    check.add_argument("--build", action="store_true", help="compile them, too")
    check.add_argument(
        "--capabilities",
        nargs="+",
        choices=CAPABILITIES,
        default=CAPABILITIES,
        help="compute capabilities to compile for; default: all (T4, A100, A10, L4)",
    )
    check.set_defaults(run=_check)


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="made if missing")
    parser.add_argument(
        "--pictures",
        type=Path,
        required=True,
        help="what to compare on: a clip, a picture or a folder of pictures of matches",
    )
    parser.add_argument(
        "--count", type=int, default=8, help="pictures to take of it; default: %(default)s"
    )
    parser.add_argument(
        "--precision",
        nargs="+",
        type=Precision,
        choices=list(Precision),
        default=[Precision.FP32, Precision.FP16, Precision.FP16_STORED],
        metavar="P",
        help=f"any of {', '.join(Precision)}; default: all but int8",
    )
    parser.add_argument("--provenance", help="text for the files; default: the checkpoint's name")


def _export_detector(options: argparse.Namespace) -> int:
    from training.detector.checkpoints import labels, load
    from training.detector.export import to_onnx, torch_runner
    from training.export.families import DETECTOR
    from training.export.files import Source

    model = load(options.size, options.checkpoint)
    names = labels(model, given=options.labels)
    properties = {"labels": ",".join(names), "provenance": _provenance(options)}
    source = Source(options.checkpoint, to_onnx(model), torch_runner(model), properties)
    return _export(options, DETECTOR, source)


def _export_jersey(options: argparse.Namespace) -> int:
    from training.export.families import JERSEY
    from training.export.files import Source
    from training.jersey.checkpoints import load
    from training.jersey.export import to_onnx, torch_runner

    net = load(options.checkpoint)
    properties = {"provenance": _provenance(options)}
    source = Source(options.checkpoint, to_onnx(net), torch_runner(net), properties)
    return _export(options, JERSEY, source)


def _provenance(options: argparse.Namespace) -> str:
    return str(options.provenance or options.checkpoint.name)


def _export(options: argparse.Namespace, family: "Family", source: "Source") -> int:
    from training.export.families import input_side
    from training.export.files import export_files
    from training.export.inputs import read_pictures

    pictures = read_pictures(options.pictures, options.count)
    rows = family.inputs(pictures, input_side(source.graph))
    for path, figures in export_files(
        source, family, options.precision, rows, options.output
    ).items():
        numbers = ", ".join(f"{name} {value:.5g}" for name, value in figures.items())
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB  {numbers}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from training.export.rtx import check

    for path in options.files:
        found = check(path, capabilities=options.capabilities if options.build else ())
        built = f", built in {found.build_s:.1f} s, {found.plan_bytes / 1e6:.1f} MB"
        print(
            f"{path}  {found.layers} layers, parsed in {found.parse_s:.1f} s"
            + (built if options.build else "")
        )
    return 0
