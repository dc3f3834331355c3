"""Build a TensorRT engine, publish it only if it answers as its ONNX graph, and verify it later.

  touchline engine build MODEL.onnx --output DIR --pictures CLIP
  touchline engine verify DIR/ENGINE

`build` runs in the TensorRT image of the same release as the Triton that will serve the engine
(nvcr.io/nvidia/tensorrt:YY.MM-py3), on the same type of GPU; TensorRT 10 and 11. It starts from the
fp32 graph of `touchline export`, casts it to fp16, compiles it strongly typed, and runs engine and
graph on --pictures. If the answers differ by more than the thresholds of training/engine/gate.py,
it exits with 1, says which figure failed, and publishes nothing. Otherwise there is

  DIR/<onnx sha256, 16 digits>-trt<version>-sm<compute capability>/model.plan
  DIR/.../manifest.json      checksums, machine, options, figures and thresholds

which is copied to model_repository/<model>/1/. The same order again finds the engine there and
builds nothing; an engine that was built with other options is never overwritten.
"""

import argparse
from pathlib import Path

from training.export.precision import Precision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    commands = parser.add_subparsers(required=True, metavar="build|verify")
    build = commands.add_parser("build", help="build, gate and publish an engine")
    build.add_argument("model", type=Path, metavar="MODEL.onnx", help="of `touchline export`, fp32")
    build.add_argument("--output", type=Path, required=True, metavar="DIR", help="of all engines")
    build.add_argument(
        "--pictures",
        type=Path,
        required=True,
        help="what to compare on: a clip, a picture or a folder of pictures of matches",
    )
    build.add_argument(
        "--count", type=int, default=16, help="pictures to take of it; default: %(default)s"
    )
    build.add_argument(
        "--precision",
        choices=[Precision.FP16.value, Precision.FP32.value],
        default=Precision.FP16.value,
        help="default: %(default)s",
    )
    for name, default in (("min", 1), ("opt", 8), ("max", 32)):
        build.add_argument(
            f"--{name}-batch", type=int, default=default, metavar="N", help="default: %(default)s"
        )
    build.add_argument("--workspace-gib", type=float, help="default: what the GPU has")
    build.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="kernel timings to read and write"
    )
    build.set_defaults(run=_build)
    verify = commands.add_parser("verify", help="check an engine's files and that it fits this GPU")
    verify.add_argument("engine", type=Path, metavar="ENGINE", help="its folder")
    verify.add_argument("--files-only", action="store_true", help="on a machine without the GPU")
    verify.set_defaults(run=_verify)


def _build(options: argparse.Namespace) -> int:
    from training.engine.builder import BuildOptions
    from training.engine.publication import build_engine
    from training.engine.store import PLAN
    from training.engine.toolchain import this_toolchain
    from training.export.inputs import read_pictures

    wanted = BuildOptions(
        options.min_batch, options.opt_batch, options.max_batch, options.workspace_gib
    )
    toolchain = this_toolchain(options.timing_cache)
    pictures = read_pictures(options.pictures, options.count)
    precision = Precision(options.precision)
    folder = build_engine(options.model, options.output, precision, wanted, pictures, toolchain)
    print(folder / PLAN)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from training.engine.store import verify
    from training.engine.toolchain import load_tensorrt, this_machine

    machine = None if options.files_only else this_machine(load_tensorrt())
    manifest = verify(options.engine, machine)
    print(f"{options.engine}: {manifest.model} in {manifest.precision}, sound")
    return 0
