"""COCO compressed run lengths, written and read without touching the pixels of the frame.

A mask is read column by column, as lengths of runs that are outside and inside by turns.
Source: pycocotools, `maskApi.c`, `rleToString` and `rleFrString`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

_MOST_CHARACTERS = 7
"""Of one number, five bits each: 35 bits hold every run of every frame."""


def encode(pixels: NDArray[np.bool_], x: int, y: int, frame_shape: tuple[int, int]) -> str:
    """Return the run lengths of a frame that is empty but for some pixels.

    Args:
        pixels: bool `(h, w)`; every one of them lies in the frame.
        x: Column of the frame at which they begin.
        y: Row of the frame at which they begin.
        frame_shape: Height and width of the frame in pixels.
    """
    height, width = frame_shape
    counts = np.diff(np.concatenate([[0], _edges(pixels, x, y, height), [height * width]]))
    runs = {"size": [height, width], "counts": counts.tolist()}
    return str(coco_mask.frPyObjects(runs, height, width)["counts"].decode())


@dataclass(frozen=True, slots=True, eq=False)
class Silhouette:
    """The mask of a whole frame as it was received, at the cost of its outline.

    Attributes:
        edges: Column-major frame indices at which the mask turns on, off, on, off and so on,
            int64, ascending.
        frame_shape: Height and width of the frame in pixels.
    """

    edges: NDArray[np.int64]
    frame_shape: tuple[int, int]

    @classmethod
    def decode(cls, text: bytes, frame_shape: tuple[int, int]) -> "Silhouette":
        """Read run lengths.

        Raises:
            ValueError: They are damaged, or their sum is not the size of the frame.
        """
        area = frame_shape[0] * frame_shape[1]
        # A run of two characters saves fifteen others: no mask takes more than its pixels do.
        counts = _counts(_numbers(text, most=area + 1))
        if (counts < 0).any() or (counts > area).any() or counts.sum() != area:
            raise ValueError(f"expected run lengths that fill {frame_shape[1]}x{frame_shape[0]} px")
        return cls(np.cumsum(counts)[:-1], frame_shape)

    @property
    def area(self) -> int:
        """Number of pixels inside."""
        ends = np.append(self.edges, self.frame_shape[0] * self.frame_shape[1])
        return int(np.diff(ends)[::2].sum())

    def covers(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether pixels of the frame are inside; those beyond the frame are not."""
        height, width = self.frame_shape
        is_on = np.searchsorted(self.edges, x * height + y, side="right") % 2 == 1
        return np.asarray(is_on & (x >= 0) & (x < width) & (y >= 0) & (y < height))


def _edges(pixels: NDArray[np.bool_], x: int, y: int, frame_height: int) -> NDArray[np.int64]:
    columns = np.pad(pixels, ((1, 1), (0, 0))).T.astype(np.int8)
    column, row = np.nonzero(np.diff(columns, axis=1))
    edges = (x + column) * frame_height + y + row
    # A run down to the last row may go on in the first row of the next column.
    touching = np.flatnonzero(edges[1:-1:2] == edges[2::2])
    return np.delete(edges, np.concatenate([2 * touching + 1, 2 * touching + 2]))


def _numbers(text: bytes, most: int) -> NDArray[np.int64]:
    """Read signed numbers of five bits a character, low bits first; bit 32: more follow."""
    code = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not 0 < len(code) <= most or code.min() < 0 or code.max() > 63 or code[-1] & 32:
        raise ValueError("expected complete COCO run lengths")
    last = np.flatnonzero(code < 32)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > _MOST_CHARACTERS:
        raise ValueError("expected COCO run lengths of at most 35 bits")
    place = np.arange(len(code)) - np.repeat(first, lengths)
    values = np.add.reduceat((code & 31) << (5 * place), first)
    is_negative = (code[last] & 16) >> 4
    return np.asarray(values - (is_negative << (5 * lengths)), np.int64)


def _counts(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Undo the differences: from the fourth on, each number is told from the one two before."""
    counts = numbers.copy()
    counts[1::2] = np.cumsum(numbers[1::2])
    counts[2::2] = np.cumsum(numbers[2::2])
    return counts
