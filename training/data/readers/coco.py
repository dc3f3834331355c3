"""Reader of COCO boxes and masks in the layout of Roboflow, which rfdetr reads, too.

A folder, or its sub-folders `train`, `valid` and `test`, hold pictures beside
`_annotations.coco.json`. `track_id`, where every annotation of a clip has one, makes it tracked.

Source: https://cocodataset.org/#format-data
"""

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from training.data.clips import Clip
from training.data.labels import KNOWN_LABELS, kind_of
from training.data.pictures import image_size
from training.data.problems import Problems
from training.data.readers.masks import from_coco
from training.data.readers.parsing import (
    Entry,
    JsonBox,
    Side,
    check_box,
    load_json,
    parse,
    parse_each,
)
from training.data.readers.stills import Labelled, Still, clips_of
from training.errors import InputError

LAYOUT = "_annotations.coco.json beside its pictures, or in train/, valid/ and test/"
ANNOTATIONS = "_annotations.coco.json"


class _File(Entry):
    images: list[Any]
    annotations: list[Any]
    categories: list[Any]


class _Image(Entry):
    id: int
    file_name: str
    width: Side
    height: Side


class _Category(Entry):
    id: int
    name: str


class _Annotation(Entry):
    image_id: int
    category_id: int
    bbox: JsonBox
    iscrowd: Annotated[int, Field(ge=0, le=1)] = 0
    segmentation: Any = None
    track_id: Annotated[int, Field(ge=0)] | None = None


def find(path: Path) -> list[Path]:
    """Return `path` if there are annotation files at or below it."""
    return [path] if _files(path) else []


def read(path: Path, problems: Problems) -> list[Clip]:
    """Read the clips of all annotation files at or below a path."""
    stills: list[Still] = []
    for file in _files(path):
        with problems.each():
            stills += _stills(file, problems)
    return clips_of(stills, problems)


def _files(path: Path) -> list[Path]:
    if path.name.endswith(".coco.json"):
        return [path] if path.is_file() else []
    files = (path / split / ANNOTATIONS for split in (".", "train", "valid", "test"))
    return [file for file in files if file.is_file()]


def _stills(path: Path, problems: Problems) -> list[Still]:
    file = parse(_File, load_json(path), f"{path}: top level", problems)
    if file is None:
        return []
    images = _images(file, path, problems)
    parsed = parse_each(_Category, file.categories, path, "categories", problems)
    names = {category.id: category.name for _, category in parsed}
    objects: dict[int, list[Labelled]] = defaultdict(list)
    for index, entry in parse_each(_Annotation, file.annotations, path, "annotations", problems):
        if entry.iscrowd:  # a crowd region is not one object
            continue
        with problems.each():
            place = f"{path}: annotations[{index}]"
            objects[entry.image_id].append(_labelled(entry, images, names, place))
    return [
        Still(path.parent / image.file_name, (image.width, image.height), objects[image.id])
        for image in images.values()
    ]


def _images(file: _File, path: Path, problems: Problems) -> dict[int, _Image]:
    images: dict[int, _Image] = {}
    names: set[Path] = set()
    for index, image in parse_each(_Image, file.images, path, "images", problems):
        place = f"{path}: images[{index}]"
        with problems.each():
            if image.id in images:
                raise InputError(f"{place}.id: expected an id of its own, got {image.id}")
            name = Path(image.file_name)
            if name.is_absolute() or ".." in name.parts:
                raise InputError(f"{place}.file_name: expected a name inside {path.parent}")
            if name in names:
                raise InputError(f"{place}.file_name: expected a picture of its own, got {name}")
            names.add(name)
            images[image.id] = image
            size = image_size(path.parent / name)
            if size != (image.width, image.height):
                raise InputError(
                    f"{place}: expected width and height {size} as in {image.file_name}, "
                    f"got {(image.width, image.height)}"
                )
    return images


def _labelled(
    entry: _Annotation, images: dict[int, _Image], names: dict[int, str], place: str
) -> Labelled:
    image = images.get(entry.image_id)
    if image is None:
        raise InputError(f"{place}.image_id: expected the id of an image, got {entry.image_id}")
    size = (image.width, image.height)
    x, y, width, height = entry.bbox
    return Labelled(
        place=place,
        kind=_kind(entry.category_id, names, place),
        box=check_box((x, y, x + width, y + height), f"{place}.bbox", size, may_leave=False),
        runs=from_coco(entry.segmentation, size, f"{place}.segmentation"),
        track_id=entry.track_id,
    )


def _kind(category_id: int, names: dict[int, str], place: str) -> str:
    """Return a category's kind; unused ones, such as Roboflow's root, may have any name."""
    if category_id not in names:
        raise InputError(f"{place}.category_id: expected a category's id, got {category_id}")
    kind = kind_of(names[category_id])
    if kind is None:
        raise InputError(
            f"{place}.category_id: expected one of the categories {KNOWN_LABELS}, "
            f"got {names[category_id]!r}"
        )
    return kind
