"""The registry of weights: what exists, under which licence, and what each file must hash to.

`registry.json` is the one manifest. Published checkpoints are kept in a store outside the
repository, `STORE/<name>/<file>`; our demo weights lie in the model repository itself. A mirror has
the layout of a store, so a copy of a store is one.
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.checksum import sha256_of
from training.errors import InputError

MANIFEST = Path(__file__).with_name("registry.json")
MODEL_REPOSITORY = Path(__file__).resolve().parents[2] / "model_repository"
STORE_VARIABLE = "TOUCHLINE_WEIGHTS"

State = Literal["missing", "incomplete", "present", "verified", "changed"]
"""`present`: every file has its size; `verified` and `changed`: its bytes were looked at, too."""

PARTIAL = ".partial"
"""Ending of the folder in which an entry's files are gathered."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class File(_Strict):
    """One file of an entry.

    Attributes:
        path: Relative to the entry's folder, `/` between parts.
        size: In bytes.
        sha256: Of its bytes, in hex.
    """

    path: str
    size: int = Field(gt=0)
    sha256: Sha256

    @model_validator(mode="after")
    def _stays_inside(self) -> Self:
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"path: expected one inside the entry's folder, got {self.path!r}")
        return self


class Entry(_Strict):
    """One set of weights.

    Attributes:
        name: How the command line names it.
        models: Models of the repository that it is for.
        role: `serve`: a model loads it as it is; `start`: training starts from it.
        licence: SPDX identifier.
        publisher: Who made it.
        source: `repository` for ours, else `<library>:<its own name>`; the library knows the host.
        revision: Of the source; the files are pinned by their hashes in any case.
        card: Model card, relative to the model repository; ours only.
        files: All of them; every path is relative to `folder`.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    models: tuple[str, ...] = Field(min_length=1)
    role: Literal["serve", "start"]
    licence: str
    publisher: str
    source: str = Field(pattern=r"^(repository|(hub|rfdetr|torchvision):.+)$")
    revision: str
    card: str | None = None
    files: tuple[File, ...] = Field(min_length=1)

    @property
    def is_ours(self) -> bool:
        """Whether the files are part of this repository."""
        return self.source == "repository"

    def folder(self, store: Path, repository: Path = MODEL_REPOSITORY) -> Path:
        """Return where the files lie."""
        return repository if self.is_ours else store / self.name


class Registry(_Strict):
    """All entries, by unique name."""

    entries: tuple[Entry, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [entry.name for entry in self.entries]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"entries: expected unique names, repeated: {sorted(repeated)}")
        return self

    def find(self, names: list[str]) -> list[Entry]:
        """Return the named entries; all if none is named.

        Raises:
            InputError: A name is unknown; lists the known ones.
        """
        known = {entry.name: entry for entry in self.entries}
        for name in names:
            if name not in known:
                raise InputError(f"weights {name!r}: expected one of {', '.join(known)}")
        return [known[name] for name in names] if names else list(self.entries)


def read_registry(path: Path = MANIFEST) -> Registry:
    """Read the manifest.

    Raises:
        InputError: It is not as expected; names the file and each field.
    """
    try:
        return Registry.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path}: {error}") from error


def default_store() -> Path:
    """Return the folder of published checkpoints: `$TOUCHLINE_WEIGHTS`, or one in the cache."""
    chosen = os.environ.get(STORE_VARIABLE)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen).expanduser() if chosen else cache / "touchline" / "weights"


def state(entry: Entry, folder: Path, *, hashing: bool) -> State:
    """Say how the files of an entry are.

    Args:
        entry: The entry.
        folder: Where its files lie.
        hashing: Whether to read the files; without it only their sizes are looked at.
    """
    found = [folder / file.path for file in entry.files]
    if not any(path.is_file() for path in found):
        begun = folder.with_name(folder.name + PARTIAL).exists()
        return "incomplete" if begun else "missing"
    if not all(path.is_file() for path in found):
        return "incomplete"
    if any(differences(entry, folder, hashing=hashing)):
        return "changed"
    return "verified" if hashing else "present"


def differences(entry: Entry, folder: Path, *, hashing: bool = True) -> Iterator[str]:
    """Yield a line for every file that is missing or not the registered one."""
    for file in entry.files:
        path = folder / file.path
        if not path.is_file():
            yield f"{path}: missing"
        elif difference := file_difference(file, path, hashing=hashing):
            yield difference


def file_difference(file: File, path: Path, *, hashing: bool = True) -> str | None:
    """Say in what an existing file differs from the registered one; None if in nothing."""
    size = path.stat().st_size
    if size == file.size and not (hashing and sha256_of(path) != file.sha256):
        return None
    return (
        f"{path}: expected {file.size} bytes with sha256 {file.sha256}, "
        f"found {size} bytes with sha256 {sha256_of(path)}"
    )


def record(registry: Registry, names: list[str], repository: Path = MODEL_REPOSITORY) -> Registry:
    """Return the registry with the sizes and hashes that our own files have now.

    Raises:
        InputError: A named entry is not ours: what others publish is not for us to rewrite.
        FileNotFoundError: A file is missing.
    """
    chosen = registry.find(names)
    for entry in chosen:
        if names and not entry.is_ours:
            raise InputError(
                f"weights {entry.name!r}: only weights of this repository are recorded"
            )
    renewed = [
        _renewed(entry, repository) if entry.is_ours and entry in chosen else entry
        for entry in registry.entries
    ]
    return Registry(entries=tuple(renewed))


def _renewed(entry: Entry, repository: Path) -> Entry:
    def renewed(file: File) -> File:
        path = repository / file.path
        return File(path=file.path, size=path.stat().st_size, sha256=sha256_of(path))

    return entry.model_copy(update={"files": tuple(renewed(file) for file in entry.files)})
