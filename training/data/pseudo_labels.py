"""Pseudo-labels: people in unlabelled pictures, by a detector that others trained on real ones.

The stand-in is any YOLOX exported by its own `tools/export_onnx.py`: COCO classes, undecoded
outputs. It sees the picture in small overlapping windows, since far players are a few pixels high.
It labels and it judges; it is never served.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.types.pictures import Boxes, Pixels
from training.data.clips import Clip, Sighting
from training.data.pictures import VideoFile
from training.errors import InputError
from training.onnx_file import open_onnx

_STRIDES = (8, 16, 32)
_PERSON = 0
"""COCO's class of people in YOLOX's order."""
_COLUMNS = 85
"""Box, objectness, and COCO's 80 classes."""
_SIDES = (288, 512)
"""Sides of the windows in pixels: the small ones for far people, the large ones for near ones."""
_OVERLAP = 0.35
_EDGE_PX = 2
_SAME_IOU = 0.5


class StandIn:
    """A YOLOX detector of people.

    Args:
        path: ONNX file.

    Raises:
        InputError: The file is missing or not of this layout.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise InputError(f"{path}: expected the ONNX file of a YOLOX detector")
        self._session = open_onnx(path)
        images = self._session.get_inputs()[0]
        side = images.shape[-1]
        if not isinstance(side, int) or images.shape != [1, 3, side, side]:
            raise InputError(f"{path}: expected an input [1, 3, R, R], got {images.shape}")
        self._input, self._size = images.name, side
        self._cells, self._cell_strides = _grid(side)
        found, wanted = self._session.get_outputs()[0].shape, [1, len(self._cells), _COLUMNS]
        if found != wanted:
            raise InputError(f"{path}: expected YOLOX's output {wanted}, got {found}")

    def people(self, picture: Pixels, least_score: float = 0.4) -> Boxes:
        """Return the boxes of people, xyxy float32 `(n, 4)` in pixels of the picture.

        Args:
            picture: RGB uint8 `(height, width, 3)`.
            least_score: Objectness times class probability, in `[0, 1]`.
        """
        found = [
            self._window(picture, corner, side, least_score)
            for side in sorted({min(side, *picture.shape[:2]) for side in _SIDES})
            for corner in _corners(picture.shape[1], picture.shape[0], side)
        ]
        boxes = np.concatenate([boxes for boxes, _ in found])
        scores = np.concatenate([scores for _, scores in found])
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        kept = cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), least_score, _SAME_IOU)
        return np.asarray(boxes[np.array(kept, np.int64).reshape(-1)], np.float32)

    def _window(
        self, picture: Pixels, corner: tuple[int, int], side: int, least_score: float
    ) -> tuple[Boxes, NDArray[np.float32]]:
        """Detect in one square; who is cut by its border is left to the next window."""
        x, y = corner
        square = cv2.resize(picture[y : y + side, x : x + side], (self._size, self._size))
        # Source: YOLOX 0.3, data_augment.py, preproc: BGR, 0 to 255, no normalisation.
        planes = square[..., ::-1].transpose(2, 0, 1)[np.newaxis].astype(np.float32)
        (raw,) = self._session.run(None, {self._input: planes})
        scores = raw[0, :, 4] * raw[0, :, 5 + _PERSON]
        is_sure = scores >= least_score
        # Source: YOLOX 0.3, demo_utils.py, demo_postprocess.
        strides = self._cell_strides[is_sure, np.newaxis]
        centres = (raw[0, is_sure, :2] + self._cells[is_sure]) * strides
        halves = np.exp(raw[0, is_sure, 2:4]) * strides / 2
        boxes = np.concatenate([centres - halves, centres + halves], axis=1)
        boxes = boxes * (side / self._size) + np.array([x, y, x, y])
        height, width = picture.shape[:2]
        low = np.array([x, y]) + _EDGE_PX * np.array([x > 0, y > 0])
        high = np.array([x, y]) + side - _EDGE_PX * np.array([x + side < width, y + side < height])
        is_whole = (boxes[:, :2] >= low).all(axis=1) & (boxes[:, 2:] <= high).all(axis=1)
        return boxes[is_whole].astype(np.float32), scores[is_sure][is_whole]


def label(video: Path, stand_in: StandIn, *, every: int, frames: int | None) -> Clip:
    """Return a video with the people that the stand-in finds in every so many frames.

    Args:
        video: The video file.
        stand_in: The detector.
        every: Label frames 0, `every`, 2 * `every`, ...; the others stay empty.
        frames: Use only so many frames from the start; None for all.

    Raises:
        InputError: The video cannot be read, or an option is below 1.
    """
    for name, value in (("every", every), ("frames", frames)):
        if value is not None and value < 1:
            raise InputError(f"--{name}: expected 1 or more, got {value}")
    pictures = VideoFile(video)
    facts = pictures.probe()
    # Not the number of packets, of which interlaced and truncated files have more than pictures.
    shown = itertools.islice(pictures.frames(), frames)
    sightings = tuple(
        _people(stand_in, picture) if index % every == 0 else ()
        for index, picture in enumerate(shown)
    )
    return Clip(
        name=video.stem,
        width=facts.width,
        height=facts.height,
        frame_rate=facts.frame_rate,
        people={},
        sightings=sightings,
        pictures=pictures,
        is_tracked=False,
        source=video.stem,
    )


def _people(stand_in: StandIn, picture: Pixels) -> tuple[Sighting, ...]:
    boxes = stand_in.people(picture).tolist()
    return tuple(
        Sighting(number, "person", (x0, y0, x1, y1), (x0, y0, x1, y1))
        for number, (x0, y0, x1, y1) in enumerate(boxes)
    )


def _grid(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return column and row of every output cell, `(n, 2)`, and its stride in pixels, `(n,)`."""
    cells, strides = [], []
    for stride in _STRIDES:
        count = size // stride
        rows, columns = np.mgrid[:count, :count]
        cells.append(np.stack([columns, rows], axis=-1).reshape(-1, 2))
        strides.append(np.full(count * count, stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _corners(width: int, height: int, side: int) -> Iterator[tuple[int, int]]:
    step = (1 - _OVERLAP) * side
    columns = np.linspace(0, width - side, max(1, int(np.ceil((width - side) / step)) + 1))
    rows = np.linspace(0, height - side, max(1, int(np.ceil((height - side) / step)) + 1))
    for y in rows.round().astype(int):
        for x in columns.round().astype(int):
            yield int(x), int(y)
