"""The folder that rfdetr trains from: roboflow-COCO, from rendered clips or as it came.

`train/` and `valid/` each hold pictures and `_annotations.coco.json`.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from orchestrator.types.pictures import Pixels
from training.data.footage import read_clip
from training.data.readers.coco import ANNOTATIONS
from training.data.readers.stills import source_of
from training.data.reading import read
from training.data.writers.coco import annotation_file
from training.data.writers.stills import write_jpeg
from training.detector.tiles import Recipe, Target, plain_tiles, still_tiles, training_tiles
from training.errors import InputError
from training.run.config import Split
from training.whole_file import write_whole

VALID_STEP = 4
"""Held-out clips are cut so much more rarely than those that are learnt."""

_JPEG_QUALITY = 93


def is_coco(folder: Path) -> bool:
    """Say whether a folder has roboflow-COCO's layout already."""
    return (folder / "train" / ANNOTATIONS).is_file()


def check_coco(folder: Path, labels: Sequence[str]) -> list[str]:
    """Hold a roboflow-COCO folder against the labels of a config.

    Returns:
        The sources of pictures that lie in both splits, such as one video's frames.

    Raises:
        InputError: A split is missing or unreadable, or its labels are others.
    """
    sources = []
    for split in ("train", "valid"):
        path = folder / split / ANNOTATIONS
        found, pictures = _annotated(path)
        if found != list(labels):
            raise InputError(f"{path}: expected the categories {list(labels)}, found {found}")
        sources.append({source_of(name) for name in pictures})
    return sorted(set.intersection(*sources))


def _annotated(path: Path) -> tuple[list[str], list[str]]:
    """Return the names of the categories by id, without those that group, and of the pictures.

    Source: rfdetr 1.11.2, datasets/coco.py, filter_parent_categories.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pictures = [str(one["file_name"]) for one in content["images"]]
        groups = {one.get("supercategory") for one in content["categories"]}
        used = {one["category_id"] for one in content["annotations"]}
        kept = [
            one for one in content["categories"] if one["id"] in used or one["name"] not in groups
        ]
        names = [str(one["name"]) for one in sorted(kept, key=lambda one: int(one["id"]))]
    except OSError as error:
        raise InputError(f"{path}: expected COCO annotations: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: expected COCO annotations: {error!r}") from error
    return names, pictures


def write_tiles(
    footage: Path,
    folder: Path,
    *,
    clips: Split,
    labels: Sequence[str],
    recipe: Recipe,
    resolution: int,
    seed: int,
    stills: Path | None = None,
) -> None:
    """Cut clips and stills into `folder`; a complete split is left as it is.

    Args:
        footage: Folder of rendered clips.
        folder: Where `train` and `valid` are written.
        clips: Which clips go where.
        labels: `person` and `ball`, or roles and `ball`, in the order of the network's columns.
        recipe: Which tiles.
        resolution: Side of a tile in pixels.
        seed: Of kits and crops.
        stills: Further labelled pictures to learn from, in any format of `training.data`.

    Raises:
        InputError: A clip or a still is missing or not as expected.
    """
    if not (folder / "train" / ANNOTATIONS).exists():
        rng = np.random.default_rng(seed)
        train = CocoFolder(folder / "train", labels)
        for name in clips.train:
            clip = read_clip(footage, name)
            train.extend(training_tiles(clip, recipe, labels, resolution, rng))
        for clip in read(stills) if stills else []:
            train.extend(still_tiles(clip, recipe, labels, resolution, rng))
        train.close()
    if not (folder / "valid" / ANNOTATIONS).exists():
        valid = CocoFolder(folder / "valid", labels)
        for name in clips.held_out:
            clip, step = read_clip(footage, name), VALID_STEP * recipe.frame_step
            valid.extend(plain_tiles(clip, step, labels, resolution))
        valid.close()


@dataclass
class CocoFolder:
    """One split of a roboflow-COCO data set, filled tile by tile.

    Attributes:
        directory: Folder of the split; created if absent.
        labels: Names of the categories, whose ids count from 0.
    """

    directory: Path
    labels: Sequence[str]
    _images: list[dict[str, object]] = field(default_factory=list)
    _annotations: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)

    def extend(self, tiles: Iterable[tuple[Pixels, list[Target]]]) -> None:
        """Write RGB tiles `(side, side, 3)` and note their targets."""
        for tile, targets in tiles:
            self.add(tile, targets)

    def add(self, tile: Pixels, targets: Iterable[Target]) -> None:
        """Write one RGB tile `(side, side, 3)` and note its targets."""
        image_id = len(self._images)
        name = f"{image_id:06d}.jpg"
        write_jpeg(tile, self.directory / name, _JPEG_QUALITY)
        height, width = tile.shape[:2]
        self._images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for target in targets:
            x0, y0, x1, y1 = target.box
            self._annotations.append(
                {
                    "id": len(self._annotations),
                    "image_id": image_id,
                    "category_id": self.labels.index(target.label),
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                    "segmentation": [],
                }
            )

    def close(self) -> None:
        """Write the annotation file; the split is complete once it exists."""
        content = annotation_file(self._images, self._annotations, self.labels)
        write_whole(self.directory / ANNOTATIONS, json.dumps(content).encode())
