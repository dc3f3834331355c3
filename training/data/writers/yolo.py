"""Writer of YOLO boxes in the layout of Ultralytics."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from training.data.clips import Clip, Sighting
from training.data.writers.stills import kinds_in, write_stills

_SPLIT_NAMES = {"train": "train", "valid": "val", "test": "test"}


def write(splits: dict[str, Sequence[Clip]], directory: Path, every: int) -> None:
    """Write `data.yaml`, `images/<split>/*.jpg` and `labels/<split>/*.txt`.

    Boxes are those of what is visible; ids, masks and all else have no place in the format.

    Args:
        splits: Clips by the split's name: `train`, `valid`, `test`.
        directory: Folder to write to; must not hold the splits yet.
        every: Write every so many frames.

    Raises:
        FileExistsError: A split is there already.
    """
    names = kinds_in(clip for clips in splits.values() for clip in clips)
    for split, clips in splits.items():
        images, labels = directory / "images" / split, directory / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for clip in clips:
            for index, file in write_stills(clip, images, every):
                seen = [s for s in clip.sightings[index] if s.box_visible is not None]
                lines = "".join(_line(clip, s, names) for s in seen)
                (labels / f"{file.stem}.txt").write_text(lines)
    folders = {_SPLIT_NAMES[split]: f"images/{split}" for split in splits}
    settings = {**folders, "names": dict(enumerate(names))}
    (directory / "data.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def _line(clip: Clip, seen: Sighting, names: list[str]) -> str:
    assert seen.box_visible is not None
    x0, y0, x1, y1 = seen.box_visible
    x, width = (x0 + x1) / 2 / clip.width, (x1 - x0) / clip.width
    y, height = (y0 + y1) / 2 / clip.height, (y1 - y0) / clip.height
    return f"{names.index(seen.kind)} {x:.9f} {y:.9f} {width:.9f} {height:.9f}\n"
