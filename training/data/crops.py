"""Person crops with truth, cut from the rendered clips once and kept as memory-mapped arrays.

Each crop is stored as a patch: the person's visible box grown by `GROWTH` about its centre and
resized to `PATCH_HEIGHT` x `PATCH_WIDTH`. Training re-cuts patches with jitter, so that one pass
over the video serves every epoch. Truth that is unknown or doubtful is -1 and carries no loss.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.contracts import KIT_COLOURS
from orchestrator.types.pictures import Pixels
from training.data.clips import Box, role_of_kind
from training.data.footage import Clip, Person, Sighting, read_clip
from training.data.kits import Kit, Pattern
from training.errors import InputError
from training.whole_file import whole

HELD_OUT = ("dev_05", "dev_13", "dev_14", "dev_18", "dev_22", "demo_01")
HELD_OUT_UNCUT = ("dev_05", "dev_13", "dev_14:82", "dev_18:72", "dev_22")
"""Up to the frame before a camera cut: across it, a tracker must be re-prompted."""

PATCH_HEIGHT, PATCH_WIDTH = 160, 96
GROWTH = 1.25
ROLES = ("player", "goalkeeper", "referee", "other")

# What a crop, or a text about it, can say; the columns of `CropSet.attributes`.
ROLE, SHIRT, SECOND, PATTERN, SHORTS, NUMBER = range(6)
PATTERNS = ("plain", "stripes", "hoops", "half", "sash", "sleeves", "band", "pin")
_PATTERN_OF = {
    Pattern.PLAIN: "plain",
    Pattern.STRIPES: "stripes",
    Pattern.HOOPS: "hoops",
    Pattern.HALVES: "half",
    Pattern.SASH: "sash",
    Pattern.SLEEVES: "sleeves",
}

_STRIDE = 4  # frames between two patches of one person
_NUMBER_STRIDE = 2  # the same while the number can be read: such frames are rarer
_MIN_VISIBLE_SHARE = 0.3
_READABLE_FILL = 0.65  # share of the number's box that is seen: long hair hides the middle
_LEGIBLE_FILL = 0.4  # of which less is seen, digits are guesses
_HIDDEN_FILL = 0.45
_PALETTE = {
    "black": (20, 20, 22),
    "white": (235, 235, 235),
    "grey": (125, 125, 125),
    "red": (195, 25, 35),
    "orange": (240, 120, 25),
    "yellow": (235, 210, 40),
    "green": (45, 150, 55),
    "cyan": (100, 205, 230),
    "blue": (30, 65, 185),
    "purple": (125, 45, 165),
    "pink": (240, 115, 185),
}


@dataclass(frozen=True, slots=True)
class CropSet:
    """Patches and their truth; `n` rows.

    Attributes:
        pixels: RGB uint8 `(n, PATCH_HEIGHT, PATCH_WIDTH, 3)`.
        masks: The person's visible pixels, uint8 0/1 `(n, PATCH_HEIGHT, PATCH_WIDTH)`.
        number_box: float32 `(n, 4)`, xyxy of the whole back number in patch pixels; zeros if the
            number cannot be read.
        number_visible: int8 `(n,)`: 1 readable, 0 out of sight, -1 between the two.
        attributes: int16 `(n, 6)`: indices into `ROLES`, `KIT_COLOURS`, `KIT_COLOURS` (-1 without
            a second colour), `PATTERNS`, `KIT_COLOURS`, and the number (-1 where too little of it
            is seen). All kit columns are -1 where the clip does not tell the kit.
        kit: int16 `(n,)`, equal for equal kits over all clips of the set.
        track: int32 `(n,)`, clip index * 100 + person id.
    """

    pixels: Pixels
    masks: Pixels
    number_box: NDArray[np.float32]
    number_visible: NDArray[np.int8]
    attributes: NDArray[np.int16]
    kit: NDArray[np.int16]
    track: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.kit)

    @classmethod
    def load(cls, directory: Path) -> "CropSet":
        """Map the files of `crop_set` into memory, one `.npy` file per field, read only."""
        return cls(**{name: np.load(_file(directory, name), mmap_mode="r") for name in _fields()})


def crop_set(footage: Path, names: tuple[str, ...], cache: Path) -> CropSet:
    """Return the crops of the clips `names` in the folder `footage`, kept in the folder `cache`."""
    if not _file(cache, _fields()[-1]).exists():  # which appears last
        _extract([read_clip(footage, name) for name in names], cache)
    return CropSet.load(cache)


def _file(directory: Path, name: str) -> Path:
    return directory / f"{name}.npy"


def _fields() -> list[str]:
    return [field.name for field in dataclasses.fields(CropSet)]


def nearest_colour(rgb: Any) -> int:
    """Return the index in `KIT_COLOURS` of the colour nearest to `rgb`, three values 0-255."""
    colours = np.array([rgb, *(_PALETTE[name] for name in KIT_COLOURS)], np.float32)[None] / 255
    lab = cv2.cvtColor(colours, cv2.COLOR_RGB2LAB)[0]
    lab[:, 0] *= 0.6  # shadow changes lightness more than hue
    return int(np.linalg.norm(lab[1:] - lab[0], axis=1).argmin())


def kit_attributes(kit: Kit) -> NDArray[np.int16]:
    """Return the attributes `SHIRT` to `SHORTS` of an invented kit, int16 `(4,)`."""
    is_plain = kit.pattern is Pattern.PLAIN
    return np.array(
        [
            nearest_colour(kit.shirt),
            -1 if is_plain else nearest_colour(kit.second),
            PATTERNS.index(_PATTERN_OF[kit.pattern]),
            nearest_colour(kit.shorts),
        ],
        np.int16,
    )


def patch_transform(box: Box) -> NDArray[np.float32]:
    """Return the affine map, float32 `(2, 3)`, from frame pixels to the patch about `box`, xyxy."""
    x0, y0, x1, y1 = box
    scale_x = PATCH_WIDTH / ((x1 - x0) * GROWTH)
    scale_y = PATCH_HEIGHT / ((y1 - y0) * GROWTH)
    shift_x = PATCH_WIDTH / 2 - scale_x * (x0 + x1) / 2
    shift_y = PATCH_HEIGHT / 2 - scale_y * (y0 + y1) / 2
    return np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y]], np.float32)


def _extract(clips: list[Clip], cache: Path) -> None:
    kits: dict[str, int] = {}
    for clip in clips:
        if not clip.has_masks:
            raise InputError(f"{clip.name}: expected masks beside its truth")
    rows = (row for index, clip in enumerate(clips) for row in _clip_rows(clip, index, kits))
    with ExitStack() as stack:
        files = {}
        for name in reversed(_fields()):  # the stack is left, and files appear, in their order
            partial = stack.enter_context(whole(_file(cache, name)))
            files[name] = stack.enter_context(partial.open("wb"))
        if not _write(rows, files):
            names = ", ".join(clip.name for clip in clips)
            raise InputError(f"expected clips with people and masks, found none in {names}")


def _write(rows: Iterable[dict[str, Any]], files: Mapping[str, IO[bytes]]) -> int:
    """Write rows into `.npy` files as they come: those of a whole match do not fit into memory.

    Returns:
        How many there were.
    """
    first: dict[str, Any] = {}
    count = 0
    for row in rows:
        count += 1
        if not first:
            first = row
            _write_headers(files, first, 0)
        for name, file in files.items():
            file.write(np.asarray(row[name], first[name].dtype).tobytes())
    for file in files.values():
        file.seek(0)
    _write_headers(files, first, count)  # as long as before: NumPy leaves room for the count
    return count


def _write_headers(files: Mapping[str, IO[bytes]], row: Mapping[str, Any], count: int) -> None:
    for name, value in row.items():
        shape = {"shape": (count, *value.shape), "fortran_order": False}
        header = {"descr": value.dtype.str, **shape}
        np.lib.format.write_array_header_1_0(files[name], header)  # type: ignore[no-untyped-call]


def _clip_rows(clip: Clip, clip_index: int, kits: dict[str, int]) -> Iterator[dict[str, Any]]:
    for index, picture in clip.every(_NUMBER_STRIDE):
        masks: dict[int, NDArray[np.uint8]] | None = None
        for seen in clip.sightings[index]:
            if not _is_wanted(clip, seen, index):
                continue
            masks = clip.masks(index) if masks is None else masks
            if seen.object_id in masks:
                person = clip.people[seen.object_id]
                yield {
                    **_pixels(picture, masks[seen.object_id], seen),
                    **_truth(clip, person, seen, kits),
                    "track": np.int32(clip_index * 100 + person.person_id),
                }


def _is_wanted(clip: Clip, seen: Sighting, index: int) -> bool:
    if seen.is_ball or seen.box_visible is None:
        return False
    if index % _STRIDE and not seen.is_number_readable:
        return False
    full, visible = _area(seen.box_full), _area(seen.box_visible)
    drawn = clip.header.get("overlay_boxes", ())
    covered = any(_meets(seen.box_visible, board) for board in drawn)
    return visible > _MIN_VISIBLE_SHARE * full and not covered


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _meets(a: Box, b: list[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _pixels(picture: Pixels, mask: Pixels, seen: Sighting) -> dict[str, Any]:
    assert seen.box_visible is not None
    transform = patch_transform(seen.box_visible)
    size = (PATCH_WIDTH, PATCH_HEIGHT)
    number_box = np.zeros(4, np.float32)
    if seen.number_box is not None and seen.is_number_readable:
        corners = np.array(seen.number_box, np.float32).reshape(2, 2)
        number_box = (corners * transform[:, :2].diagonal() + transform[:, 2]).reshape(4)
    return {
        "pixels": cv2.warpAffine(picture, transform, size, borderMode=cv2.BORDER_REPLICATE),
        "masks": cv2.warpAffine(mask, transform, size, flags=cv2.INTER_NEAREST),
        "number_box": number_box,
    }


def _truth(clip: Clip, person: Person, seen: Sighting, kits: dict[str, int]) -> dict[str, Any]:
    number_px, number_span = seen.number_px or 0, seen.number_span or 0.0
    fill = 0.0 if seen.number_box is None else number_px / max(_area(seen.number_box), 1.0)
    has_number = seen.is_number_readable and person.jersey_number is not None
    is_readable = has_number and fill > _READABLE_FILL
    attributes = np.full(6, -1, np.int16)
    attributes[ROLE] = ROLES.index(role_of_kind(person.kind))
    attributes[SHIRT : SHORTS + 1], kit_name = _worn(clip, person)
    if has_number and fill > _LEGIBLE_FILL:
        attributes[NUMBER] = person.jersey_number
    is_hidden = number_span < 0.4 or fill < _HIDDEN_FILL
    return {
        "number_visible": np.int8(1 if is_readable else 0 if is_hidden else -1),
        "attributes": attributes,
        "kit": np.int16(kits.setdefault(kit_name, len(kits))),
    }


def _worn(clip: Clip, person: Person) -> tuple[list[int], str]:
    """Return the attributes `SHIRT` to `SHORTS` and a name that equal kits share.

    Raises:
        InputError: The clip tells kits, but not this person's.
    """
    side = f"{person.team}_goalkeeper" if person.kind == "goalkeeper" else person.team or "referee"
    colours = clip.header["kit_colours"]
    if colours is None or person.team is None:  # officials' shirts differ from what the clips say
        return [-1, -1, -1, -1], f"{clip.name} {side}"
    try:
        return _described(colours[side])
    except (KeyError, TypeError, ValueError, cv2.error) as error:
        raise InputError(
            f"{clip.name}: kit_colours.{side}: expected one colour, or pattern, shirt, second and "
            f"shorts, got {colours.get(side)!r}"
        ) from error


def _described(worn: Any) -> tuple[list[int], str]:
    if not isinstance(worn, dict):  # a keeper: one colour from head to foot
        colour = nearest_colour(worn)
        return [colour, -1, PATTERNS.index("plain"), colour], f"plain {worn}"
    second = -1 if worn["second"] is None else nearest_colour(worn["second"])
    pattern = PATTERNS.index(worn["pattern"])
    return [
        nearest_colour(worn["shirt"]),
        second,
        pattern,
        nearest_colour(worn["shorts"]),
    ], f"{worn['pattern']} {worn['shirt']} {worn['second']} {worn['shorts']}"
