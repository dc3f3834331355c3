"""Engines on disk: one folder each, named by what it was made from and what it is tied to."""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from training.checksum import sha256_of
from training.engine.toolchain import Machine
from training.errors import InputError

PLAN = "model.plan"
MANIFEST = "manifest.json"


class Manifest(BaseModel):
    """Where an engine comes from, `manifest.json` beside it.

    Attributes:
        model: Name of the model in the repository.
        onnx_sha256: Of the fp32 file that it was built from.
        plan_sha256: Of `model.plan`.
        profile: Batch sizes `min`, `opt` and `max`.
        options: Everything else that the builder was asked for.
        build_s: Seconds of compiling.
        figures: How it answers against the fp32 graph.
        thresholds: What the figures were held against.
        compared_inputs: On how many inputs.
        built_at: UTC, ISO 8601.
        touchline: Version of this tool.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    onnx_sha256: str
    plan_sha256: str
    machine: Machine
    precision: str
    profile: dict[str, int]
    options: dict[str, Any]
    build_s: float
    figures: dict[str, float]
    thresholds: dict[str, float]
    compared_inputs: int
    built_at: str
    touchline: str

    @property
    def folder_name(self) -> str:
        """Name of the engine's folder."""
        return folder_name(self.onnx_sha256, self.machine)

    def differences(self, asked: "Manifest") -> list[str]:
        """Say in what this engine is another than the one asked for; empty if in nothing."""
        names = ("model", "onnx_sha256", "machine", "precision", "profile", "options")
        ours, theirs = self.model_dump(), asked.model_dump()
        return [
            f"{name} {ours[name]}, not {theirs[name]}"
            for name in names
            if ours[name] != theirs[name]
        ]


def folder_name(onnx_sha256: str, machine: Machine) -> str:
    """Return the name of the folder of the engine of a graph on a kind of machine."""
    return f"{onnx_sha256[:16]}-trt{machine.tensorrt}-sm{machine.capability}"


def publish(plan: bytes, manifest: Manifest, root: Path) -> Path:
    """Write an engine and its manifest; the folder appears complete or not at all.

    Raises:
        InputError: The folder is there already.
    """
    root.mkdir(parents=True, exist_ok=True)
    target = root / manifest.folder_name
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=root))
    try:
        (partial / PLAN).write_bytes(plan)
        (partial / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
        partial.chmod(0o755)  # mkdtemp's is for the owner alone
        os.rename(partial, target)  # noqa: PTH104  fails on a folder with content, as it must
    except OSError as error:
        raise InputError(f"{target}: expected a free place for the engine: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # is gone if it became the target
    return target


def read_manifest(folder: Path) -> Manifest:
    """Read an engine's manifest.

    Raises:
        InputError: It is missing or not as expected; names file and field.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{path}: expected the manifest of an engine")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: field {field or '-'}: {first['msg']}") from error


def verify(folder: Path, machine: Machine | None) -> Manifest:
    """Check that an engine is whole, in its place, and made for a machine.

    Args:
        folder: The engine's folder.
        machine: Where it is to run; None checks the files alone.

    Raises:
        InputError: It is not; says what was expected.
    """
    manifest = read_manifest(folder)
    plan = folder / PLAN
    found = sha256_of(plan) if plan.is_file() else "no file"
    if found != manifest.plan_sha256:
        raise InputError(f"{plan}: expected sha256 {manifest.plan_sha256}, found {found}")
    if folder.resolve().name != manifest.folder_name:
        raise InputError(f"{folder}: expected the name {manifest.folder_name}, as in its manifest")
    if machine is not None:
        _check_machine(manifest.machine, machine, folder)
    return manifest


def plan_sha256(plan: bytes) -> str:
    """Return the sha256 of a plan in hex."""
    return hashlib.sha256(plan).hexdigest()


def _check_machine(built: Machine, here: Machine, folder: Path) -> None:
    for name in ("tensorrt", "capability"):
        expected, found = getattr(built, name), getattr(here, name)
        if expected != found:
            raise InputError(f"{folder}: was built for {name} {expected}, this machine has {found}")
