"""API keys: shown once when they are made, kept as hashes only.

A key is `touchline_<id>_<secret>`. The id finds its line in the file; the secret holds 256 random
bits, which a plain SHA-256 protects as well as a slow hash would.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from orchestrator.errors import InvalidRequestError, SettingError
from orchestrator.security.files import read
from orchestrator.security.tenants import TenantName

SETTING = "security.api_keys_file"
PREFIX = "touchline_"

_NO_DIGEST = "0" * 64
_LOCK_S, _RETRY_S = 10.0, 0.02
"""A change takes milliseconds: whoever still waits after the first is told so."""


class StoredKey(BaseModel):
    """One line of the file, which holds a JSON array of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    """Public part of the key; fit for logs."""
    tenant: TenantName
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    """Hash of the whole key, hexadecimal."""
    created: datetime
    """When it was made."""


_FILE = TypeAdapter(list[StoredKey])


class ApiKeys:
    """The keys that are valid at one time."""

    def __init__(self, stored: list[StoredKey]) -> None:
        self._by_id = {key.id: key for key in stored}

    def find(self, key: str) -> StoredKey | None:
        """Return the stored form of a key; None if it is no valid one.

        Takes as long for a wrong secret as for an unknown id.
        """
        stored = self._by_id.get(key.removeprefix(PREFIX).partition("_")[0])
        expected = _NO_DIGEST if stored is None else stored.sha256
        is_right = hmac.compare_digest(_digest(key), expected)
        return stored if is_right else None

    def has(self, key_id: str) -> bool:
        """Whether a key is still there."""
        return key_id in self._by_id


def parse_keys(contents: Mapping[str, bytes]) -> ApiKeys:
    """Read the file's contents.

    Raises:
        SettingError: It breaks its form; quotes none of its contents.
    """
    return ApiKeys(_stored(contents[SETTING]))


def add_key(path: Path, tenant: str) -> str:
    """Make a key, add its hash to the file, and return the key: the only time it is seen.

    Raises:
        InvalidRequestError: The tenant's name has characters that it may not have.
        SettingError: The file cannot be read or written, breaks its form, or another process is
            changing it for more than 10 s.
    """
    key_id = secrets.token_hex(6)
    key = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    try:
        stored = StoredKey(
            id=key_id,
            tenant=tenant,
            sha256=_digest(key),
            created=datetime.now(UTC).replace(microsecond=0),
        )
    except ValidationError as error:
        expected = "expected 1 to 63 of a-z, 0-9, '_', '.', '-', the first a letter or digit"
        raise InvalidRequestError("tenant", expected) from error
    with _locked(path):
        _write(path, [*(list_keys(path) if path.exists() else []), stored])
    return key


def list_keys(path: Path) -> list[StoredKey]:
    """Return the keys in a file.

    Raises:
        SettingError: The file cannot be read, or breaks its form.
    """
    return _stored(read(SETTING, path))


def revoke_key(path: Path, key_id: str) -> None:
    """Take a key out of the file.

    Raises:
        InvalidRequestError: There is no such key.
        SettingError: The file cannot be read or written, breaks its form, or another process is
            changing it for more than 10 s.
    """
    with _locked(path):
        keys = list_keys(path)
        kept = [key for key in keys if key.id != key_id]
        if len(kept) == len(keys):
            # Without what was given: it may be a whole key.
            raise InvalidRequestError("id", f"expected the id of a key in {path}")
        _write(path, kept)


def _stored(contents: bytes) -> list[StoredKey]:
    try:
        return _FILE.validate_json(contents)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise SettingError(SETTING, f"{place or 'file'}: {first['msg']}") from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes of this host from changing the file meanwhile.

    Its folder is locked: the file itself is another one after each change.
    """
    path = path.resolve()
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        _lock(folder, path.parent)
        yield
    finally:
        os.close(folder)  # which unlocks it


def _lock(descriptor: int, folder: Path) -> None:
    deadline = time.monotonic() + _LOCK_S
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        if time.monotonic() > deadline:
            raise SettingError(SETTING, f"another process has locked {folder} for {_LOCK_S:g} s")
        time.sleep(_RETRY_S)


def _write(path: Path, keys: list[StoredKey]) -> None:
    """Replace the file at once: nobody reads half of it, and whoever could read it still can."""
    path = path.resolve()
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            draft = Path(folder) / path.name
            draft.write_bytes(_FILE.dump_json(keys, indent=2) + b"\n")
            _give_rights(draft, path)
            draft.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> SettingError:
    return SettingError(SETTING, f"cannot write {path}: {error.strerror}")


def _give_rights(draft: Path, path: Path) -> None:
    """Give a file the owner and the mode of the one that it replaces; if there is none, just us."""
    if not path.exists():
        draft.chmod(0o600)
        return
    status = path.stat()
    os.chown(draft, status.st_uid, status.st_gid)
    draft.chmod(stat.S_IMODE(status.st_mode))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
