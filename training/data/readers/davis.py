"""Reader of masks in the layout of DAVIS.

`Annotations/…/<sequence>/00000.png` are pictures with a palette whose values are object ids, 0 for
none and 255 for void, beside `JPEGImages/…/<sequence>/00000.jpg`. There are no classes.

Source: https://davischallenge.org/davis2017/code.html
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from training.data.clips import Clip, Sighting
from training.data.files import files_below, natural_order
from training.data.pictures import ImageFiles, check_size, image_size, images_in
from training.data.problems import Problems
from training.data.readers.parsing import FrameTable
from training.errors import InputError

LAYOUT = "Annotations/ with indexed PNG masks beside JPEGImages/"
_LABELS, _PICTURES = "Annotations", "JPEGImages"
_NONE, _VOID = 0, 255


def find(path: Path) -> list[Path]:
    """Return the folders of masks below `path`."""
    masks = path / _LABELS
    if not (path / _PICTURES).is_dir() or not masks.is_dir():
        return []
    return sorted({file.parent for file in files_below(masks, "*.png")})


def read(directory: Path, problems: Problems) -> list[Clip]:
    """Read one sequence, named by its folder of masks."""
    pictures = images_in(_pictures_folder(directory))
    masks = sorted(directory.glob("*.png"), key=lambda path: natural_order(path.name))
    if [p.stem for p in pictures] != [m.stem for m in masks]:
        raise InputError(
            f"{directory}: expected one mask for each of {len(pictures)} pictures, of the same "
            f"name, got {len(masks)}"
        )
    size = image_size(pictures[0])
    table = FrameTable(len(masks))
    runs: list[dict[int, str]] = []
    for index, path in enumerate(masks):
        runs.append({})
        with problems.each():
            check_size(pictures[index], size)
            runs[index] = _add_frame(table, index, _indices(path, size), path)
    clip = Clip(
        name=directory.name,
        width=size[0],
        height=size[1],
        frame_rate=None,
        people={},
        sightings=table.sightings(),
        pictures=ImageFiles(pictures),
        is_tracked=True,
        source=directory.name,
        load_masks=lambda: runs,
    )
    return [clip]


def _pictures_folder(directory: Path) -> Path:
    parts = list(directory.parts)
    place = len(parts) - 1 - parts[::-1].index(_LABELS)
    parts[place] = _PICTURES
    return Path(*parts)


def _indices(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the object ids of all pixels, uint8 `(height, width)`."""
    if image_size(path) != size:
        raise InputError(
            f"{path}: expected a mask of {size} as the picture, got {image_size(path)}"
        )
    try:
        with Image.open(path) as image:
            if image.mode not in {"P", "L"}:
                raise InputError(f"{path}: expected a PNG with a palette, got mode {image.mode}")
            return np.array(image)
    except OSError as error:
        raise InputError(f"{path}: expected an image: {error}") from error


def _add_frame(
    table: FrameTable, index: int, indices: NDArray[np.uint8], path: Path
) -> dict[int, str]:
    runs = {}
    for object_id in np.unique(indices).tolist():
        if object_id in {_NONE, _VOID}:
            continue
        rle = coco_mask.encode(np.asfortranarray(indices == object_id).astype(np.uint8))
        x, y, width, height = coco_mask.toBbox(rle).tolist()
        box = (x, y, x + width, y + height)
        sighting = Sighting(object_id, "object", box, box, int(coco_mask.area(rle)))
        table.add(index, sighting, str(path))
        runs[object_id] = rle["counts"].decode()
    return runs
