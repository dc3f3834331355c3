"""Pictures of the simulated match: grass, one rectangle per person, and marks for the models."""

import functools

import cv2
import numpy as np
from touchline_sim.marks import CODE, SHIRT, STRIP_HEIGHT, Pixels, person_colour, write_number
from touchline_sim.record import load_record

_GRASS = (40, 120, 40)
_LINES = (235, 235, 235)
_BALL = (250, 250, 250)
_QUALITY = 92
_CROSSES = (12, 7)
"""Marks on the grass, so that the camera's motion can be measured: columns and rows."""


class MatchPictures:
    """Paints the match; each picture is encoded once and the match repeats after some hundred.

    Args:
        width: In pixels.
        height: In pixels.
    """

    def __init__(self, width: int = 640, height: int = 360) -> None:
        self.width = width
        self.height = height
        self._record = load_record()
        self._pitch = _pitch(width, height)

    @property
    def period(self) -> int:
        """Number of different pictures."""
        return self._record.period

    def jpeg(self, number: int) -> bytes:
        """Return frame `number`, 0 or more, as JPEG."""
        return self._encoded(number % self.period)

    def rgb(self, number: int) -> Pixels:
        """Return frame `number` as pixels."""
        pixels = self._pitch.copy()
        scene = self._record.scene(number)
        size = np.array([self.width, self.height] * 2)
        for person_id, box in zip(scene.person_ids.tolist(), scene.boxes, strict=True):
            _paint_person(pixels, person_id, self._record.people[person_id].shirt, box * size)
        if scene.ball is not None:
            x0, y0, x1, y1 = (scene.ball * size).round().astype(int)
            pixels[y0 : max(y1, y0 + 2), x0 : max(x1, x0 + 2)] = _BALL
        write_number(pixels, number % self.period)
        return pixels

    @functools.cache  # noqa: B019  lives as long as the process that plays the pictures
    def _encoded(self, number: int) -> bytes:
        bgr = cv2.cvtColor(self.rgb(number), cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def _pitch(width: int, height: int) -> Pixels:
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = _GRASS
    columns, rows = _CROSSES
    for x in np.linspace(0.03, 0.97, columns) * width:
        for y in np.linspace(2 * STRIP_HEIGHT, 0.97, rows) * height:
            cv2.drawMarker(pixels, (round(x), round(y)), _LINES, cv2.MARKER_CROSS, 6, 1)
    return pixels


def _paint_person(
    pixels: Pixels, person_id: int, shirt: tuple[int, int, int], box: np.ndarray
) -> None:
    """Paint shirt above code; the border lies midway between the rows that are read."""
    x0, y0, x1, y1 = box.round().astype(int)
    middle = round(y0 + (y1 - y0) * (SHIRT[1] + CODE[0]) / 2)
    pixels[y0:middle, x0:x1] = shirt
    pixels[middle:y1, x0:x1] = person_colour(person_id)
