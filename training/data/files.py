"""Finding files as people lay them out: behind links, and numbered without leading zeros."""

import fnmatch
import os
import re
from pathlib import Path

_NUMBER = re.compile(r"(\d+)")


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that puts `2.jpg` before `10.jpg`."""
    parts = _NUMBER.split(name)  # text and numbers by turns
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def files_below(folder: Path, pattern: str) -> list[Path]:
    """Return the files at any depth whose names match, by path; links are followed, once each."""
    seen: set[str] = set()
    found: list[Path] = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(place, name) for name in fnmatch.filter(names, pattern)]
    return sorted(found)
