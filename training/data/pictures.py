"""Pictures of a clip, decoded one by one when asked for: from a video or from image files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import av
import numpy as np
from PIL import Image

from orchestrator.types.pictures import Pixels
from training.data.files import natural_order
from training.errors import InputError

MAX_SIDE = 16384
"""Longest side of a picture in pixels; what is larger is refused before it is decoded."""
MAX_FRAMES = 400_000
"""Most frames of a clip: over two hours at 50 frames per second."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a video's container tells; `frame_rate` in frames per second."""

    width: int
    height: int
    frame_rate: float | None
    frame_count: int


@dataclass(frozen=True, slots=True)
class VideoFile:
    """The pictures of a video file."""

    path: Path

    def probe(self) -> VideoFacts:
        """Return size, rate and number of frames without decoding; frames are counted as packets.

        Raises:
            InputError: The file is missing or is no video.
        """
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                packets = sum(1 for packet in container.demux(stream) if packet.size)
                rate = stream.average_rate
                return VideoFacts(
                    stream.width, stream.height, float(rate) if rate else None, packets
                )
        except (av.FFmpegError, IndexError) as error:
            raise InputError(f"{self.path}: expected a video: {error}") from error

    def frames(self, indices: Iterable[int] | None = None) -> Iterator[Pixels]:
        """Yield all pictures, or those of the rising `indices`, RGB uint8 `(height, width, 3)`."""
        wanted = iter(count() if indices is None else indices)
        target = next(wanted, None)
        if target is None:
            return
        try:
            with av.open(str(self.path)) as container:
                for index, picture in enumerate(container.decode(video=0)):
                    if index == target:
                        yield np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)
                        target = next(wanted, None)
                        if target is None:
                            return
        except (av.FFmpegError, IndexError) as error:
            raise InputError(f"{self.path}: expected a video: {error}") from error


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """One image file per frame."""

    paths: tuple[Path, ...]

    def frames(self, indices: Iterable[int] | None = None) -> Iterator[Pixels]:
        """Yield all pictures, or those of the rising `indices`, RGB uint8 `(height, width, 3)`."""
        for index in range(len(self.paths)) if indices is None else indices:
            image_size(self.paths[index])
            try:
                with Image.open(self.paths[index]) as image:
                    yield np.array(image.convert("RGB"))
            except (OSError, SyntaxError) as error:
                raise InputError(f"{self.paths[index]}: expected an image: {error}") from error


def image_size(path: Path) -> tuple[int, int]:
    """Return `(width, height)` of an image file, from its header alone.

    Raises:
        InputError: The file is missing, is no image, or is larger than `MAX_SIDE`.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected this image file, found none") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: expected an image: {error}") from error
    if max(width, height) > MAX_SIDE:
        raise InputError(f"{path}: expected sides of at most {MAX_SIDE} px, got {width}x{height}")
    return width, height


def images_in(directory: Path) -> tuple[Path, ...]:
    """Return the image files of a folder, by name and number."""
    if not directory.is_dir():
        raise InputError(f"{directory}: expected a folder of pictures, found none")
    images = [p for p in directory.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    return tuple(sorted(images, key=lambda path: natural_order(path.name)))


def check_size(picture: Path, size: tuple[int, int]) -> None:
    """Hold a picture against the `(width, height)` of its clip's first.

    Raises:
        InputError: It is of another size, or no image.
    """
    found = image_size(picture)
    if found != size:
        raise InputError(f"{picture}: expected a picture of {size} as the first, got {found}")
