"""Fetch published checkpoints: from a folder, an HTTP mirror, or where they are published.

Files are gathered in `STORE/<name>.partial/` and held against the registry there; the folder gets
its name only when all of it is right. A broken transfer leaves its part behind and goes on from it.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from training.errors import InputError
from training.weights.registry import PARTIAL, Entry, File, file_difference

MIRROR_VARIABLE = "TOUCHLINE_WEIGHTS_MIRROR"
STALL_S = 30.0
"""A server that sends nothing for so long is given up."""

_BLOCK = 1 << 16
_LOCK = ".lock"

Transfer = Callable[[File, Path], None]
"""Writes a file into a folder, where a first part of it may lie already."""


def pull(entry: Entry, store: Path, *, source: str | None = None, limit_s: float = 3600.0) -> Path:
    """Bring the files of an entry into the store, those that are not there and right already.

    Other files in the entry's folder stay.

    Args:
        entry: A published entry.
        store: The folder of published checkpoints.
        source: A folder or `http(s)://` address that holds `<name>/<file>`; without one
            `$TOUCHLINE_WEIGHTS_MIRROR`, without that the place where the checkpoint is published.
        limit_s: Longest time for all transfers over HTTP, but for those of a hub's own library.

    Returns:
        The folder with the files.

    Raises:
        InputError: The entry is ours, another pull of it is under way, a file could not be fetched,
            or it is not the registered one.
    """
    if entry.is_ours:
        raise InputError(f"weights {entry.name!r}: part of the repository; restore them with git")
    folder = entry.folder(store)
    wanted = [file for file in entry.files if not _is_right(file, folder)]
    if not wanted:
        return folder
    partial = folder.with_name(entry.name + PARTIAL)
    transfer = _transfer(entry, source or os.environ.get(MIRROR_VARIABLE), limit_s)
    with _alone_in(partial):
        for file in wanted:
            _fetch(file, partial, transfer)
        _place(wanted, partial, folder)
    return folder


@contextmanager
def _alone_in(partial: Path) -> Iterator[None]:
    """Keep other pulls out of a folder; a process that ends lets go of it by itself."""
    partial.mkdir(parents=True, exist_ok=True)
    with (partial / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{partial}: another pull is under way there") from error
        yield


def _place(files: Sequence[File], partial: Path, folder: Path) -> None:
    """Put fetched files where they belong: a new folder at once, else only these files."""
    (partial / _LOCK).unlink()
    if not folder.exists():
        partial.rename(folder)
        return
    for file in files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        (partial / file.path).replace(path)
    shutil.rmtree(partial)


def _is_right(file: File, folder: Path) -> bool:
    path = folder / file.path
    return path.is_file() and file_difference(file, path) is None


def _fetch(file: File, folder: Path, transfer: Transfer) -> None:
    """Transfer one file and check it; what is too long or wrong is not kept."""
    path = folder / file.path
    if _is_right(file, folder):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size >= file.size:
        path.unlink()
    transfer(file, folder)
    difference = file_difference(file, path)
    if difference is None:
        return
    if path.stat().st_size >= file.size:
        path.unlink()
    raise InputError(f"{difference}; refused")


def _transfer(entry: Entry, source: str | None, limit_s: float) -> Transfer:
    deadline = time.monotonic() + limit_s
    if source is None:
        return _from_publisher(entry, deadline)
    if source.startswith(("http://", "https://")):
        base = f"{source.rstrip('/')}/{entry.name}"
        return lambda file, folder: _over_http(f"{base}/{file.path}", file, folder, deadline)
    if "://" in source:
        raise InputError(f"{source}: expected a folder, or an address with http:// or https://")
    return lambda file, folder: _from_folder(Path(source).expanduser() / entry.name, file, folder)


def _from_folder(origin: Path, file: File, folder: Path) -> None:
    if not (origin / file.path).is_file():
        raise InputError(f"{origin / file.path}: expected the file, which is missing")
    shutil.copyfile(origin / file.path, folder / file.path)


def _over_http(url: str, file: File, folder: Path, deadline: float) -> None:
    """Read a file over HTTP, at most a block beyond its size."""
    import requests
    from urllib3.exceptions import HTTPError

    path = folder / file.path
    have = path.stat().st_size if path.is_file() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=STALL_S) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                path.unlink(missing_ok=True)  # or it would be asked for what follows for ever
                raise InputError(
                    f"{url}: expected {file.size} bytes, the server has only {have}; refused"
                )
            response.raise_for_status()
            goes_on = response.status_code == requests.codes.partial_content
            with path.open("ab" if goes_on else "wb") as out:
                # `read1` gives what is there: a block that trickles in must not outlast the limit.
                while block := response.raw.read1(_BLOCK, decode_content=True):
                    out.write(block)
                    _check_limits(url, file, out.tell(), deadline)
    except (requests.RequestException, HTTPError) as error:
        raise InputError(f"{url}: could not be fetched: {error}; run again to go on") from error


def _check_limits(url: str, file: File, size: int, deadline: float) -> None:
    if size > file.size:
        raise InputError(f"{url}: expected {file.size} bytes, the server sends more; refused")
    if time.monotonic() > deadline:
        raise InputError(f"{url}: the time is up after {size} bytes; run again to go on")


def _from_publisher(entry: Entry, deadline: float) -> Transfer:
    """Return the transfer from where the library that knows the checkpoint says it is."""
    kind, _, name = entry.source.partition(":")

    def transfer(file: File, folder: Path) -> None:
        try:
            if kind == "hub":
                _from_hub(name, entry.revision, file, folder)
            else:
                address = {"rfdetr": _rfdetr_address, "torchvision": _torchvision_address}[kind]
                _over_http(address(name), file, folder, deadline)
        except Exception as error:
            raise InputError(
                f"{entry.source}: {file.path} could not be fetched: {error}; without access to "
                f"where it is published use --from or ${MIRROR_VARIABLE}"
            ) from error

    return transfer


def _from_hub(name: str, revision: str, file: File, folder: Path) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(name, file.path, revision=revision, local_dir=folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _rfdetr_address(name: str) -> str:
    from rfdetr.assets.model_weights import ModelWeights

    address = ModelWeights.get_url(name)
    if address is None:
        raise InputError(f"rfdetr: expected a checkpoint named {name}")
    return str(address)


def _torchvision_address(name: str) -> str:
    from torchvision.models import get_weight

    return str(get_weight(name).url)
