"""The recorded match that every simulated picture shows: who is where, frame by frame."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

RECORD = Path(__file__).with_name("record.json")
"""Source: the truth of `tests/data/demo_01.mp4`; a test proves them equal. Who shows
less than 6x12 of its 1280x720 pixels is out of sight."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody on the pitch.

    Attributes:
        person_id: 1 to 31, the same in all frames.
        role: `player`, `goalkeeper` or `referee`.
        number: Of the shirt; None for a referee.
        shirt: Its colour, RGB.
    """

    person_id: int
    role: str
    number: int | None
    shirt: tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One recorded frame; boxes are xyxy as shares of the picture's width and height.

    Attributes:
        person_ids: Who is in sight, int64 `(n,)`.
        boxes: Where, float32 `(n, 4)`.
        ball: float32 `(4,)`, or None while out of sight.
    """

    person_ids: NDArray[np.int64]
    boxes: NDArray[np.float32]
    ball: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Record:
    """A match of any length: the recording, played forth and back for ever.

    Attributes:
        people: By person id.
        scenes: The recorded frames.
    """

    people: dict[int, Person]
    scenes: tuple[Scene, ...]

    @property
    def period(self) -> int:
        """After so many frames the match begins anew."""
        return 2 * (len(self.scenes) - 1)

    def scene(self, number: int) -> Scene:
        """Return what frame `number`, 0 or more, of the match shows."""
        place = number % self.period
        return self.scenes[min(place, self.period - place)]


@functools.cache
def load_record() -> Record:
    """Read the recording; once per process."""
    stored = json.loads(RECORD.read_text())
    size = np.array([stored["width"], stored["height"]] * 2, np.float32)
    people = [Person(p["id"], p["role"], p["number"], tuple(p["shirt"])) for p in stored["people"]]
    scenes = [_scene(frame, size) for frame in stored["frames"]]
    return Record({person.person_id: person for person in people}, tuple(scenes))


def _scene(frame: dict[str, list[list[float]]], size: NDArray[np.float32]) -> Scene:
    seen = frame["people"]
    boxes = np.array([row[1:] for row in seen], np.float32).reshape(-1, 4) / size
    ball = np.array(frame["ball"], np.float32) / size if frame["ball"] else None
    return Scene(np.array([row[0] for row in seen], np.int64), boxes, ball)
