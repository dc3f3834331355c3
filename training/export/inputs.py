"""Inputs to hold two models against each other on, cut from real pictures."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.contracts import JERSEY_CROP
from orchestrator.imaging import crops, square_tiles
from orchestrator.types.pictures import Pixels
from training.data.pictures import IMAGE_SUFFIXES, ImageFiles, VideoFile, images_in
from training.errors import InputError

_WINDOW_SHARE = 0.13
"""Height of a person-sized window as a share of a frame's height."""
_LEAST_HEIGHT = 32
"""Of a frame, in pixels, for its windows to show anything."""


def read_pictures(path: Path, count: int) -> list[Pixels]:
    """Read up to `count` pictures, spread evenly over what there is.

    Args:
        path: A picture, a folder of pictures, or a video.
        count: Most pictures to return, 1 or more.

    Raises:
        InputError: There is no such file, or it holds no picture, or `count` is below 1.
    """
    if count < 1:
        raise InputError(f"--count: expected 1 or more, got {count}")
    source: ImageFiles | VideoFile
    if path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES:
        source = ImageFiles(images_in(path) if path.is_dir() else (path,))
        total = len(source.paths)
    else:
        source = VideoFile(path)
        total = source.probe().frame_count
    places = np.linspace(0, total - 1, min(count, total)).round().astype(int)
    pictures = list(source.frames(places.tolist()))
    if not pictures:
        raise InputError(f"{path}: expected pictures ({', '.join(IMAGE_SUFFIXES)}) or a video")
    return pictures


def detector_inputs(pictures: list[Pixels], side: int) -> NDArray[np.uint8]:
    """Cut pictures into the detector's squares, as many as are as wide as high.

    Returns:
        uint8 `(n, side, side, 3)`, one or more of each picture.
    """
    squares = []
    for picture in pictures:
        height, width = picture.shape[:2]
        columns = max(1, round(max(height, width) / min(height, width)))
        squares.append(square_tiles(picture, columns, side)[0])
    return np.concatenate(squares)


def jersey_inputs(pictures: list[Pixels], per_picture: int = 12) -> NDArray[np.uint8]:
    """Return crops as the jersey network takes them, uint8 `(n, 128, 64, 3)`.

    A picture higher than wide, or a few pixels high, is taken for a crop of a person. Of any other,
    the person-sized windows with most contrast are cut out, which leaves out plain grass.
    """
    batches = []
    for picture in pictures:
        height, width = picture.shape[:2]
        if height > width or height < _LEAST_HEIGHT:
            boxes = np.array([[0, 0, width, height]], np.float32)
        else:
            boxes = _busiest_windows(picture, per_picture)
        batches.append(crops(picture, boxes, *JERSEY_CROP))
    return np.concatenate(batches)


def _busiest_windows(picture: Pixels, count: int) -> NDArray[np.float32]:
    height = round(_WINDOW_SHARE * picture.shape[0])
    width = height // 2
    corners = [
        (x, y)
        for y in range(0, picture.shape[0] - height + 1, height // 2)
        for x in range(0, picture.shape[1] - width + 1, width // 2)
    ]
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    contrast = [grey[y : y + height, x : x + width].std() for x, y in corners]
    best = np.argsort(contrast, kind="stable")[::-1][:count]
    return np.array(
        [(x, y, x + width, y + height) for x, y in (corners[i] for i in best)], np.float32
    )
