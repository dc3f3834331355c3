"""The real tritonserver inside the `nvidia-pytriton` wheel: where it is and what it needs.

Only files of the wheel are used; its Python package is never imported.
Source: nvidia-pytriton 0.7.0 carries tritonserver 2.51.0 (container 24.10) with the Python backend.
"""

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from orchestrator.errors import ClusterError

DISTRIBUTION = "nvidia-pytriton"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

_DEBIAN_PACKAGES = {
    f"libpython{PYTHON}.so.1.0": f"libpython{PYTHON}",
    "libexpat.so.1": "libexpat1",
    "libgcc_s.so.1": "libgcc-s1",
    "libstdc++.so.6": "libstdc++6",
    "libz.so.1": "zlib1g",
}


@dataclass(frozen=True, slots=True)
class TritonWheel:
    """The parts of an installed wheel.

    Attributes:
        root: The wheel's `pytriton/tritonserver` directory.
        libraries: The shared libraries that the wheel brings along.
    """

    root: Path
    libraries: Path

    @property
    def server(self) -> Path:
        """The tritonserver executable."""
        return self.root / "bin" / "tritonserver"

    @property
    def stub(self) -> Path:
        """The executable that runs one Python model instance under this Python version."""
        return self.root / "python_backend_stubs" / PYTHON / "triton_python_backend_stub"

    @property
    def backend_files(self) -> tuple[Path, ...]:
        """All that a Python backend directory must hold."""
        backend = self.root / "backends" / "python"
        names = ("libtriton_python.so", "triton_python_backend_utils.py")
        return (*(backend / name for name in names), self.stub)

    def link_backend(self, directory: Path, packages: Sequence[Path] = ()) -> None:
        """Make `directory/python`, the Python backend without the stubs of other Pythons.

        Args:
            directory: Where to make it.
            packages: Python packages that all models of the server may import.
        """
        backend = directory / "python"
        backend.mkdir()
        for file in (*self.backend_files, *packages):
            (backend / file.name).symlink_to(file)

    def environment(self, threads: int) -> dict[str, str]:
        """Return the environment of a server whose models run in the current Python environment.

        Args:
            threads: Native threads (OpenMP, MKL, OpenBLAS) of each model process, 1 or more.
        """
        path = os.environ.get("PATH", os.defpath)
        # The stub ignores PYTHONHOME and PYTHONPATH: its Python is the first `python3` on PATH.
        changes = {"PATH": os.pathsep.join((str(Path(sys.prefix) / "bin"), path))}
        changes["LD_LIBRARY_PATH"] = os.pathsep.join(self._library_path())
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            changes[variable] = str(threads)
        return {**os.environ, **changes}

    def _library_path(self) -> list[str]:
        """Where the stub finds its libraries, before the system's own directories.

        The libpython of the running interpreter comes first, lest a system's libpython of another
        patch version runs this environment's extension modules.
        """
        inherited = os.environ.get("LD_LIBRARY_PATH")
        places = (
            self.libraries,
            sysconfig.get_config_var("LIBDIR"),
            Path(sys.base_prefix) / "lib",
            *([inherited] if inherited else []),
        )
        return [str(place) for place in places if place]


def installed_wheel() -> TritonWheel:
    """Return the installed wheel.

    Raises:
        ClusterError: The wheel is missing, or lacks a file for this Python version.
    """
    try:
        wheel = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise ClusterError(
            f"the package {DISTRIBUTION}, which holds tritonserver, is not installed in "
            f"{sys.prefix}: pip install 'touchline[serving]'"
        ) from error
    site_packages = Path(str(wheel.locate_file("")))
    found = TritonWheel(
        root=site_packages / "pytriton" / "tritonserver",
        libraries=site_packages / "nvidia_pytriton.libs",
    )
    for file in (found.server, *found.backend_files):
        if not file.is_file():
            raise ClusterError(f"{DISTRIBUTION} {wheel.version} lacks {file}: reinstall it")
    return found


def require_libraries(executable: Path, environment: dict[str, str]) -> None:
    """Check that the dynamic linker finds every library of an executable.

    Without this check a stub that cannot start makes the server wait forever, without a word.

    Raises:
        ClusterError: Names each missing library and the Debian package that has it.
    """
    missing = missing_libraries(executable, environment)
    if missing:
        remedies = "; ".join(f"{library} ({remedy(library)})" for library in missing)
        raise ClusterError(f"{executable.name} cannot start, as it lacks {remedies}")


def missing_libraries(executable: Path, environment: dict[str, str]) -> tuple[str, ...]:
    """Return what an executable needs and the dynamic linker does not find in an environment.

    Returns:
        Names of libraries and of library versions, such as `libz.so.1` and `GLIBC_2.35`.
    """
    listing = subprocess.run(
        ["ldd", str(executable)], env=environment, capture_output=True, text=True, check=False
    )
    libraries = re.findall(r"^\s*(\S+) => not found$", listing.stdout, re.MULTILINE)
    versions = re.findall(r"version `(\S+)' not found", listing.stdout + listing.stderr)
    return tuple(dict.fromkeys(libraries + versions))


def remedy(library: str) -> str:
    """Return the command, in plain words, that brings a missing library."""
    if library in _DEBIAN_PACKAGES:
        return f"apt-get install {_DEBIAN_PACKAGES[library]}"
    if library.startswith("GLIBC"):
        return "use Debian 12, Ubuntu 22.04 or a later system, with glibc 2.35 or newer"
    return f"pip install --force-reinstall {DISTRIBUTION}"
