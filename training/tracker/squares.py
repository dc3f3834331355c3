"""Cut a square around every person of rendered clips, once, for training the window tracker.

A square holds RGB and the person's mask, 3.5 heights wide: room for `training.tracker.tracklets` to
cut the smaller windows that a follower would see.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data.footage import Clip, Sighting, read_clip
from training.errors import InputError
from training.whole_file import whole

_log = logging.getLogger(__name__)

COVER = 3.5
"""Side of a stored square in heights of its person."""
BLOCK_FRAMES = 40
"""Of every two blocks of this many frames, one is kept per person: half the disk, all the kits."""
MIN_HEIGHT_PX = 24

ROW = np.dtype(
    [
        ("clip", "i4"), ("person", "i4"), ("frame", "i4"),
        ("x0", "f4"), ("y0", "f4"), ("side", "f4"),
        ("cx", "f4"), ("cy", "f4"), ("height", "f4"),
        ("seen", "f4"), ("toward_x", "f4"), ("toward_y", "f4"),
    ]
)  # fmt: skip
"""One stored square: where it lies in the frame, centre and height of the whole body (pixels),
the share of the body's box that is silhouette, the way to the nearest other person (heights)."""


def extract(footage: Path, clips: Sequence[str], out: Path, square_px: int) -> None:
    """Write `squares.npy` uint8 `(n, square_px, square_px, 4)` and `rows.npy` `(n,)` of `ROW`.

    Does nothing if `rows.npy` is in the folder `out` already.

    Raises:
        InputError: A clip has no masks, or nobody in the clips is large enough.
        OSError: The squares do not fit on the disk.
    """
    if (out / "rows.npy").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    loaded = [read_clip(footage, name) for name in clips]
    for clip in loaded:
        if not clip.has_masks:
            raise InputError(f"{footage}: expected masks of {clip.name}")
    plans = [_plan(clip, index) for index, clip in enumerate(loaded)]
    planned = [rows for plan in plans for rows in plan.values()]
    if not planned:
        raise InputError(f"{footage}: expected people of {MIN_HEIGHT_PX} px or more in {clips}")
    rows = np.concatenate(planned)
    shape = (len(rows), square_px, square_px, 4)
    squares = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        out / "squares.npy", "w+", np.uint8, shape
    )
    _make_room(out / "squares.npy", squares.offset + squares.nbytes)
    written = 0
    for clip, plan in zip(loaded, plans, strict=True):
        for square in _squares(clip, plan, square_px):
            squares[written] = square
            written += 1
        _log.info("extracted %s, %d squares so far", clip.name, written)
    squares.flush()
    with whole(out / "rows.npy") as partial, partial.open("wb") as file:
        np.save(file, rows)


def _make_room(path: Path, size: int) -> None:
    """Take the disk space of a mapped file now: a write to it on a full disk kills the process."""
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _plan(clip: Clip, clip_index: int) -> dict[int, NDArray[np.void]]:
    """Rows to store by frame, in the order of the frames."""
    plan = {}
    for frame, sightings in enumerate(clip.sightings):
        people = [s for s in sightings if not s.is_ball]
        rows = [
            _row(clip_index, frame, person, people)
            for person in people
            if (person.object_id + frame // BLOCK_FRAMES) % 2 == 0 and _is_usable(clip, person)
        ]
        if rows:
            plan[frame] = np.array(rows, ROW)
    return plan


def _is_usable(clip: Clip, person: Sighting) -> bool:
    x0, y0, x1, y1 = person.box_full
    inside_x = 0 <= (x0 + x1) / 2 < clip.width
    inside_y = 0 <= (y0 + y1) / 2 < clip.height
    return inside_x and inside_y and y1 - y0 >= MIN_HEIGHT_PX


def _row(
    clip_index: int, frame: int, person: Sighting, people: list[Sighting]
) -> tuple[float, ...]:
    x0, y0, x1, y1 = person.box_full
    centre, height = _centre(person), y1 - y0
    side = round(COVER * height)
    corner = np.round(centre - side / 2)
    ways = [_centre(other) - centre for other in people if other is not person]
    nearest = min(ways, key=np.linalg.norm, default=np.full(2, 9 * height)) / height
    seen = person.visible_px_at_most / ((x1 - x0) * height)
    return (
        clip_index, person.object_id, frame, *corner, side, *centre, height, seen, *nearest,
    )  # fmt: skip


def _centre(person: Sighting) -> NDArray[np.float64]:
    x0, y0, x1, y1 = person.box_full
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2])


def _squares(
    clip: Clip, plan: dict[int, NDArray[np.void]], size: int
) -> Iterator[NDArray[np.uint8]]:
    for frame, picture in enumerate(clip.frames()):
        if frame not in plan:
            continue
        masks = clip.masks(frame)
        nothing = np.zeros(picture.shape[:2], np.uint8)
        for row in plan[frame]:
            mask = masks.get(int(row["person"]), nothing) * np.uint8(255)
            yield np.dstack([_resized(picture, row, size), _resized(mask, row, size)])


def _resized(picture: NDArray[np.uint8], row: np.void, size: int) -> NDArray[np.uint8]:
    """Cut `row`'s square out of a picture or mask, black outside, averaged if it shrinks."""
    x0, y0, side = int(row["x0"]), int(row["y0"]), int(row["side"])
    height, width = picture.shape[:2]
    top, left = max(-y0, 0), max(-x0, 0)
    bottom, right = max(y0 + side - height, 0), max(x0 + side - width, 0)
    inside = picture[max(y0, 0) : y0 + side, max(x0, 0) : x0 + side]
    square = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_CONSTANT)
    how = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=how), np.uint8)
