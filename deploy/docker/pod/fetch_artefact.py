"""Bring a model's weights or engine into its pod and prove them right: an init container.

    fetch_artefact.py weights sam2.1-hiera-base-plus --source /store --output /models/.../weights
    fetch_artefact.py engine rfdetr_detector --onnx SHA256 --source /engines --output /models/.../1

Weights are copied from a store (`STORE/<name>/<file>`, as `touchline weights pull` makes it; a
folder or an `http(s)://` address) and held against the registry that the image carries. Engines are
copied from the folder that `touchline engine build` publishes to: the one that was built from this
ONNX file, for this TensorRT and for this GPU. Anything else ends the pod's start at once, with a
text that says what was expected and what is there.
"""

import argparse
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

REGISTRY = Path(__file__).with_name("registry.json")
PLAN, MANIFEST = "model.plan", "manifest.json"

_MACHINE = {"tensorrt", "capability"}

_BLOCK = 1 << 20
_STALL_S = 30.0


class ArtefactError(Exception):
    """There is no right artefact for this pod; its text says why."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What an engine must have been built for.

    Attributes:
        tensorrt: Version of this image's TensorRT, such as `11.4.0.106`.
        capability: Compute capability of this pod's GPU without the dot, such as `90`.
    """

    tensorrt: str
    capability: str


def fetch_weights(name: str, source: str, output: Path, registry: Path) -> list[Path]:
    """Copy registered weights and verify them.

    Args:
        name: Of an entry of the registry.
        source: A store: folder or `http(s)://` address.
        output: The model's folder of weights. A single file is put there, more than one into a
            folder with the entry's name, as the models' configs expect.
        registry: The registry's file.

    Returns:
        The files.

    Raises:
        ArtefactError: The entry is unknown, or a file is missing or not the registered one.
    """
    entries = {entry["name"]: entry for entry in json.loads(registry.read_text())["entries"]}
    if name not in entries:
        raise ArtefactError(f"weights {name!r}: expected one of {', '.join(sorted(entries))}")
    files = entries[name]["files"]
    folder = output if len(files) == 1 else output / name
    return [
        copy_verified(f"{source}/{name}/{file['path']}", folder / file["path"], file["sha256"])
        for file in files
    ]


def fetch_engine(
    model: str, onnx_sha256: str, source: Path, output: Path, machine: Machine
) -> list[Path]:
    """Copy the engine of an ONNX file for a machine and verify it.

    Args:
        model: Name of the model in the repository.
        onnx_sha256: Of the fp32 ONNX file, or its first digits, 8 or more.
        source: Folder of engines.
        output: The model's version folder.
        machine: Where the engine is to run.

    Returns:
        The plan and its manifest.

    Raises:
        ArtefactError: There is no such engine, or its bytes are not those that were published.
    """
    if not re.fullmatch(r"[0-9a-f]{8,64}", onnx_sha256):
        raise ArtefactError(
            f"onnx {onnx_sha256!r}: expected the ONNX file's sha256 in hex, 8 digits or more; "
            "set MODEL_ONNX of this model"
        )
    manifests, broken = _manifests(source)
    built = {p: one for p, one in manifests.items() if _is_of(one, model, onnx_sha256)}
    fitting = [path for path, one in built.items() if _fits(one["machine"], machine)]
    if len(fitting) != 1:
        mismatch = _mismatch(model, onnx_sha256, source, list(built), machine)
        raise ArtefactError("; ".join((mismatch, *broken)))
    (manifest,) = fitting
    checked = built[manifest]["plan_sha256"]
    plan = copy_verified(str(manifest.with_name(PLAN)), output / PLAN, checked)
    kept = output / MANIFEST
    kept.write_bytes(manifest.read_bytes())
    return [plan, kept]


def copy_verified(source: str, target: Path, sha256: str) -> Path:
    """Copy a file; it gets its name only when its bytes are right.

    Raises:
        ArtefactError: It cannot be read or written, or has another sha256.
    """
    partial = target.with_name(target.name + ".partial")
    digest = hashlib.sha256()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _open(source) as original, partial.open("wb") as copy:
            while block := original.read(_BLOCK):
                digest.update(block)
                copy.write(block)
    except (OSError, http.client.HTTPException) as error:
        partial.unlink(missing_ok=True)
        raise ArtefactError(f"{source}: cannot be copied to {target}: {error}") from error
    if digest.hexdigest() != sha256:
        partial.unlink()
        raise ArtefactError(f"{source}: expected sha256 {sha256}, found {digest.hexdigest()}")
    return partial.replace(target)


def this_machine() -> Machine:
    """Return the TensorRT of this image and the first GPU of this pod.

    Raises:
        ArtefactError: One of them cannot be found out.
    """
    stated = re.match(r"\d+(\.\d+){2,3}", os.environ.get("TRT_VERSION", ""))
    if stated is None:
        raise ArtefactError("TRT_VERSION: expected the TensorRT version of this image, as 11.4.0")
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader", "--id=0"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise ArtefactError(f"expected a GPU in this container: {error}") from error
    return Machine(stated[0], answer.stdout.strip().replace(".", ""))


def _manifests(source: Path) -> tuple[dict[Path, dict[str, Any]], list[str]]:
    """Read all manifests of a folder of engines; what is wrong with one spoils no other."""
    manifests, broken = {}, []
    for path in sorted(source.glob(f"[!.]*/{MANIFEST}")):  # hidden: one that is being written
        try:
            manifests[path] = _read(path)
        except ArtefactError as error:
            broken.append(str(error))
    return manifests, broken


def _is_of(manifest: dict[str, Any], model: str, onnx_sha256: str) -> bool:
    return manifest["model"] == model and str(manifest["onnx_sha256"]).startswith(onnx_sha256)


def _fits(built: dict[str, str], machine: Machine) -> bool:
    """Compare versions as far as both say them: images state 11.4.0, builders 11.4.0.106."""
    versions = (built["tensorrt"].split("."), machine.tensorrt.split("."))
    common = min(map(len, versions))
    return built["capability"] == machine.capability and (
        versions[0][:common] == versions[1][:common]
    )


def _mismatch(model: str, onnx: str, source: Path, built: Sequence[Path], machine: Machine) -> str:
    there = ", ".join(path.parent.name for path in built) or "none"
    return (
        f"{source}: expected one engine of {model} from the ONNX file {onnx[:16]} for TensorRT "
        f"{machine.tensorrt} on compute capability {machine.capability}; built from that file: "
        f"{there}. Run the engine job on this GPU type first"
    )


def _read(manifest: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(manifest.read_text())
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{manifest}: expected the manifest of an engine: {error}") from error
    if not isinstance(content, dict):
        raise ArtefactError(f"{manifest}: expected the manifest of an engine, an object")
    missing = {"model", "onnx_sha256", "plan_sha256", "machine"} - content.keys()
    missing |= {f"machine.{key}" for key in _MACHINE - set(content.get("machine", _MACHINE))}
    if missing:
        raise ArtefactError(f"{manifest}: expected the fields {', '.join(sorted(missing))}")
    return content


def _open(source: str) -> IO[bytes]:
    if source.startswith(("http://", "https://")):
        reply: IO[bytes] = urllib.request.urlopen(source, timeout=_STALL_S)
        return reply
    return Path(source).open("rb")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Copy and verify a model's weights or engine.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    weights = kinds.add_parser("weights")
    weights.add_argument("name", metavar="NAME")
    weights.add_argument("--registry", type=Path, default=REGISTRY, metavar="FILE")
    engine = kinds.add_parser("engine")
    engine.add_argument("model", metavar="MODEL")
    engine.add_argument("--onnx", required=True, metavar="SHA256")
    for kind in (weights, engine):
        kind.add_argument("--source", required=True, metavar="DIR")
        kind.add_argument("--output", type=Path, required=True, metavar="DIR")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Fetch what the command line names; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.kind == "weights":
            source = options.source.rstrip("/")
            files = fetch_weights(options.name, source, options.output, options.registry)
        else:
            engines, machine = Path(options.source), this_machine()
            files = fetch_engine(options.model, options.onnx, engines, options.output, machine)
    except ArtefactError as error:
        sys.stderr.write(f"fetch_artefact: {error}\n")
        return 1
    sys.stdout.writelines(f"verified {path}\n" for path in files)
    return 0


if __name__ == "__main__":
    sys.exit(main())
