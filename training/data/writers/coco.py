"""Writer of COCO boxes and masks in the layout of Roboflow, which rfdetr's training reads."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.data.clips import Clip, Sighting
from training.data.readers.coco import ANNOTATIONS
from training.data.writers.stills import kinds_in, write_stills


def write(splits: dict[str, Sequence[Clip]], directory: Path, every: int) -> None:
    """Write each split as a folder of JPEG files with `_annotations.coco.json`.

    Boxes are those of what is visible. Ids of tracked clips are kept as `track_id`, masks as
    run lengths; teams, numbers and pitch positions have no place in the format.

    Args:
        splits: Clips by the split's name, such as `train` and `valid`.
        directory: Folder to write to; must not hold the splits yet.
        every: Write every so many frames.

    Raises:
        FileExistsError: A split is there already.
    """
    names = kinds_in(clip for clips in splits.values() for clip in clips)
    for split, clips in splits.items():
        folder = directory / split
        folder.mkdir(parents=True)
        (folder / ANNOTATIONS).write_text(json.dumps(_annotations(clips, folder, names, every)))


def _annotations(
    clips: Iterable[Clip], folder: Path, names: list[str], every: int
) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for clip in clips:
        for index, file in write_stills(clip, folder, every):
            image_id = len(images)
            size = {"width": clip.width, "height": clip.height}
            images.append({"id": image_id, "file_name": file.name, **size})
            for seen in clip.sightings[index]:
                if seen.box_visible is not None:
                    entry = _annotation(clip, index, seen, names)
                    annotations.append({"id": len(annotations), "image_id": image_id, **entry})
    return annotation_file(images, annotations, names)


def annotation_file(
    images: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    names: Iterable[str],
) -> dict[str, Any]:
    """Return what an annotation file holds; ids of the categories are places in `names`."""
    categories = [{"id": i, "name": n, "supercategory": "none"} for i, n in enumerate(names)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _annotation(clip: Clip, index: int, seen: Sighting, names: list[str]) -> dict[str, Any]:
    assert seen.box_visible is not None
    x0, y0, x1, y1 = seen.box_visible
    counts = clip.mask_runs[index].get(seen.object_id)
    size = [clip.height, clip.width]
    return {
        "category_id": names.index(seen.kind),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0) if seen.visible_px is None else seen.visible_px,
        "iscrowd": 0,
        "segmentation": [] if counts is None else {"size": size, "counts": counts},
        **({"track_id": seen.object_id} if clip.is_tracked else {}),
    }
