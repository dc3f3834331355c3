"""Whether this machine can run the local cluster, and in plain words what to do where it cannot."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import av

from deploy.local import triton_wheel
from deploy.local.ownership import SHARED_MEMORY
from deploy.local.repository import DEFAULT_REPOSITORY, config_file, model_names, read_config
from orchestrator.errors import ClusterError

MIN_GLIBC = (2, 35)
MIN_CORES = 2
MIN_FREE_MEMORY = 4 << 30
"""Five model processes with their frameworks and demo weights, and the server, in bytes."""
MIN_SHARED_MEMORY = 512 << 20
"""Regions of five model instances and of the orchestrator for 1080p frames, in bytes."""

MODEL_IMPORTS = ("torch", "torchvision", "onnxruntime", "transformers", "sam2.build_sam")
"""What the model processes of the `cpu` variant import."""

_REINSTALL = "pip install 'touchline[serving]'"
_SAM2 = "SAM2_BUILD_CUDA=0 pip install --no-build-isolation sam2==1.1.0 (after torch)"
_IMPORT_EACH = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        print(name, "ok", sep="\\t", flush=True)
    except Exception as error:
        print(name, repr(error), sep="\\t", flush=True)
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at, such as `glibc`.
        ok: Whether the local cluster can run with it.
        detail: What was found.
        remedy: What to do about it; empty if `ok`.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def checks(repository: Path = DEFAULT_REPOSITORY, variant: str = "cpu") -> list[Check]:
    """Look at this machine, this Python environment and the weights; takes seconds, no network.

    Args:
        repository: The Triton model repository to serve.
        variant: The variant whose configs and weights are looked at.
    """
    return [
        check_python(),
        check_glibc(),
        check_package("numpy", (1, 26), (2,)),
        check_package("protobuf", (6, 33, 5), (7,)),
        *check_tritonserver(),
        *check_imports(MODEL_IMPORTS),
        check_codecs(),
        check_shared_memory(),
        check_memory(),
        check_cores(),
        *check_weights(repository, variant),
    ]


def check_python() -> Check:
    """Check the interpreter: the model processes embed Python 3.11."""
    found = ".".join(map(str, sys.version_info[:3]))
    return _check(
        "Python", sys.version_info[:2] == (3, 11), found, "make the environment with Python 3.11"
    )


def check_glibc() -> Check:
    """Check the C library that tritonserver was linked against."""
    found = os.confstr("CS_GNU_LIBC_VERSION") or "no glibc"
    ok = found.startswith("glibc") and _release(found) >= MIN_GLIBC
    return _check("glibc", ok, found, "use Debian 12, Ubuntu 22.04 or a later system")


def check_package(name: str, minimum: tuple[int, ...], below: tuple[int, ...]) -> Check:
    """Check that a package's release is at least `minimum` and lower than `below`."""
    wanted = f">={'.'.join(map(str, minimum))},<{'.'.join(map(str, below))}"
    remedy = f"pip install '{name}{wanted}'"
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, ok=False, detail="not installed", remedy=remedy)
    return _check(name, minimum <= _release(found) < below, found, remedy)


def check_tritonserver() -> Iterator[Check]:
    """Check the tritonserver executable and the stub that runs Python models, with libraries."""
    try:
        wheel = triton_wheel.installed_wheel()
    except ClusterError as error:
        yield Check("tritonserver", ok=False, detail=str(error), remedy=_REINSTALL)
        return
    environment = wheel.environment(threads=1)
    for name, executable in (("tritonserver", wheel.server), ("Python stub", wheel.stub)):
        missing = triton_wheel.missing_libraries(executable, environment)
        detail = f"{executable} " + (f"lacks {', '.join(missing)}" if missing else "has all")
        remedies = dict.fromkeys(map(triton_wheel.remedy, missing))
        yield _check(name, not missing, detail, "; ".join(remedies))


def check_imports(modules: tuple[str, ...]) -> Iterator[Check]:
    """Import modules in a fresh interpreter, as a model process would, one check for each."""
    run = subprocess.run(
        [sys.executable, "-I", "-c", _IMPORT_EACH, *modules],
        capture_output=True,
        text=True,
        check=False,
    )
    outcomes = dict(line.split("\t", 1) for line in run.stdout.splitlines() if "\t" in line)
    for module in modules:
        outcome = outcomes.get(module, f"the interpreter ended with exit code {run.returncode}")
        remedy = _SAM2 if module.startswith("sam2") else _REINSTALL
        yield _check(f"import {module}", outcome == "ok", outcome, remedy)


def check_codecs() -> Check:
    """Check the video codecs of PyAV, which brings its own ffmpeg libraries."""
    wanted: tuple[tuple[str, Literal["r", "w"]], ...]
    wanted = (("h264", "r"), ("hevc", "r"), ("libx264", "w"))
    missing = [name for name, mode in wanted if not _has_codec(name, mode)]
    detail = f"PyAV {av.__version__} " + (f"lacks {', '.join(missing)}" if missing else "has all")
    return _check("video codecs", not missing, detail, "pip install --force-reinstall av")


def check_shared_memory() -> Check:
    """Check the free space of /dev/shm, which carries tensors to the model processes."""
    if not SHARED_MEMORY.is_dir():
        return Check("/dev/shm", ok=False, detail="missing", remedy="mount a tmpfs at /dev/shm")
    usage = shutil.disk_usage(SHARED_MEMORY)
    return _check(
        "/dev/shm",
        usage.free >= MIN_SHARED_MEMORY,
        f"{_mebibytes(usage.free)} free of {_mebibytes(usage.total)}",
        f"free {_mebibytes(MIN_SHARED_MEMORY)}; in Docker, run with --shm-size=1g",
    )


def check_memory() -> Check:
    """Check the memory that can be had without swapping."""
    meminfo = Path("/proc/meminfo").read_text()
    available = int(re.findall(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)[0]) << 10
    return _check(
        "memory",
        available >= MIN_FREE_MEMORY,
        f"{_mebibytes(available)} available",
        f"close other programs: {_mebibytes(MIN_FREE_MEMORY)} are needed",
    )


def check_cores() -> Check:
    """Check the processor cores that this process may use."""
    cores = len(os.sched_getaffinity(0))
    return _check(
        "cores", cores >= MIN_CORES, str(cores), f"give the machine {MIN_CORES} cores or more"
    )


def check_weights(repository: Path, variant: str) -> Iterator[Check]:
    """Check that each model's config is valid and that the weights it names are there."""
    try:
        models = model_names(repository)
    except ClusterError as error:
        yield Check("models", ok=False, detail=str(error), remedy="run from a full checkout")
        return
    for model in models:
        yield _check_weights_of(repository, model, variant)


def _check_weights_of(repository: Path, model: str, variant: str) -> Check:
    name = f"weights of {model}"
    try:
        config = read_config(config_file(repository, model, variant))
    except ClusterError as error:
        return Check(name, ok=False, detail=str(error), remedy="restore the model's config")
    weights = config.parameters["weights"].string_value
    if weights in {"", "random"}:
        return Check(name, ok=True, detail=f"{weights or 'none'} by its config")
    path = repository / model / weights
    remedy = f"see {repository / 'README.md'} for where the weights come from"
    return _check(name, path.exists(), f"{path}{'' if path.exists() else ' is missing'}", remedy)


def _check(name: str, ok: bool, detail: str, remedy: str) -> Check:
    return Check(name, ok, detail, "" if ok else remedy)


def _has_codec(name: str, mode: Literal["r", "w"]) -> bool:
    try:
        av.codec.Codec(name, mode)
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _mebibytes(size: int) -> str:
    return f"{size >> 20} MiB"
