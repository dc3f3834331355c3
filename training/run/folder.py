"""What lies in a work folder: `run/` with one run's state, and prepared data beside it."""

import fcntl
import glob
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from training.errors import InputError
from training.run.config import EXECUTION_KEYS
from training.whole_file import write_whole

RUN = "run"
"""Folder of checkpoints and logs inside the work folder; without it, training begins anew."""

_CONFIG = "config.json"


@contextmanager
def sole_use(work: Path) -> Iterator[None]:
    """Keep a second training out of a work folder: each would write over the other's state.

    Raises:
        InputError: Another process trains there.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{work}: expected no other training to run in here") from error
        yield


def open_run(config: BaseModel, work: Path) -> Path:
    """Return the folder of this config's run, new or to be gone on with.

    A run that has left nothing yet, as one whose network could not be built, may be corrected.

    Raises:
        InputError: The folder holds a run of another config; names the first key that differs.
    """
    run = work / RUN
    run.mkdir(parents=True, exist_ok=True)
    record, wanted = run / _CONFIG, config.model_dump(mode="json")
    if record.exists() and _has_begun(run):
        key = _difference(json.loads(record.read_text()), wanted)
        if key is not None:
            raise InputError(
                f"{record}: expected the same config as this run's, but {key} differs; "
                "use another --work, or --restart to begin anew"
            )
    else:
        write_whole(record, json.dumps(wanted, indent=1).encode())
    return run


def _has_begun(run: Path) -> bool:
    return any(path.is_file() and path.name != _CONFIG for path in run.rglob("*"))


def _difference(old: Any, new: Any, key: str = "") -> str | None:
    """Return the dotted name of the first key whose values differ, leaving out `EXECUTION_KEYS`."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return None if old == new else key
    for name in [*new, *(name for name in old if name not in new)]:
        if name in EXECUTION_KEYS:
            continue
        found = _difference(old.get(name), new.get(name), f"{key}.{name}" if key else str(name))
        if found is not None:
            return found
    return None


def data_folder(work: Path, name: str, footage: Path, clips: Sequence[str], *settings: str) -> Path:
    """Return where data that is prepared from these clips lies.

    Other clips, other settings, or files of the clips that were changed since: another folder.
    """
    files = (file for clip in clips for file in _files_of(footage / clip))
    source = json.dumps([str(footage.resolve()), *clips, *settings, *map(stamp, files)])
    return work / f"{name}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def stamp(file: Path) -> str:
    """Return what changes with a file's contents, without reading them."""
    status = file.stat()
    return f"{file.name} {status.st_size} {status.st_mtime_ns}"


def _files_of(clip: Path) -> list[Path]:
    return sorted(clip.parent.glob(f"{glob.escape(clip.name)}.*"))
