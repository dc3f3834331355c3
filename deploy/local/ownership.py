"""Names that say which process owns a run's files, so that nothing outlives its owner for long.

Each run has one name, `touchline-<pid of the owner>-<random>`. Its directory under the system's
temporary directory and its shared memory regions in `/dev/shm` begin with that name. A run removes
them when it ends; what a killed owner left behind is removed by the next run's `sweep`.
"""

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
_NAME = re.compile(r"touchline-(?P<pid>\d+)-[0-9a-f]{8}")


def owned_name() -> str:
    """Return a new name that carries this process's id."""
    return f"touchline-{os.getpid()}-{secrets.token_hex(4)}"


def directory(name: str) -> Path:
    """Return where a run keeps its files; the owner makes it, readable by this user only."""
    return Path(tempfile.gettempdir()) / name


def remove(name: str) -> None:
    """Remove the directory and all shared memory regions of a run; missing ones are no error."""
    for path in _files_of_runs():
        if path.name.startswith(name):
            _delete(path)


def sweep() -> None:
    """Remove what runs of this machine left behind whose owner no longer lives."""
    for path in _files_of_runs():
        owner = _NAME.match(path.name)
        if owner is not None and not _is_alive(int(owner["pid"])):
            _delete(path)


def _files_of_runs() -> Iterator[Path]:
    yield from Path(tempfile.gettempdir()).glob("touchline-*")
    yield from SHARED_MEMORY.glob("touchline-*")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives and belongs to another user
        return True
    return True


def _delete(path: Path) -> None:
    """Delete a file or a tree; another user's stays, and a concurrent deletion is no error."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with suppress(PermissionError):
        path.unlink(missing_ok=True)
