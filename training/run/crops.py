"""Person crops of a run: cut from its clips once, and shown as they are to be scored."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from orchestrator.types.pictures import Pixels
from training.data import augment
from training.data.crops import CropSet, crop_set
from training.run.folder import data_folder

_BATCH = 128


def run_crops(footage: Path, clips: Sequence[str], work: Path) -> CropSet:
    """Return the crops of some clips of `footage`, which are kept in the folder `work`.

    Raises:
        InputError: A clip is missing or not as expected, or nobody is seen in the clips.
    """
    return crop_set(footage, tuple(clips), data_folder(work, "crops", footage, clips))


def exact_batches(crops: CropSet, size: tuple[int, int]) -> Iterator[Pixels]:
    """Yield all crops in their order, cut exactly and not augmented.

    Args:
        crops: One or more.
        size: Height and width in pixels.

    Yields:
        RGB uint8 `(n, height, width, 3)`, `n` at most 128.
    """
    for start in range(0, len(crops), _BATCH):
        patches = crops.pixels[start : start + _BATCH]
        yield np.stack([augment.cut(patch, size) for patch in patches])
