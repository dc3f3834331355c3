"""Reading files that others wrote: bounded, checked, and with errors that name the place."""

import configparser
import gzip
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from training.data.clips import Box, Sighting
from training.data.pictures import MAX_FRAMES, MAX_SIDE
from training.data.problems import Problems
from training.errors import InputError

MAX_FILE_BYTES = 512 << 20
"""Largest label file, unpacked."""
MAX_OBJECTS = 500
"""Most objects of one frame."""
_EDGE_TOLERANCE = 1.0  # pixels a box may reach over the picture's edge: labelling tools round


class Entry(BaseModel):
    """One JSON object of a label file; further fields are ignored, numbers must be finite."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
FrameCount = Annotated[int, Field(ge=1, le=MAX_FRAMES)]
JsonBox = Annotated[tuple[float, float, float, float], Field(strict=False)]
"""Four numbers of a JSON array."""

E = TypeVar("E", bound=Entry)


def read_bytes(path: Path) -> bytes:
    """Return a file's contents, unpacked if its name ends in `.gz`.

    Raises:
        InputError: The file is missing, larger than `MAX_FILE_BYTES`, or a broken archive.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected this file, found none") from error
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: expected a readable file: {error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{path}: expected at most {MAX_FILE_BYTES >> 20} MiB")
    return data


def read_text(path: Path) -> str:
    """Return a file's contents as UTF-8."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start}: expected UTF-8 text") from error


def load_json(path: Path) -> Any:
    """Return the value of a JSON file.

    Raises:
        InputError: The file cannot be read, or is no JSON; names line and column.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}: line {error.lineno}, column {error.colno}"
        raise InputError(f"{place}: expected JSON: {error.msg}") from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{path}: expected JSON: {error}") from error
    except RecursionError as error:
        raise InputError(f"{path}: expected JSON of usual depth") from error


def parse(model: type[E], value: Any, place: str, problems: Problems) -> E | None:
    """Return a JSON object as `model`; None, with every bad field noted, if it is not one."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for wrong in error.errors(include_url=False):
            problems.add(
                _describe(place, wrong["loc"], wrong["type"], wrong["msg"], wrong["input"])
            )
        return None


def parse_each(
    model: type[E], values: list[Any], path: Path, field: str, problems: Problems
) -> Iterator[tuple[int, E]]:
    """Yield index and entry of those `values` of the array `field` that are as `model`."""
    for index, value in enumerate(values):
        entry = parse(model, value, f"{path}: {field}[{index}]", problems)
        if entry is not None:
            yield index, entry


def _describe(place: str, loc: tuple[int | str, ...], kind: str, text: str, got: Any) -> str:
    *parents, last = loc or ("",)
    if kind == "missing" and isinstance(last, int):
        return f"{place}{_dotted(parents)}: expected an entry [{last}]"
    if kind == "missing":
        return f"{place}{_dotted(parents)}: expected field {last!r}"
    expectation = text[0].lower() + text[1:]
    expectation = expectation.replace("input should be", "expected")
    return f"{place}{_dotted(loc)}: {expectation}, got {str(got)[:60]!r}"


def _dotted(loc: Any) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)


def read_section(path: Path, name: str) -> dict[str, str]:
    """Return one section of an ini file, keys in lower case.

    Raises:
        InputError: The file cannot be read, is no ini file, or has no such section.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(read_text(path), str(path))
        return dict(parser[name])
    except KeyError as error:
        raise InputError(f"{path}: expected a section [{name}]") from error
    except configparser.Error as error:
        raise InputError(f"{path}: {error.message}") from error


def setting(section: dict[str, str], key: str, path: Path, limit: int) -> int:
    """Return a whole number of an ini section, 1 to `limit`."""
    text = section.get(key.lower(), "")[:60].strip()
    if not text.isdecimal() or not 1 <= int(text) <= limit:
        raise InputError(f"{path}: {key}: expected a whole number of 1 to {limit}, got {text!r}")
    return int(text)


def rate(section: dict[str, str], key: str, path: Path) -> float:
    """Return a positive number of an ini section, such as frames per second."""
    text = section.get(key.lower(), "")
    value = numbers([text], f"{path}: {key}")[0]
    if value <= 0:
        raise InputError(f"{path}: {key}: expected a positive number, got {text!r}")
    return value


def rows(path: Path, delimiter: str | None) -> Iterator[tuple[str, list[str]]]:
    """Yield place and columns of each line of a text table that is not empty.

    Args:
        path: The file.
        delimiter: Between two columns; None for any white space.
    """
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            # Some tools end a line with a delimiter; an empty column elsewhere is a fault.
            columns = line.strip().removesuffix(delimiter or "").split(delimiter)
            yield f"{path}: line {number}", [column.strip() for column in columns]


def numbers(columns: list[str], place: str) -> list[float]:
    """Return a row's columns as finite numbers."""
    values = []
    for position, text in enumerate(columns, 1):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{place}, column {position}: expected a finite number, got {text!r}")
        values.append(value)
    return values


def check_box(box: Box, place: str, size: tuple[int, int] | None, *, may_leave: bool) -> Box:
    """Return the box if it is one.

    Args:
        box: xyxy in pixels.
        place: File and field or line, for the error.
        size: `(width, height)` of the picture; None if the box may lie outside altogether.
        may_leave: Whether a part of the box may lie outside the picture.

    Raises:
        InputError: The box has NaN, no area, or leaves the picture.
    """
    x0, y0, x1, y1 = box
    if not all(map(math.isfinite, box)):
        raise InputError(f"{place}: expected a box of finite numbers, got {box}")
    if x1 <= x0 or y1 <= y0:
        raise InputError(
            f"{place}: expected a box of positive width and height, got {x1 - x0:g} x {y1 - y0:g}"
        )
    if size is None:
        return box
    (width, height), over = size, _EDGE_TOLERANCE
    if may_leave:
        is_inside = x0 < width and y0 < height and x1 > 0 and y1 > 0
    else:
        is_inside = min(x0, y0) >= -over and x1 <= width + over and y1 <= height + over
    if not is_inside:
        raise InputError(f"{place}: expected a box inside {width}x{height}, got {box}")
    return box


class FrameTable:
    """Sightings by frame, each id once a frame.

    Args:
        frame_count: Number of frames of the clip.
    """

    def __init__(self, frame_count: int) -> None:
        self._frames: dict[int, dict[int, Sighting]] = defaultdict(dict)
        self._frame_count = frame_count

    def add(self, frame_index: int, sighting: Sighting, place: str) -> None:
        """Add what was seen at `place`, in the frame counted from 0.

        Raises:
            InputError: The id is there already, or there are more than `MAX_OBJECTS`.
        """
        frame = self._frames[frame_index]
        if sighting.object_id in frame:
            raise InputError(
                f"{place}: expected each id once in frame {frame_index}, "
                f"got {sighting.object_id} again"
            )
        if len(frame) >= MAX_OBJECTS:
            raise InputError(f"{place}: expected at most {MAX_OBJECTS} objects in a frame")
        frame[sighting.object_id] = sighting

    def sightings(self) -> tuple[tuple[Sighting, ...], ...]:
        """Return what was added, per frame, in the order of adding."""
        return tuple(tuple(self._frames[i].values()) for i in range(self._frame_count))
