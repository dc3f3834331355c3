"""Batches of few sizes, so that compiled and captured networks see few shapes, and of bounded ones.

A batch whose intermediate results leave the caches costs more on a CPU than its objects one by one.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping

_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64)
_STEP = 32
"""Between larger sizes."""


def filled(rows: list[int]) -> list[int]:
    """Repeat the last of one or more rows up to the next of a few batch sizes.

    At most twice the work for small batches, at most half more for those of 16 and up.
    """
    count = len(rows)
    size = next((size for size in _SIZES if size >= count), -(-count // _STEP) * _STEP)
    return rows + rows[-1:] * (size - count)


def grouped(kinds: Mapping[int, Hashable], most: int) -> list[list[int]]:
    """Rows of equal kind together, at most so many, in the order of the first of each kind."""
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, kind in kinds.items():
        groups[kind].append(row)
    return [
        group[first : first + most]
        for group in groups.values()
        for first in range(0, len(group), most)
    ]
