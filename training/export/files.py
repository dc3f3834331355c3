"""Writing checked graphs: every file appears complete and proven, or not at all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper

from orchestrator.contracts import ModelContract
from training.checksum import sha256_of
from training.errors import InputError
from training.export.agreement import Figures, Runner, Tensors, violations
from training.export.families import Family
from training.export.graph import OPSET, check_graph, onnx_runner
from training.export.precision import Precision, converted
from training.whole_file import write_whole

_RECORD = "export.json"
_PACKAGES = ("touchline", "torch", "torchvision", "rfdetr", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True)
class Source:
    """A trained network on its way out.

    Attributes:
        checkpoint: The file it was loaded from.
        graph: Its fp32 graph.
        torch: The network itself, run by torch: what every graph is held against.
        properties: What the files say about themselves: `labels`, `provenance`.
    """

    checkpoint: Path
    graph: ModelProto
    torch: Runner
    properties: Mapping[str, str]


class AgreementError(InputError):
    """A graph's answers are too far from the reference's; names the figures and their limits."""


def export_files(
    source: Source,
    family: Family,
    precisions: Sequence[Precision],
    rows: NDArray[np.uint8],
    folder: Path,
) -> dict[Path, Figures]:
    """Write `<model>.<precision>.onnx` for each precision, and `export.json` beside them.

    All graphs are checked before the first is written. What `export.json` says of other files that
    were exported into the folder stays.

    Args:
        source: The network.
        family: What it is.
        precisions: The forms to write.
        rows: Real inputs to compare on, uint8 `(n, height, width, 3)`.
        folder: Made if missing; files of the same names are replaced.

    Returns:
        The files, with the figures of each against torch.

    Raises:
        InputError: A graph is invalid or breaks its contract, or there is an `export.json` of
            something else; nothing is written.
        AgreementError: A graph's answers differ too much; nothing is written.
    """
    earlier = _earlier(folder)
    expected = source.torch(rows)
    graphs, figures = {}, {}
    for precision in precisions:
        path = folder / file_name(family.contract.name, precision)
        graphs[path] = prepared(source.graph, precision, family.contract, source.properties)
        figures[path] = _proven(graphs[path], family, precision, expected, rows)
    folder.mkdir(parents=True, exist_ok=True)
    for path, graph in graphs.items():
        write_whole(path, graph.SerializeToString())
    record = {"files": {**earlier, **_facts(source, figures, len(rows))}}
    write_whole(folder / _RECORD, (json.dumps(record, indent=1) + "\n").encode())
    return figures


def file_name(model: str, precision: Precision) -> str:
    """Return the name of a model's graph; what builds engines looks for it."""
    return f"{model}.{precision}.onnx"


def prepared(
    graph: ModelProto, precision: Precision, contract: ModelContract, properties: Mapping[str, str]
) -> ModelProto:
    """Return the checked form of an fp32 graph in a precision, with its properties.

    Raises:
        InputError: The result is invalid or breaks the contract.
    """
    form = converted(graph, precision)
    helper.set_model_props(form, {**properties, "precision": precision.value})
    check_graph(form, contract)
    return form


def _proven(
    graph: ModelProto,
    family: Family,
    precision: Precision,
    expected: Tensors,
    rows: NDArray[np.uint8],
) -> Figures:
    figures = family.compare(expected, onnx_runner(graph)(rows))
    broken = violations(figures, family.limits[precision])
    if broken:
        raise AgreementError(
            f"{family.contract.name} in {precision} is refused, it differs too much from torch: "
            + "; ".join(broken)
        )
    return figures


def _earlier(folder: Path) -> dict[str, Any]:
    """Return what is recorded of files that lie in a folder, by name."""
    path = folder / _RECORD
    if not path.exists():
        return {}
    try:
        files = json.loads(path.read_bytes())["files"]
        return {name: facts for name, facts in files.items() if (folder / name).exists()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: expected the record of an export") from error


def _facts(source: Source, figures: Mapping[Path, Figures], rows: int) -> dict[str, Any]:
    """Return what there is to say of each file, by name."""
    common = {
        "checkpoint": {"name": source.checkpoint.name, "sha256": sha256_of(source.checkpoint)},
        "opset": OPSET,
        "properties": dict(source.properties),
        "compared_inputs": rows,
        "packages": {name: version(name) for name in _PACKAGES},
    }
    return {
        path.name: {
            "sha256": sha256_of(path),
            "bytes": path.stat().st_size,
            "precision": path.suffixes[-2][1:],
            "against_torch": {name: round(value, 7) for name, value in values.items()},
            **common,
        }
        for path, values in figures.items()
    }
