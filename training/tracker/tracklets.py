"""Training tracklets for the window tracker, cut from the squares of `training.tracker.squares`.

Every visit to a square shows another crop, colour and crossing.
"""

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sam2_streaming.windows import COVER

from training.errors import InputError
from training.run.config import Frozen
from training.tracker import squares

MIN_MASK_PX = 20
"""A person with fewer mask pixels in a training window counts as out of sight."""

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)

_MAX_TRIES = 1000

Share = Annotated[float, Field(ge=0, le=1)]


class Difficulty(Frozen):
    """Shares of tracklets in `[0, 1]` that get each kind of trouble.

    Attributes:
        crowded: Start within one height of another person.
        slipping: The window drifts off the person, half of the time towards the nearest other
            one, so that the middle of the window no longer says who is wanted.
        crossed: Another person is painted walking across in front.
        interrupted: One frame shows another clip; the person is absent from it.
        augmented: Colours, zoom and offsets vary; without it only the fixed jitter remains.
    """

    crowded: Share = 0.6
    slipping: Share = 0.6
    crossed: Share = 0.3
    interrupted: Share = 0.4
    augmented: bool = True


class Tracklets:
    """Random tracklets from extracted squares.

    Args:
        directory: Output folder of `squares.extract`, of two clips or more.
        size: Side of the sampled windows in pixels.

    Raises:
        InputError: Fewer than two clips show somebody well.
    """

    def __init__(self, directory: Path, size: int) -> None:
        self._squares = np.load(directory / "squares.npy", mmap_mode="r")
        self._rows = np.load(directory / "rows.npy")
        self._size = size
        keys = zip(self._rows["clip"], self._rows["person"], self._rows["frame"], strict=True)
        self._index = {(int(c), int(p), int(f)): i for i, (c, p, f) in enumerate(keys)}
        self._starts = np.flatnonzero(self._rows["seen"] > 0.2)
        nearest = np.hypot(self._rows["toward_x"], self._rows["toward_y"])
        self._crowded = self._starts[nearest[self._starts] < 1.0]
        self._by_clip: dict[int, list[int]] = defaultdict(list)
        for start in self._starts:
            self._by_clip[int(self._rows["clip"][start])].append(int(start))
        if len(self._by_clip) < 2:
            raise InputError("expected people who are well seen in two clips or more")

    def batch(
        self, rng: np.random.Generator, tracklets: int, frames: int, difficulty: Difficulty
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Draw tracklets whose first frame shows the person well.

        Returns:
            Normalised pictures float32 `(frames, tracklets, 3, size, size)` and masks 0/1 float32
            `(frames, tracklets, size, size)`.
        """
        drawn = [self._draw(rng, frames, difficulty) for _ in range(tracklets)]
        pictures = np.stack([p for p, _ in drawn], axis=1)
        return pictures, np.stack([m for _, m in drawn], axis=1)

    def _draw(
        self, rng: np.random.Generator, frames: int, difficulty: Difficulty
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        indices = self._tracklet(rng, frames, difficulty.crowded)
        rows = self._rows[indices]
        views = _views(rng, rows, difficulty)
        windows = np.stack([self._cut(i, v) for i, v in zip(indices, views, strict=True)])
        if rng.random() < difficulty.crossed:
            self._cross(rng, windows, rows, views)
        if frames > 2 and rng.random() < difficulty.interrupted:
            windows[int(rng.integers(1, frames))] = self._stranger(rng, int(rows[0]["clip"]))
        pictures, masks = windows[..., :3] / np.float32(255), windows[..., 3] > 127
        if difficulty.augmented:
            pictures, masks = _recoloured(rng, pictures), masks
            if rng.random() < 0.5:
                pictures, masks = pictures[:, :, ::-1], masks[:, :, ::-1]
        normalised = ((pictures - MEAN) / STD).transpose(0, 3, 1, 2)
        return normalised.astype(np.float32), masks.astype(np.float32)

    def _tracklet(self, rng: np.random.Generator, frames: int, crowded: float) -> list[int]:
        """Indices of one person's squares: a start, a gap, then frames at an even stride."""
        for _ in range(_MAX_TRIES):
            wants_crowd = rng.random() < crowded and len(self._crowded) > 0
            pool = self._crowded if wants_crowd else self._starts
            row = self._rows[rng.choice(pool)]
            stride = int(rng.integers(1, 4))
            gap = stride if rng.random() < 0.7 else int(rng.integers(1, 16))
            offsets = [0, *(gap + stride * k for k in range(frames - 1))]
            clip, person, first = int(row["clip"]), int(row["person"]), int(row["frame"])
            found = [self._index.get((clip, person, first + k)) for k in offsets]
            indices = [i for i in found if i is not None]
            if len(indices) == frames:
                return indices
        raise InputError(f"expected clips in which people stay for the {frames} frames of a stage")

    def _cut(self, index: int, view: NDArray[np.float64]) -> NDArray[np.uint8]:
        """The window `view` (x0, y0, side in frame pixels) of a stored square, RGB and mask."""
        row = self._rows[index]
        stored = self._squares.shape[1] / row["side"]
        scale = view[2] / self._size * stored
        shift = (view[:2] - (row["x0"], row["y0"])) * stored
        mapping = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        square = np.asarray(self._squares[index])
        window = cv2.warpAffine(square, mapping, (self._size, self._size), flags=flags)
        return np.asarray(window, np.uint8)

    def _cross(
        self,
        rng: np.random.Generator,
        windows: NDArray[np.uint8],
        rows: NDArray[np.void],
        views: NDArray[np.float64],
    ) -> None:
        """Paint another person of the clip walking past in front, in place, from frame 1 on."""
        actor = int(rng.choice(self._by_clip[int(rows[0]["clip"])]))
        body = self._rows[actor]
        middle, speed = rng.uniform(1, len(rows)), rng.choice([-1, 1]) * rng.uniform(0.03, 0.3)
        size, rise = rng.uniform(0.9, 1.15), rng.normal(0, 0.06)
        for k in range(1, len(rows)):
            row, view = rows[k], views[k]
            scale = row["height"] * size / body["height"]
            offset = np.array([(k - middle) * speed, rise]) * row["height"]
            place = (view[:2] - (row["cx"], row["cy"]) - offset) / scale + (body["cx"], body["cy"])
            layer = self._cut(actor, np.array([*place, view[2] / scale]))
            alpha = layer[..., 3:] / np.float32(255)
            windows[k, ..., :3] = windows[k, ..., :3] * (1 - alpha) + layer[..., :3] * alpha
            windows[k, ..., 3] = windows[k, ..., 3] * (1 - alpha[..., 0])

    def _stranger(self, rng: np.random.Generator, clip: int) -> NDArray[np.uint8]:
        """A window of another clip with an empty mask."""
        clips = [c for c in self._by_clip if c != clip]
        index = int(rng.choice(self._by_clip[int(rng.choice(clips))]))
        window = self._cut(index, _views(rng, self._rows[[index]], Difficulty(slipping=0))[0])
        window[..., 3] = 0
        return window


def _views(
    rng: np.random.Generator, rows: NDArray[np.void], difficulty: Difficulty
) -> NDArray[np.float64]:
    """Windows of a tracklet, float64 `(n, 3)`: x0, y0, side in frame pixels.

    A window stays inside the stored square: a black border would betray where the person is.
    """
    zoom = COVER * (rng.uniform(0.84, 1.08) if difficulty.augmented else 1)
    breathing = rng.uniform(0.94, 1.06, len(rows)) if difficulty.augmented else np.ones(len(rows))
    heights = zoom * breathing
    limit = np.maximum((squares.COVER - heights) / 2 - 0.02, 0)[:, None]
    offsets = np.clip(_offsets(rng, rows, difficulty), -limit, limit)
    centres = np.stack([rows["cx"], rows["cy"]], axis=1) + offsets * rows["height"][:, None]
    sides = heights * rows["height"]
    return np.column_stack([centres - sides[:, None] / 2, sides])


def _offsets(
    rng: np.random.Generator, rows: NDArray[np.void], difficulty: Difficulty
) -> NDArray[np.float64]:
    """Window centre minus person, in heights: lag of a follower, jitter, and slips."""
    centres = np.stack([rows["cx"], rows["cy"]], axis=1).astype(float)
    lag = np.zeros_like(centres)
    lag[1:] = (centres[:-1] - centres[1:]) / rows["height"][1:, None]
    if difficulty.augmented:  # half of the time: as if the window followed speed too
        follows = rng.random(len(rows)) < 0.5
        lag *= np.where(follows, rng.uniform(0, 0.7, len(rows)), 1)[:, None]
    jitter = rng.normal(0, 0.08 if difficulty.augmented else 0.04, centres.shape)
    offsets: NDArray[np.float64] = lag + jitter
    return offsets + _slips(rng, rows) if rng.random() < difficulty.slipping else offsets


def _slips(rng: np.random.Generator, rows: NDArray[np.void]) -> NDArray[np.float64]:
    slip, slips, baited = np.zeros(2), np.zeros((len(rows), 2)), rng.random() < 0.5
    for k in range(1, len(rows)):
        toward = np.array([rows[k]["toward_x"], rows[k]["toward_y"]], float)
        near = baited and np.linalg.norm(toward) < 1.3
        slip = 0.7 * slip + (toward * rng.uniform(0.1, 0.4) if near else rng.normal(0, 0.2, 2))
        slips[k] = slip
    return slips


def _recoloured(rng: np.random.Generator, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """One random light, and at times other or no colours, for a whole tracklet in `[0, 1]`."""
    if rng.random() < 0.05:
        pictures = np.repeat(pictures.mean(-1, keepdims=True), 3, axis=-1)
    if rng.random() < 0.3:
        pictures = pictures[..., rng.permutation(3)]
    gain = rng.uniform(0.8, 1.2, 3) * rng.uniform(0.75, 1.25)
    return (pictures * gain + rng.uniform(-0.1, 0.1)).astype(np.float32)
