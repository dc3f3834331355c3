"""First step of the walk: a client's bytes become frames of one size, upright, in order.

Whatever the bytes are, every frame given comes back exactly once, as `Frame` or as `LostFrame`.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np

from orchestrator.decode_guard.nursery import NURSERY
from orchestrator.decode_guard.source import GuardedSource
from orchestrator.errors import DecodeError
from orchestrator.picture_decoding import (
    Allocate,
    check_size,
    decode_compressed,
    decode_raw,
    new_picture,
)
from orchestrator.settings import DecodeSettings
from orchestrator.types.frames import EncodedFrame, Encoding, Frame, GapReason, LostFrame
from orchestrator.types.pictures import Pixels
from orchestrator.types.streams import StreamConfig
from orchestrator.video_decoding import AccessUnitDecoder


class FrameSource(Protocol):
    """What the two kinds of stream, pictures and video, have in common."""

    def decode(self, encoded: EncodedFrame) -> list[Frame | LostFrame]:
        """Take one encoded frame and return those that are decided by now."""
        ...

    def flush(self) -> list[Frame | LostFrame]:
        """Return all that is held back."""
        ...

    def close(self) -> None:
        """Free what is held."""
        ...


class PictureDecoder:
    """Decodes streams whose frames stand alone: JPEG, PNG and raw RGB.

    Args:
        to_pixels: Decodes one frame's bytes, or raises `DecodeError`.
    """

    def __init__(self, to_pixels: Callable[[bytes], Pixels]) -> None:
        self._to_pixels = to_pixels

    def decode(self, encoded: EncodedFrame) -> list[Frame | LostFrame]:
        """Decode one picture; the list has exactly one entry."""
        try:
            return [Frame(encoded.header, self._to_pixels(encoded.data))]
        except DecodeError as error:
            return [LostFrame(encoded.header, GapReason.DECODE_ERROR, str(error))]

    def flush(self) -> list[Frame | LostFrame]:
        """Return nothing: pictures are never held back."""
        return []

    def close(self) -> None:
        """Do nothing: there is no codec."""


class Decoder:
    """Decodes one stream and holds it to one picture size; blocking and not thread-safe.

    Attributes:
        size: That size, width and height before rotation; None until it is known.
    """

    def __init__(
        self, config: StreamConfig, source: FrameSource, size: tuple[int, int] | None = None
    ) -> None:
        self._source = source
        self._quarter_turns = config.rotation_degrees // 90
        if config.width is not None and config.height is not None:
            size = config.width, config.height
        self.size = size

    def decode(self, encoded: EncodedFrame) -> list[Frame | LostFrame]:
        """Take one encoded frame and return what is decided by now, in presentation order.

        Video may be held back, up to `video_decoding.MAX_HELD_FRAMES`; pictures never are.

        Returns:
            Frames whose pixels are contiguous and upright, and losses with reason `DECODE_ERROR`,
            or `RESOLUTION_CHANGED` where the size before rotation is not that of the config, or
            else of the first good frame.
        """
        return [self._finish(outcome) for outcome in self._source.decode(encoded)]

    def flush(self) -> list[Frame | LostFrame]:
        """Return all that is held back; call it once the client has sent its last frame."""
        return [self._finish(outcome) for outcome in self._source.flush()]

    def close(self) -> None:
        """Free the codec; nothing may be called afterwards."""
        self._source.close()

    def _finish(self, outcome: Frame | LostFrame) -> Frame | LostFrame:
        if isinstance(outcome, LostFrame):
            return outcome
        size = (outcome.width, outcome.height)
        self.size = expected = self.size or size
        if size != expected:
            detail = f"expected {expected[0]}x{expected[1]}, got {size[0]}x{size[1]}"
            return LostFrame(outcome.header, GapReason.RESOLUTION_CHANGED, detail)
        upright = np.rot90(outcome.pixels, -self._quarter_turns)
        return Frame(outcome.header, np.ascontiguousarray(upright))


def prepare_decoding(settings: DecodeSettings) -> None:
    """Load ahead what the first frame of the first stream would have to wait for."""
    if settings.isolation == "process":
        NURSERY.prepare()


def open_decoder(
    config: StreamConfig,
    *,
    max_pixels: int,
    settings: DecodeSettings | None = None,
    size: tuple[int, int] | None = None,
) -> Decoder:
    """Open the decoder of one stream; cheap, as all that is dear waits for the first frame.

    Args:
        config: The stream's validated config.
        max_pixels: Largest picture, width x height; larger ones are lost before they cost memory.
        settings: Where to decode and what a frame may cost; None decodes here, without limits.
        size: Width and height before rotation that a config without them stands for, in pixels;
            None takes the first good frame's.
    """
    if config.encoding is Encoding.RGB24:  # nothing in it could do harm
        raw = partial(_view_raw, width=config.width, height=config.height, max_pixels=max_pixels)
        return Decoder(config, PictureDecoder(raw))
    if settings is None or settings.isolation == "thread":
        return Decoder(config, open_source(config.encoding, max_pixels=max_pixels), size)
    guarded = GuardedSource(
        config.encoding, max_pixels=max_pixels, settings=settings, nursery=NURSERY
    )
    return Decoder(config, guarded, size)


def open_source(
    encoding: Encoding, *, max_pixels: int, allocate: Allocate = new_picture
) -> FrameSource:
    """Open the codec of a compressed encoding.

    Args:
        encoding: Any but `RGB24`.
        max_pixels: Largest picture, width x height.
        allocate: Gives memory for pictures; what it gave last may be overwritten by the next.
    """
    if encoding.is_video:
        return AccessUnitDecoder(encoding, max_pixels=max_pixels)
    return PictureDecoder(
        partial(decode_compressed, encoding=encoding, max_pixels=max_pixels, allocate=allocate)
    )


def _view_raw(data: bytes, *, width: int | None, height: int | None, max_pixels: int) -> Pixels:
    if width is None or height is None:
        raise DecodeError("RGB24 needs the width and height of the stream's config")
    check_size(width, height, max_pixels=max_pixels)
    return decode_raw(data, width, height)
