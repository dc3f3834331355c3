"""Which detection belongs to which track: one-to-one, by overlap."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from orchestrator.imaging import iou
from orchestrator.types.pictures import Boxes

_GROWTH = 0.5
"""What boxes are grown by on each side, as a share of their size, where they do not meet."""


def near(a: Boxes, b: Boxes) -> NDArray[np.float32]:
    """Return the overlap of boxes grown on all sides: who moved fast still meets itself.

    Source: buffered IoU, Yang et al., "Hard to Track Objects with Irregular Motions and Similar
    Appearances? Make It Easier by Buffering the Matching Space", WACV 2023.
    """
    return iou(_grown(a), _grown(b))


def _grown(boxes: Boxes) -> Boxes:
    margin = _GROWTH * (boxes[:, 2:] - boxes[:, :2])
    return np.concatenate([boxes[:, :2] - margin, boxes[:, 2:] + margin], axis=1)


def match(
    affinity: NDArray[np.float32], fallback: NDArray[np.float32], least: float
) -> list[tuple[int, int]]:
    """Assign rows to columns, first by one measure, then what is left over by another.

    Args:
        affinity: float32 `(n, m)`, greater is better.
        fallback: Likewise.
        least: Least value of either that makes a pair.

    Returns:
        Pairs of row and column; every row and column at most once.
    """
    pairs = _assign(affinity, least)
    rest = fallback.copy()
    rest[[row for row, _ in pairs], :] = 0
    rest[:, [column for _, column in pairs]] = 0
    return pairs + _assign(rest, least)


def _assign(affinity: NDArray[np.float32], least: float) -> list[tuple[int, int]]:
    """Return the best one-to-one (row, column) pairs whose affinity is at least `least`."""
    # What makes no pair must not outweigh what does.
    rows, columns = linear_sum_assignment(np.where(affinity < least, 0, affinity), maximize=True)
    is_pair = affinity[rows, columns] >= least
    return list(zip(rows[is_pair].tolist(), columns[is_pair].tolist(), strict=True))
