"""A run on a video without truth, held against the people that a stand-in detector finds.

It says who was boxed and who was overlooked, not who is right: the stand-in errs, too. People off
the grass are left out, since nobody asks for the bench.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.imaging import iou, stacked
from orchestrator.stages.matching import match, near
from orchestrator.types.pictures import Boxes, Pixels
from training.data.pictures import VideoFile
from training.data.pseudo_labels import StandIn
from training.errors import InputError
from training.evaluation.runs import Frame, Run

VERSION = 1
BOXED_IOU = 0.3
"""Overlap from which a person counts as boxed; far people are a few pixels wide."""
MOSTLY = 0.8
"""Share of the looked-at frames in which a player ought to be boxed."""

_LEAST_SIGHTINGS = 5
_LINK_IOU = 0.1
_PATIENCE = 2
_GREEN = ((35, 40, 30), (90, 255, 255))
"""Hue, saturation and value of grass, as OpenCV counts them."""


@dataclass
class Walker:
    """One person of the stand-in, followed from look to look.

    Attributes:
        xyxy: Box at the last look, `(4,)`.
        is_boxed: For each look at which the person was found, whether the run boxed them.
        missed: Looks since.
    """

    xyxy: Boxes
    is_boxed: list[bool] = field(default_factory=list)
    missed: int = 0

    @property
    def share(self) -> float:
        """Share of the looks at which the person was boxed."""
        return float(np.mean(self.is_boxed))


def evaluate(run: Run, video: Path, stand_in: StandIn, every: int) -> dict[str, Any]:
    """Compare a run with the stand-in.

    Args:
        run: The run.
        video: Its video.
        stand_in: Finds the people to compare with.
        every: Look at every so many frames.

    Returns:
        `frames` looked at, and those `unanswered`, in which the run boxed nobody; `sightings` of
        the stand-in on grass, and `boxed`, the share of them that the run boxed (IoU of at least
        0.3); `players`, those found at five looks or more, and `players_mostly_boxed`, the share
        of them that is boxed at 80 % of these looks at least; `shares`, the share of looks boxed
        of each player, rising.

    Raises:
        InputError: The video cannot be read, or is not that of the run.
    """
    everybody: list[Walker] = []
    looks = unanswered = 0
    for frame, picture in _looks(run, video, every):
        people = stand_in.people(picture)
        people = people[_is_on_grass(picture, people)]
        _follow(everybody, people, iou(people, _boxes(frame)).max(axis=1, initial=0) >= BOXED_IOU)
        looks += 1
        unanswered += frame is None
    sightings = [is_boxed for walker in everybody for is_boxed in walker.is_boxed]
    players = [w for w in everybody if len(w.is_boxed) >= _LEAST_SIGHTINGS]
    return {
        "version": VERSION,
        "frames": looks,
        "unanswered": unanswered,
        "sightings": len(sightings),
        "boxed": float(np.mean(sightings)) if sightings else None,
        "players": len(players),
        "players_mostly_boxed": (
            float(np.mean([w.share >= MOSTLY for w in players])) if players else None
        ),
        "shares": sorted(round(w.share, 3) for w in players),
    }


def picture(run: Run, video: Path, stand_in: StandIn, index: int) -> Pixels:
    """Return a frame with the run's boxes in blue and those of the stand-in in yellow."""
    (pixels,) = VideoFile(video).frames([index])
    canvas = pixels.copy()
    for boxes, colour, grown in (
        (stand_in.people(pixels), (255, 220, 0), 4),
        (_boxes(run.frames[index]), (40, 90, 255), 0),
    ):
        for x0, y0, x1, y1 in boxes.round().astype(int).tolist():
            cv2.rectangle(canvas, (x0 - grown, y0 - grown), (x1 + grown, y1 + grown), colour, 2)
    return np.asarray(canvas, np.uint8)


def _looks(run: Run, video: Path, every: int) -> Iterator[tuple[Frame | None, Pixels]]:
    """Yield what the run says of every so many frames of the video, and the picture."""
    index = -every
    looks = zip(count(0, every), VideoFile(video).frames(count(0, every)), strict=False)
    for index, picture in looks:
        frame, (height, width, _) = run.frames.get(index), picture.shape
        if frame is not None and (frame.width, frame.height) != (width, height):
            raise InputError(
                f"{run.path}: frame_index {index}: {frame.width}x{frame.height} px, "
                f"but {video.name} is {width}x{height}"
            )
        yield frame, picture
    if max(run.frames) >= index + every:
        raise InputError(
            f"{run.path}: frame_index {max(run.frames)}: {video.name} ends before {index + every}"
        )


def _boxes(frame: Frame | None) -> Boxes:
    players = frame.players if frame else ()
    return stacked([player.box for player in players])


def _is_on_grass(picture: Pixels, people: Boxes) -> NDArray[np.bool_]:
    """Tell by the colour beside their feet who stands on the pitch, bool `(n,)`."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
    green = cv2.inRange(hsv, np.array(_GREEN[0]), np.array(_GREEN[1])) > 0
    height, width = green.shape
    is_on_grass = []
    for x0, y0, x1, y1 in people:
        reach = (x1 - x0) / 2
        left, right = int(max(x0 - reach, 0)), int(min(x1 + reach, width)) + 1
        low = int(np.clip(y1, 1, height - 1))
        below = green[max(low - 2, 0) : low + max(3, int((y1 - y0) / 10)), left:right]
        is_on_grass.append(bool(below.mean() > 0.5))
    return np.array(is_on_grass, np.bool_)


def _follow(everybody: list[Walker], people: Boxes, is_boxed: NDArray[np.bool_]) -> None:
    """Link the people of one look with those of earlier ones; the others are new."""
    walking = [walker for walker in everybody if walker.missed <= _PATIENCE]
    known = stacked([walker.xyxy for walker in walking])
    pairs = dict(match(iou(people, known), near(people, known), _LINK_IOU))
    for walker in walking:
        walker.missed += 1
    for row, box in enumerate(people):
        if row in pairs:
            walker = walking[pairs[row]]
        else:
            walker = Walker(box)
            everybody.append(walker)
        walker.xyxy, walker.missed = box, 0
        walker.is_boxed.append(bool(is_boxed[row]))
