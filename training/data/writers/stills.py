"""Frames of clips as JPEG files, named so that a reader finds the clip again."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2

from orchestrator.types.pictures import Pixels
from training.data.clips import KINDS, Clip


def kinds_in(clips: Iterable[Clip]) -> list[str]:
    """Return the kinds that are seen in the clips, in the order of `KINDS`."""
    seen = {s.kind for clip in clips for frame in clip.sightings for s in frame}
    return [kind for kind in KINDS if kind in seen]


def write_stills(clip: Clip, folder: Path, every: int) -> Iterator[tuple[int, Path]]:
    """Write every so many frames as `<clip>_<frame>.jpg`; yield index and file of each."""
    for index, picture in clip.every(every):
        file = folder / f"{clip.name}_{index:06d}.jpg"
        write_jpeg(picture, file)
        yield index, file


def write_jpeg(picture: Pixels, file: Path, quality: int = 95) -> None:
    """Write an RGB picture `(height, width, 3)` as a JPEG file.

    Raises:
        OSError: The file cannot be written, which OpenCV itself would not tell.
    """
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    ok, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    file.write_bytes(data.tobytes())
