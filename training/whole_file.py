"""Files that appear complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, which becomes `path` when the block ends well.

    When it does not, `path` stays as it was and nothing is left of what was written.

    Args:
        path: The file to appear or to be replaced; its folder is made if missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    try:
        yield partial
        with partial.open("rb") as file:  # or a machine that fails could keep the name alone
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)  # of a block that failed; or a hard link to `path`


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it appears complete or not at all."""
    with whole(path) as partial:
        partial.write_bytes(content)
