"""How the camera moves from frame to frame, for tracks whose own motion cannot tell."""

import cv2
import numpy as np
from numpy.typing import NDArray

from orchestrator.types.pictures import AT_REST, Boxes, Pixels, Shift

_WIDTH = 480
"""Pictures are compared at this width: a fraction of a pixel's accuracy, at 2 ms a frame."""
_LEAST_HEIGHT = 2
"""A banner's picture is stretched to this, for corners are looked for at half the size."""
_MOST_CORNERS = 100
_LEAST_CORNERS = 12
"""Fewer cannot tell the camera's motion from people's."""
_CORNER_QUALITY = 0.003
_CORNER_DISTANCE_PX = 6
"""Corners, distances and margins are those of a picture of half the width: larger corners, found in
a quarter of the time, are followed more surely."""
_MARGIN_PX = 2.0
"""A corner this near to somebody who walks is drawn along."""
_INLIER_PX = 1.0
_MOVING_PX = 0.2
_LEAST_MOVING = 0.25
_AS_ONE = 0.5
"""Share of the moving corners that must move as one to be the scene."""
_LEAST_LIKENESS = 0.3
"""Below this share of corners found again the pictures do not match: a cut."""
_MOST_CHANGE = 0.35
"""No camera zooms or rolls more from frame to frame; a map that says so fits by chance."""
_LEAST_CONTRAST = 3.0
"""A picture with less between its greys shows nothing: a flash, or black between two shots."""
_STILL = AT_REST.affine


class CameraMotion:
    """Follows the camera of one stream: pan, tilt, zoom and roll, as one affine map per frame.

    Attributes:
        shift: Where the scene moved since the last frame that showed anything; at rest for the
            first frame, for one that shows nothing, and where two pictures do not match.
        likeness: Share of the scene's corners that moved as one, 0 to 1; 1 for the first frame and
            where there are none.
    """

    def __init__(self) -> None:
        self._previous: Pixels | None = None
        self.shift = AT_REST
        self.likeness = 1.0

    @property
    def goes_on(self) -> bool:
        """Whether the picture matches the last one at all."""
        return self.likeness >= _LEAST_LIKENESS

    def advance(self, pixels: Pixels, people: Boxes) -> None:
        """Take the next frame.

        Args:
            pixels: The picture.
            people: Who moves by themselves: boxes in the frame before, `(n, 4)`.
        """
        height, width = pixels.shape[:2]
        scale = min(1.0, _WIDTH / width)
        lines = max(_LEAST_HEIGHT, round(height * scale))
        small = _small(pixels, lines, round(width * scale))
        self.shift, self.likeness = AT_REST, 1.0
        if float(cv2.meanStdDev(small)[1].max()) < _LEAST_CONTRAST:
            return
        previous, self._previous = self._previous, small
        affine = _STILL
        if previous is not None and previous.shape == small.shape:
            affine, self.likeness = _motion(previous, self._previous, people * scale)
        if not self.goes_on:
            affine = _STILL
        in_source = affine.copy()
        in_source[:, 2] /= scale
        self.shift = Shift(in_source)


def _small(pixels: Pixels, height: int, width: int) -> Pixels:
    """Return the green of a picture, shrunken; of a large one not every pixel counts."""
    step = max(1, pixels.shape[1] // (2 * width))
    columns = pixels.shape[1] // step
    # Where `step` pixels count as one of many channels, one green of them is extracted at once.
    rows = pixels[step // 2 :: step, : columns * step].reshape(-1, columns, 3 * step)
    green = cv2.extractChannel(rows, 3 * (step // 2) + 1)
    return np.asarray(cv2.resize(green, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _motion(before: Pixels, after: Pixels, people: Boxes) -> tuple[NDArray[np.float32], float]:
    """Measure the affine map `(2, 3)` of the scene, and the share of corners that it explains."""
    corners = _corners(before, people)
    if len(corners) < _LEAST_CORNERS:
        return _STILL, 1.0
    followed, is_found, _ = cv2.calcOpticalFlowPyrLK(before, after, corners, np.empty_like(corners))
    found = is_found[:, 0] > 0
    start, end = corners[found], np.asarray(followed[found], np.float32)
    is_moving = np.abs(end - start).max(axis=1, initial=0.0) >= _MOVING_PX
    affine, share = _fit(start[is_moving], end[is_moving])
    # What is drawn over the picture rests while the scene moves, and may have more corners.
    if share < _AS_ONE or is_moving.sum() < _LEAST_MOVING * len(corners):
        affine, share = _fit(start, end)
    return affine, share * float(found.mean())


def _corners(picture: Pixels, people: Boxes) -> NDArray[np.float32]:
    """Find corners of the scene, float32 `(n, 2)`. Source: Shi and Tomasi 1994, as in OpenCV."""
    half = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    scene = np.full(half.shape, 255, np.uint8)
    margin = np.array((-_MARGIN_PX, -_MARGIN_PX, _MARGIN_PX, _MARGIN_PX))
    for x0, y0, x1, y1 in (people / 2 + margin).round().astype(int).clip(0).tolist():
        scene[y0:y1, x0:x1] = 0
    found = cv2.goodFeaturesToTrack(
        half, _MOST_CORNERS, _CORNER_QUALITY, _CORNER_DISTANCE_PX, mask=scene
    )
    corners = np.array([] if found is None else found, np.float32).reshape(-1, 2)  # type: ignore[redundant-expr]
    return 2 * corners + 0.5  # a pixel of the half picture is the middle of four


def _fit(start: NDArray[np.float32], end: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Fit an affine map to moved points by RANSAC; return it and the share of them that it fits."""
    if len(start) < _LEAST_CORNERS:
        return _STILL, 0.0
    affine, is_inlier = cv2.estimateAffine2D(start, end, ransacReprojThreshold=_INLIER_PX)
    if affine is None:
        return _STILL, 0.0
    is_likely = np.abs(affine - _STILL)[:, :2].max() <= _MOST_CHANGE
    share = float(is_inlier.mean())
    return (np.asarray(affine, np.float32), share) if is_likely else (_STILL, 0.0)
