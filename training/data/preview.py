"""A contact sheet: frames of a data set with its boxes, masks, ids and numbers drawn in."""

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from orchestrator.cli.graphics import (
    INK,
    WHITE,
    Colour,
    decode_mask,
    paste,
    pill_sprite,
    tint,
)
from orchestrator.types.pictures import Pixels
from training.data.clips import Clip, Sighting
from training.errors import InputError

CELL_WIDTH = 640
_COLUMNS = 3
_TEXT_PX = 13
_GAP_PX = 4
_TEAM_COLOURS: dict[str, Colour] = {"left": (236, 64, 58), "right": (58, 160, 255)}
_KIND_COLOURS: dict[str, Colour] = {
    "ball": (255, 236, 64),
    "referee": (255, 190, 30),
    "assistant_referee": (255, 190, 30),
    "goalkeeper": (170, 110, 255),
    "other": (150, 220, 150),
}
_OTHER_COLOUR: Colour = (230, 232, 236)
_TAGS = {"goalkeeper": "GK", "referee": "REF", "assistant_referee": "AR", "ball": "ball"}


def contact_sheet(clips: Sequence[Clip], count: int) -> Pixels:
    """Draw `count` frames, spread evenly over clips and time, in rows of three.

    Returns:
        RGB uint8 `(height, width, 3)`; each frame is `CELL_WIDTH` wide.

    Raises:
        InputError: There are no frames, or a picture cannot be decoded.
    """
    frames = [(clip, index) for clip in clips for index in range(len(clip.sightings))]
    if not frames:
        raise InputError("preview: expected at least one frame")
    picks = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    chosen = [frames[pick] for pick in picks]
    cells = [cell for clip in clips for cell in _cells(clip, [i for c, i in chosen if c is clip])]
    height = max(cell.shape[0] for cell in cells) + _GAP_PX
    columns = min(_COLUMNS, len(cells))
    rows = math.ceil(len(cells) / columns)
    sheet = np.zeros((rows * height, columns * (CELL_WIDTH + _GAP_PX), 3), np.uint8)
    for number, cell in enumerate(cells):
        y, x = number // columns * height, number % columns * (CELL_WIDTH + _GAP_PX)
        sheet[y : y + cell.shape[0], x : x + CELL_WIDTH] = cell
    return sheet


def _cells(clip: Clip, indices: list[int]) -> Iterator[Pixels]:
    for index, picture in zip(indices, clip.frames(indices), strict=True):
        size = (CELL_WIDTH, round(clip.height * CELL_WIDTH / clip.width))
        drawn = cv2.resize(_draw(clip, index, picture), size, interpolation=cv2.INTER_AREA)
        cell = np.asarray(drawn, np.uint8)
        caption = pill_sprite(f"{clip.name} frame {index}", _TEXT_PX, INK, 0.8)
        paste(cell, caption, 6, size[1] - caption.shape[0] - 6)
        yield cell


def _draw(clip: Clip, index: int, picture: Pixels) -> Pixels:
    """Draw on a picture of full size, so thick that it is still seen in the cell."""
    canvas, scale = picture.copy(), clip.width / CELL_WIDTH
    runs = clip.mask_runs[index]
    for seen in clip.sightings[index]:
        placed = None
        if seen.object_id in runs:
            placed = decode_mask(runs[seen.object_id], clip.height, clip.width)
        if placed is not None:
            tint(canvas, picture, placed, _colour(clip, seen))
    for seen in clip.sightings[index]:
        if seen.box_visible is not None:
            _draw_box(canvas, clip, seen, scale)
    return canvas


def _draw_box(canvas: Pixels, clip: Clip, seen: Sighting, scale: float) -> None:
    assert seen.box_visible is not None
    colour, thickness = _colour(clip, seen), max(1, round(scale))
    x0, y0, x1, y1 = (round(value) for value in seen.box_visible)
    cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), colour, thickness)
    if seen.number_box is not None and seen.is_number_readable:
        nx0, ny0, nx1, ny1 = (round(value) for value in seen.number_box)
        cv2.rectangle(canvas, (nx0, ny0), (nx1 - 1, ny1 - 1), WHITE, max(1, thickness // 2))
    text = _tag(clip, seen)
    if text:
        sprite = pill_sprite(text, max(9, round(0.8 * _TEXT_PX * scale)), colour, 0.85)
        x = round((x0 + x1 - sprite.shape[1]) / 2)
        paste(canvas, sprite, x, y0 - sprite.shape[0] - thickness)


def _colour(clip: Clip, seen: Sighting) -> Colour:
    person = clip.people.get(seen.object_id)
    if person is not None and person.team in _TEAM_COLOURS:
        return _TEAM_COLOURS[person.team]
    return _KIND_COLOURS.get(seen.kind, _OTHER_COLOUR)


def _tag(clip: Clip, seen: Sighting) -> str:
    """Return the shirt number if it is known, with the role, and the id of tracked objects."""
    person = clip.people.get(seen.object_id)
    number = "" if person is None or person.jersey_number is None else f"#{person.jersey_number}"
    track = str(seen.object_id) if clip.is_tracked and not seen.is_ball else ""
    return " · ".join(part for part in (_TAGS.get(seen.kind, ""), number, track) if part)
