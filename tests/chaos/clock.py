"""A wall clock that jumps for one process and its children only, by libfaketime."""

import asyncio
import tempfile
from pathlib import Path
from typing import Self

_LIBRARIES = sorted(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))

IS_INSTALLED = bool(_LIBRARIES)
"""Whether wall clocks can jump here: `apt-get install libfaketime`, which nothing else needs."""

_CACHED_S = 1
"""How seldom libfaketime looks at the file; at each call it would cost a process most of a core."""


class WallClock:
    """The wall clock of processes that are started with its environment, within the context.

    Monotonic clocks and the times of files are left alone, as they are when a real clock is set.
    """

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory()
        self._write(0)
        return self

    def __exit__(self, *_: object) -> None:
        self._directory.cleanup()
        _sweep()

    @property
    def environment(self) -> dict[str, str]:
        """What a process must be started with."""
        return {
            "LD_PRELOAD": str(_LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": str(_CACHED_S),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    async def jump(self, seconds: int) -> None:
        """Set the clock so many seconds ahead of the true time, or behind it; done when it is."""
        self._write(seconds)
        await asyncio.sleep(2.5 * _CACHED_S)  # it counts whole seconds, and more than so many

    def _write(self, seconds: int) -> None:
        following = self._file.with_suffix(".next")
        following.write_text(f"{seconds:+d}\n")
        following.rename(self._file)

    @property
    def _file(self) -> Path:
        return Path(self._directory.name) / "offset"


def _sweep() -> None:
    """Remove the shared memory that libfaketime leaves where a process did not end well."""
    for path in Path("/dev/shm").glob("*faketime_s[eh]m_*"):
        if not Path("/proc", path.name.rpartition("_")[2]).exists():
            path.unlink(missing_ok=True)
