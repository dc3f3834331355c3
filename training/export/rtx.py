"""Would TensorRT take this graph? Asked of TensorRT-RTX, which parses and compiles without a GPU.

TensorRT itself is not on the package index and does nothing without a GPU. TensorRT-RTX shares its
parser, typing rules and Python API, so a graph whose types do not fit together is refused with the
very error that TensorRT 11 would give. No kernel is timed and nothing runs: this is a check of the
graph, not of an engine.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from onnx import ModelProto

from training.engine.builder import Build, BuildOptions
from training.errors import InputError
from training.export.graph import read_graph

CAPABILITIES = ("75", "80", "86", "89")
"""Compute capabilities of T4, A100, A10 and L4; TensorRT-RTX knows no Hopper."""


@dataclass(frozen=True, slots=True)
class RtxReport:
    """What TensorRT-RTX made of a graph; the last two are 0 if nothing was compiled."""

    layers: int
    parse_s: float
    build_s: float = 0.0
    plan_bytes: int = 0


def load_rtx() -> ModuleType:
    """Return TensorRT-RTX's module, the one door to it.

    Raises:
        InputError: It is not installed; names the packages.
    """
    try:
        import_module("tensorrt_rtx_libs")  # loads the libraries that the bindings want
        return import_module("tensorrt_rtx_bindings")
    except ImportError as error:
        raise InputError(
            "this check needs the packages tensorrt-rtx-cu13-libs and tensorrt-rtx-cu13-bindings "
            f"(Linux, x86-64): {error}"
        ) from error


def check(path: Path, *, capabilities: Sequence[str] = ()) -> RtxReport:
    """Parse an ONNX file and, for the capabilities given, compile it.

    Args:
        path: The file.
        capabilities: Any of `CAPABILITIES`.

    Raises:
        InputError: TensorRT-RTX is missing, or refuses the graph; names the file.
    """
    rtx, graph = load_rtx(), read_graph(path)
    try:
        return check_model(rtx, graph, capabilities)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def check_model(rtx: ModuleType, graph: ModelProto, capabilities: Sequence[str]) -> RtxReport:
    """As `check`, of a graph in memory and with TensorRT-RTX's module."""
    start = time.monotonic()
    build = Build(rtx, graph)
    parsed = time.monotonic()
    if not capabilities:
        return RtxReport(build.layers, parsed - start)
    build.configure(BuildOptions())
    target(rtx, build, capabilities)
    plan = build.plan()
    return RtxReport(build.layers, parsed - start, time.monotonic() - parsed, len(plan))


def target(rtx: ModuleType, build: Build, capabilities: Sequence[str]) -> None:
    """Compile for GPUs of these compute capabilities, instead of the one in the machine."""
    build.config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        value = getattr(rtx.ComputeCapability, f"SM{capability}")
        build.config.set_compute_capability(value, index)
