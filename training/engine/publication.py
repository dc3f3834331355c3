"""From an ONNX file to a published engine: convert, compile, compare, and only then publish."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from onnx import ModelProto, TensorProto

from orchestrator.types.pictures import Pixels
from training.checksum import sha256_of
from training.engine.builder import BuildOptions
from training.engine.gate import pass_gate, thresholds
from training.engine.store import Manifest, folder_name, plan_sha256, publish, verify
from training.engine.toolchain import Toolchain
from training.errors import InputError
from training.export.agreement import violations
from training.export.families import Family, family_of, input_side
from training.export.graph import onnx_runner, read_graph
from training.export.precision import Precision, converted
from training.export.storage import restore_fp32


def build_engine(
    source: Path,
    root: Path,
    precision: Precision,
    options: BuildOptions,
    pictures: Sequence[Pixels],
    toolchain: Toolchain,
) -> Path:
    """Build, gate and publish the engine of an ONNX file.

    Args:
        source: An fp32 graph of one of our models, stored as fp32 or as fp16.
        root: Folder of engines.
        precision: fp32 or fp16.
        options: Batch sizes and memory.
        pictures: Real pictures to compare on.
        toolchain: What builds and runs engines here.

    Returns:
        The engine's folder; that of an earlier build if the same was asked for.

    Raises:
        InputError: The file is no such graph, TensorRT refuses it, or the engine's place is taken
            by one that was built otherwise.
        GateError: The engine answers otherwise than the graph; nothing is published.
    """
    graph = read_fp32(source)
    family = family_of(graph)
    asked = _manifest(source, family, precision, options, toolchain)
    target = root / folder_name(asked.onnx_sha256, toolchain.machine)
    if target.exists():
        return _same(target, asked)
    rows = family.inputs(list(pictures), input_side(graph))
    start = time.monotonic()
    plan = toolchain.build(converted(graph, precision), options)
    build_s = time.monotonic() - start
    figures = pass_gate(onnx_runner(graph), toolchain.run(plan), family, rows)
    built = {
        "plan_sha256": plan_sha256(plan),
        "build_s": round(build_s, 1),
        "figures": figures,
        "compared_inputs": len(rows),
    }
    return publish(plan, asked.model_copy(update=built), root)


def read_fp32(source: Path) -> ModelProto:
    """Read a graph that computes in fp32, however its weights are stored.

    Raises:
        InputError: It is no such file, or computes in something else.
    """
    graph = restore_fp32(read_graph(source))
    types = {weight.data_type for weight in graph.graph.initializer}
    if types & {TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8}:
        raise InputError(f"{source}: expected the fp32 graph; its fp16 form is made here")
    return graph


def _manifest(
    source: Path,
    family: Family,
    precision: Precision,
    options: BuildOptions,
    toolchain: Toolchain,
) -> Manifest:
    """Return what is known before the build."""
    batches = {"min": options.min_batch, "opt": options.opt_batch, "max": options.max_batch}
    rest = {k: v for k, v in asdict(options).items() if not k.endswith("_batch")}
    return Manifest(
        model=family.contract.name,
        onnx_sha256=sha256_of(source),
        plan_sha256="",
        machine=toolchain.machine,
        precision=precision.value,
        profile=batches,
        options={"strongly_typed": True, **rest},
        build_s=0.0,
        figures={},
        thresholds=dict(thresholds(family)),
        compared_inputs=0,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        touchline=version("touchline"),
    )


def _same(target: Path, asked: Manifest) -> Path:
    there = verify(target, asked.machine)
    # The gate may have become narrower since the engine passed it.
    differences = [*there.differences(asked), *violations(there.figures, asked.thresholds)]
    if differences:
        raise InputError(
            f"{target}: holds an engine of this graph with {'; '.join(differences)}; "
            "choose another --output, or remove it"
        )
    return target
