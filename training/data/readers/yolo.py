"""Reader of YOLO boxes and polygons in the layout of Ultralytics.

`data.yaml` has the class `names` and the folders of pictures `train`, `val` and `test`; a picture
`…/images/x.jpg` has its labels in `…/labels/x.txt`, lines of `class x_centre y_centre width height`
or `class x1 y1 x2 y2 x3 y3 …` as shares of the picture. No labels means that nothing is seen.

Source: https://docs.ultralytics.com/datasets/detect/
"""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from training.data.clips import Box, Clip
from training.data.labels import KNOWN_LABELS, kind_of
from training.data.pictures import image_size, images_in
from training.data.problems import Problems
from training.data.readers.masks import from_polygons
from training.data.readers.parsing import check_box, numbers, read_text, rows
from training.data.readers.stills import Labelled, Still, clips_of
from training.errors import InputError

LAYOUT = "data.yaml naming folders of images/ with labels/ beside them"
_SPLITS = ("train", "val", "test")


def find(path: Path) -> list[Path]:
    """Return the `data.yaml` at or in `path`."""
    file = path if path.suffix in {".yaml", ".yml"} else path / "data.yaml"
    return [file] if file.is_file() else []


def read(path: Path, problems: Problems) -> list[Clip]:
    """Read the clips of all folders of one data set."""
    settings = _settings(path)
    names = _names(settings, path)
    stills: list[Still] = []
    for directory in _picture_folders(settings, path):
        with problems.each():
            stills += _stills(directory, names, problems)
    return clips_of(stills, problems)


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: expected YAML: {error}") from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: expected fields such as names and train")
    return settings


def _names(settings: dict[str, Any], path: Path) -> dict[int, str]:
    names = settings.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    is_expected = isinstance(names, dict) and all(
        isinstance(key, int) and isinstance(name, str) for key, name in names.items()
    )
    if not names or not is_expected:
        raise InputError(f"{path}: names: expected class names, as a list or by number")
    return dict(names)


def _picture_folders(settings: dict[str, Any], path: Path) -> list[Path]:
    """Return the folders named; as Ultralytics does, one `../` too many is forgiven."""
    root = path.parent / str(settings.get("path") or ".")
    folders: list[Path] = []
    for split in _SPLITS:
        named = settings.get(split)
        if named is None:
            continue
        if not isinstance(named, str):
            raise InputError(f"{path}: {split}: expected a folder, got {named!r}")
        folder = root / named
        if not folder.exists() and named.startswith("../"):
            folder = root / named[3:]
        if folder.resolve() in {known.resolve() for known in folders}:
            raise InputError(f"{path}: {split}: expected a folder of its own, got {named!r} again")
        folders.append(folder)
    if not folders:
        raise InputError(f"{path}: expected one of the fields {', '.join(_SPLITS)}")
    return folders


def _stills(directory: Path, names: dict[int, str], problems: Problems) -> list[Still]:
    pictures = images_in(directory)
    labels = _labels_folder(directory)
    _check_labels_have_pictures(labels, pictures, problems)
    stills = []
    for picture in pictures:
        with problems.each():
            size = image_size(picture)
            objects = _objects(labels / f"{picture.stem}.txt", size, names, problems)
            stills.append(Still(picture, size, objects))
    return stills


def _objects(
    file: Path, size: tuple[int, int], names: dict[int, str], problems: Problems
) -> list[Labelled]:
    objects: list[Labelled] = []
    for place, columns in rows(file, None) if file.exists() else ():
        with problems.each():
            objects.append(_labelled(columns, place, size, names))
    return objects


def _labels_folder(directory: Path) -> Path:
    """Return the folder with the last part `images` turned into `labels`."""
    parts = list(directory.parts)
    places = [index for index, part in enumerate(parts) if part == "images"]
    if not places:
        raise InputError(f"{directory}: expected a path with a folder images/")
    parts[places[-1]] = "labels"
    return Path(*parts)


def _check_labels_have_pictures(
    labels: Path, pictures: tuple[Path, ...], problems: Problems
) -> None:
    stems = {picture.stem for picture in pictures}
    for file in sorted(labels.glob("*.txt")):
        if file.stem not in stems and file.name != "classes.txt":
            problems.add(f"{file}: expected a picture {file.stem} beside images, found none")


def _labelled(
    columns: list[str], place: str, size: tuple[int, int], names: dict[int, str]
) -> Labelled:
    """Return what one line says: a box, or a polygon."""
    if len(columns) != 5 and (len(columns) < 7 or len(columns) % 2 == 0):
        raise InputError(
            f"{place}: expected 5 columns, or a class and at least 3 points, got {len(columns)}"
        )
    values = numbers(columns, place)
    kind = _kind(values[0], names, place)
    if len(columns) == 5:
        return Labelled(place, kind, _box(values[1:], size, place))
    points = np.array(values[1:]).reshape(-1, 2) * size
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    box = check_box((x0, y0, x1, y1), place, size, may_leave=False)
    return Labelled(place, kind, box, from_polygons([points.ravel().tolist()], size, place))


def _kind(number: float, names: dict[int, str], place: str) -> str:
    name = names.get(int(number)) if number.is_integer() else None
    if name is None:
        raise InputError(f"{place}: expected a class of data.yaml in column 1, got {number:g}")
    kind = kind_of(name)
    if kind is None:
        raise InputError(f"{place}: expected one of the classes {KNOWN_LABELS}, got {name!r}")
    return kind


def _box(shares: list[float], size: tuple[int, int], place: str) -> Box:
    x, y, width, height = np.array(shares) * (size * 2)
    box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return check_box(
        (float(box[0]), float(box[1]), float(box[2]), float(box[3])), place, size, may_leave=False
    )
