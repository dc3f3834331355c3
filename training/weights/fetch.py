"""Fetch published checkpoints: from a folder, from an HTTP mirror, or by their own library.

Files are gathered in `STORE/<name>.partial/` and held against the registry there; the folder gets
its name only when all of it is right. A broken transfer leaves its part behind and goes on from it.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from training.errors import InputError
from training.weights.registry import PARTIAL, Entry, File, file_difference, state

MIRROR_VARIABLE = "TOUCHLINE_WEIGHTS_MIRROR"
STALL_S = 30.0
"""A server that sends nothing for so long is given up."""

_BLOCK = 1 << 16

Transfer = Callable[[File, Path], None]
"""Writes a file into a folder, where a first part of it may lie already."""


def pull(entry: Entry, store: Path, *, source: str | None = None, limit_s: float = 3600.0) -> Path:
    """Bring the files of an entry into the store; does nothing if they are there and right.

    Args:
        entry: A published entry.
        store: The folder of published checkpoints.
        source: A folder or `http(s)://` address that holds `<name>/<file>`; without one
            `$TOUCHLINE_WEIGHTS_MIRROR`, without that the library that publishes the checkpoint.
        limit_s: Longest time for the transfer from a mirror.

    Returns:
        The folder with the files.

    Raises:
        InputError: The entry is ours, a file could not be fetched, or it is not the registered one.
    """
    if entry.is_ours:
        raise InputError(f"weights {entry.name!r}: part of the repository; restore them with git")
    folder = entry.folder(store)
    if state(entry, folder, hashing=True) == "verified":
        return folder
    partial = folder.with_name(entry.name + PARTIAL)
    transfer = _transfer(entry, source or os.environ.get(MIRROR_VARIABLE), limit_s)
    for file in entry.files:
        _fetch(file, partial, transfer)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    return folder


def _fetch(file: File, folder: Path, transfer: Transfer) -> None:
    """Transfer one file and check it; what is too long or wrong is not kept."""
    path = folder / file.path
    if path.is_file() and file_difference(file, path) is None:
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
    if source is None:
        return _from_library(entry)
    if source.startswith(("http://", "https://")):
        base, deadline = f"{source.rstrip('/')}/{entry.name}", time.monotonic() + limit_s
        return lambda file, folder: _from_mirror(f"{base}/{file.path}", file, folder, deadline)
    return lambda file, folder: _from_folder(Path(source).expanduser() / entry.name, file, folder)


def _from_folder(origin: Path, file: File, folder: Path) -> None:
    if not (origin / file.path).is_file():
        raise InputError(f"{origin / file.path}: expected the file, which is missing")
    shutil.copyfile(origin / file.path, folder / file.path)


def _from_mirror(url: str, file: File, folder: Path, deadline: float) -> None:
    """Read a file over HTTP, at most a block beyond its size."""
    import requests

    path = folder / file.path
    have = path.stat().st_size if path.is_file() else 0
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=STALL_S) as response:
            response.raise_for_status()
            goes_on = response.status_code == requests.codes.partial_content
            with path.open("ab" if goes_on else "wb") as out:
                for block in response.iter_content(_BLOCK):
                    out.write(block)
                    _check_limits(url, file, out.tell(), deadline)
    except requests.RequestException as error:
        raise InputError(f"{url}: could not be fetched: {error}; run again to go on") from error


def _check_limits(url: str, file: File, size: int, deadline: float) -> None:
    if size > file.size:
        raise InputError(f"{url}: expected {file.size} bytes, the server sends more; refused")
    if time.monotonic() > deadline:
        raise InputError(f"{url}: the time is up after {size} bytes; run again to go on")


def _from_library(entry: Entry) -> Transfer:
    """Return the transfer by the library that knows where the checkpoint is published."""
    kind, _, name = entry.source.partition(":")
    download = {"hub": _from_hub, "rfdetr": _from_rfdetr, "torchvision": _from_torchvision}[kind]

    def transfer(file: File, folder: Path) -> None:
        try:
            download(name, entry.revision, file, folder)
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


def _from_rfdetr(name: str, _revision: str, file: File, folder: Path) -> None:
    from rfdetr.assets.model_weights import ModelWeights
    from torch.hub import download_url_to_file

    url = ModelWeights.get_url(name)
    if url is None:
        raise InputError(f"rfdetr: expected a checkpoint named {name}")
    download_url_to_file(url, str(folder / file.path), hash_prefix=file.sha256)


def _from_torchvision(name: str, _revision: str, file: File, folder: Path) -> None:
    from torch.hub import download_url_to_file
    from torchvision.models import get_weight

    download_url_to_file(get_weight(name).url, str(folder / file.path), hash_prefix=file.sha256)
