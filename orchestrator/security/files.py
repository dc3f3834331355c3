"""Files that are read again when they change: certificates, keys and tenants."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from orchestrator.errors import SettingError

_T = TypeVar("_T")
_Signature = tuple[tuple[int, int, int] | None, ...]
_SETTLE_S = 0.1
"""After that long a file that was changed is taken to be whole."""

log = logging.getLogger(__name__)


class WatchedFiles(Generic[_T]):
    """What was read from one or several files that belong together.

    Looks at the files no more often than every `reload_s`, and only when it is asked. Files that
    have become unusable leave the last good value in place, with one warning per change, and are
    tried again at each look: what stood in the way may be gone though they have not changed.

    Args:
        paths: The files by the setting that names them.
        parse: Makes the value of the contents, by setting; raises SettingError.
        reload_s: Least time between two looks at the files, in seconds.

    Raises:
        SettingError: A file cannot be read or used now; names its setting.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        parse: Callable[[Mapping[str, bytes]], _T],
        *,
        reload_s: float,
    ) -> None:
        self._paths = dict(paths)
        self._parse = parse
        self._reload_s = reload_s
        self._signature = self._warned = self._sign()
        self._value = self._read()
        self._looked = time.monotonic()

    def current(self) -> _T:
        """Return the value of the files as they are, or as they last were when usable."""
        if time.monotonic() - self._looked >= self._reload_s:
            signature = self._sign()
            if self._is_settled(signature):
                self._looked = time.monotonic()
                self._reload(signature)
        return self._value

    def _is_settled(self, signature: _Signature) -> bool:
        """Whether nothing was changed just now: of a file that is being written, half may be sound.

        An empty one, say, is a list of no tenants, and would end all their streams.
        """
        settle_ns = 1e9 * min(_SETTLE_S, self._reload_s)
        changes = (change[0] for change in signature if change is not None)
        return not any(0 <= time.time_ns() - changed_ns < settle_ns for changed_ns in changes)

    def _reload(self, signature: _Signature) -> None:
        if signature == self._signature:
            return
        try:
            self._value = self._read()
        except SettingError as error:
            if signature != self._warned:
                log.warning("%s; the files as they were before stay in use", error)
            self._warned = signature
        else:
            self._signature = self._warned = signature
            log.info("read again: %s", ", ".join(self._paths))

    def _read(self) -> _T:
        return self._parse({setting: read(setting, path) for setting, path in self._paths.items()})

    def _sign(self) -> _Signature:
        return tuple(_signature(path) for path in self._paths.values())


def read(setting: str, path: Path) -> bytes:
    """Read a whole file.

    Raises:
        SettingError: It cannot be read; names the setting, the path and why.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingError(setting, f"cannot read {path}: {error.strerror}") from error


def _signature(path: Path) -> tuple[int, int, int] | None:
    """What changes with a file: by a swapped symbolic link, and by new rights, too."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ctime_ns, status.st_ino, status.st_size
