"""Access units of H.264 and HEVC to pictures, in presentation order and with every unit accounted.

A unit goes in under its arrival number as packet pts; the picture that comes out under that number
is its picture. Units that never produce one are found by order: once a picture is out, no unit that
should be shown before it can follow.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.codec.context import ThreadType
from av.video.reformatter import VideoReformatter

from orchestrator.errors import DecodeError
from orchestrator.h264_gaps import FrameNumbers
from orchestrator.picture_decoding import check_size
from orchestrator.types.frames import (
    EncodedFrame,
    Encoding,
    Frame,
    FrameHeader,
    GapReason,
    LostFrame,
)
from orchestrator.types.pictures import Pixels

MAX_HELD_FRAMES = 16
"""Most units kept back for reordering: the largest picture buffer of either standard."""

USUAL_REORDER_FRAMES = 4
"""How long a known loss waits for earlier pictures where frame indices do not tell the order."""

_KEY_FRAME = "a key frame"
_MISSING = f"{_KEY_FRAME}: an access unit that others refer to is missing"
_DAMAGED = f"{_KEY_FRAME}: an access unit that others refer to is damaged"
_BEFORE_ALL = (0, -(1 << 63))
_AFTER_ALL = (1 << 63, 0)
_CODEC_ERRORS = (av.FFmpegError, ValueError, MemoryError)


@dataclass(slots=True)
class _Unit:
    """An access unit whose fate is open; `problem` says why it is lost, once that is known."""

    header: FrameHeader
    key: tuple[int, int]
    """Random access points so far, then pts or index: sorts by presentation, even where a clock
    wraps or starts anew."""
    is_reference: bool
    """Whether other pictures may be made from its own."""
    problem: str = ""


class AccessUnitDecoder:
    """Decodes one stream; not thread-safe.

    Untagged video is read as BT.601, limited range, as FFmpeg does. 8 and 10 bits, 4:2:0 to 4:4:4.
    """

    def __init__(self, encoding: Encoding, *, max_pixels: int) -> None:
        self._encoding = encoding
        self._max_pixels = max_pixels
        self._codec = _open_codec(encoding, max_pixels)
        self._reformatter = VideoReformatter()
        self._frame_numbers = FrameNumbers() if encoding is Encoding.H264 else None
        self._awaited = _KEY_FRAME
        self._units: dict[int, _Unit] = {}
        self._arrivals = 0
        self._access_points = 0
        self._access_key = _BEFORE_ALL
        """Place of the last random access point."""
        self._trusted_from = _BEFORE_ALL
        """Whoever comes and is shown before this place may be made from a damaged picture."""
        self._shown_key = _BEFORE_ALL
        self._next_index = 0

    def decode(self, encoded: EncodedFrame) -> list[Frame | LostFrame]:
        """Take one access unit and return what is decided by now, in presentation order.

        Every unit given comes back exactly once, here or from a later call; at most
        `MAX_HELD_FRAMES` are held back.
        """
        self._arrivals += 1
        nals = _split(encoded.data)
        if self._is_gap_before(nals):
            self._awaited = _MISSING
        is_access_point = _is_access_point(nals, self._encoding)
        earlier = self._begin() if is_access_point else []
        unit = self._units[self._arrivals] = self._judge(encoded.header, nals)
        if is_access_point:
            self._access_key = unit.key
        pictures = self._feed(unit, encoded.data) if nals else []
        return [*earlier, *self._show(pictures), *self._settle()]

    def flush(self) -> list[Frame | LostFrame]:
        """Return all that is held back; a unit that follows must be a key frame."""
        try:
            pictures = self._codec.decode(None)
        except _CODEC_ERRORS:
            pictures = []
        self._codec.flush_buffers()
        drained = [*self._show(pictures), *(self._lose(arrival) for arrival in self._in_order())]
        self._awaited = _KEY_FRAME
        self._access_points = 0
        self._access_key = self._trusted_from = self._shown_key = _BEFORE_ALL
        return drained

    def close(self) -> None:
        """Free the codec; nothing may be called afterwards."""
        del self._codec

    def _is_gap_before(self, nals: list[bytes]) -> bool:
        # The decoder of HEVC tells by itself.
        return self._frame_numbers is not None and self._frame_numbers.is_gap_before(nals)

    def _begin(self) -> list[Frame | LostFrame]:
        """Pass an access point; return what was held back, if the stream has to start from here.

        The codec then knows which pictures after it still refer to what was before.
        """
        held = self.flush() if self._awaited else []
        self._awaited = ""
        self._access_points += 1
        return held

    def _judge(self, header: FrameHeader, nals: list[bytes]) -> _Unit:
        order = header.frame_index if header.pts is None else header.pts
        key = (self._access_points, order)
        unit = _Unit(header, key, _is_reference(nals, self._encoding))
        if not nals:
            unit.problem = f"expected {self._encoding.name} in Annex B form, found no start code"
        elif self._awaited:
            unit.problem = f"waiting for {self._awaited}"
        elif unit.key < self._shown_key:
            unit.problem = "its place is before a frame that was already shown"
        elif unit.key < self._trusted_from:
            unit.problem = f"waiting for {_DAMAGED}"
        return unit

    def _feed(self, unit: _Unit, data: bytes) -> list[av.VideoFrame]:
        # A unit that is lost already goes in all the same: later ones may refer to it.
        packet = av.Packet(data)
        packet.pts = self._arrivals
        try:
            return self._codec.decode(packet)
        except _CODEC_ERRORS:
            unit.problem = unit.problem or (
                f"{self._encoding.name} access unit cannot be decoded, "
                f"or is far larger than {self._max_pixels} pixels"
            )
            self._distrust_after(self._arrivals)
            return []

    def _distrust_after(self, arrival: int) -> None:
        """Lose what may be made from a damaged picture: all up to the next random access point.

        What refers to it and is shown before it may be out by now, for a picture tells of its
        damage in its own turn.
        """
        damaged = self._units[arrival]
        if not damaged.is_reference:
            return
        end = self._access_key if damaged.key < self._access_key else _AFTER_ALL
        for later, unit in self._units.items():
            if later > arrival and unit.key < end:
                unit.problem = unit.problem or f"waiting for {_DAMAGED}"
        if end is _AFTER_ALL:
            self._awaited = self._awaited or _DAMAGED
        else:
            self._trusted_from = end

    def _show(self, pictures: Iterable[av.VideoFrame]) -> Iterator[Frame | LostFrame]:
        for picture in pictures:
            arrival = picture.pts
            if arrival not in self._units:
                continue  # it came too late and is declared lost
            unit = self._units[arrival]
            for earlier in self._in_order():
                if self._units[earlier].key < unit.key:
                    yield self._lose(earlier)
            self._shown_key = max(self._shown_key, unit.key)
            yield self._convert(arrival, picture)

    def _settle(self) -> Iterator[LostFrame]:
        """Give up units from the front: known losses in their turn, and whatever overflows."""
        for arrival in self._in_order():
            unit = self._units[arrival]
            is_turn = (
                unit.key < self._shown_key
                or unit.header.frame_index <= self._next_index
                or len(self._units) > USUAL_REORDER_FRAMES
            )
            if not (unit.problem and is_turn) and len(self._units) <= MAX_HELD_FRAMES:
                break
            yield self._lose(arrival)

    def _in_order(self) -> list[int]:
        return sorted(self._units, key=lambda arrival: self._units[arrival].key)

    def _release(self, arrival: int) -> _Unit:
        unit = self._units.pop(arrival)
        self._next_index = max(self._next_index, unit.header.frame_index + 1)
        return unit

    def _lose(self, arrival: int) -> LostFrame:
        unit = self._release(arrival)
        detail = unit.problem or f"no picture came out of this {self._encoding.name} access unit"
        return LostFrame(unit.header, GapReason.DECODE_ERROR, detail)

    def _convert(self, arrival: int, picture: av.VideoFrame) -> Frame | LostFrame:
        unit = self._units[arrival]
        if picture.is_corrupt:
            unit.problem = unit.problem or f"{self._encoding.name} access unit is damaged"
            self._distrust_after(arrival)
        if unit.problem:
            return self._lose(arrival)
        try:
            pixels = self._to_pixels(picture)
        except (DecodeError, *_CODEC_ERRORS) as error:
            unit.problem = str(error)
            return self._lose(arrival)
        return Frame(self._release(arrival).header, pixels)

    def _to_pixels(self, picture: av.VideoFrame) -> Pixels:
        check_size(picture.width, picture.height, max_pixels=self._max_pixels)
        rgb = self._reformatter.reformat(picture, format="rgb24", threads=1)
        return rgb.to_ndarray().astype(np.uint8, copy=False)


def is_random_access_point(unit: bytes, encoding: Encoding) -> bool:
    """Whether decoding can start at an access unit in Annex B form."""
    return _is_access_point(_split(unit), encoding)


def _open_codec(encoding: Encoding, max_pixels: int) -> av.VideoCodecContext:
    codec = av.CodecContext.create(encoding.name.lower(), "r")
    assert isinstance(codec, av.VideoCodecContext)
    codec.thread_type = ThreadType.SLICE  # frame threads would delay each picture
    codec.thread_count = 1  # the streams of a server are its parallelism
    # Stops a bomb before its buffers exist. FFmpeg counts padding too, so the exact limit is
    # applied to the picture.
    codec.options = {"max_pixels": str(2 * max_pixels)}
    codec.open()
    return codec


def _split(data: bytes) -> list[bytes]:
    """Split Annex B data into its NAL units, without start codes; empty if it has another form."""
    prefix, *nals = data.split(b"\x00\x00\x01")
    return [] if prefix.strip(b"\x00") else [nal for nal in nals if nal]


def _is_access_point(nals: list[bytes], encoding: Encoding) -> bool:
    """Whether decoding can start at a unit: IRAP; IDR or recovery point, by the standards' words.

    Source: ITU-T H.264 table 7-1 and H.265 table 7-1 (NAL unit types).
    """
    if encoding is Encoding.HEVC:
        return any(16 <= nal[0] >> 1 & 0x3F <= 23 for nal in nals)
    return any(
        nal[0] & 0x1F == 5 or (nal[0] & 0x1F == 6 and _has_recovery_point(nal[1:])) for nal in nals
    )


def _is_reference(nals: list[bytes], encoding: Encoding) -> bool:
    """Whether H.264 pictures may be made from a unit's; the decoder of HEVC tells by itself."""
    slices = [nal for nal in nals if nal[0] & 0x1F in (1, 2, 5)]
    return encoding is Encoding.H264 and any(nal[0] & 0x60 for nal in slices)


def _has_recovery_point(sei: bytes) -> bool:
    """Whether supplemental information holds a recovery point, as open groups of pictures do.

    Source: ITU-T H.264 7.3.2.3.1 (message types and sizes) and D.1.8 (type 6).
    """
    messages = sei.replace(b"\x00\x00\x03", b"\x00\x00")
    position = 0
    while position + 1 < len(messages):
        kind, position = _read_sei_number(messages, position)
        size, position = _read_sei_number(messages, position)
        if kind == 6:
            return True
        position += size
    return False


def _read_sei_number(data: bytes, position: int) -> tuple[int, int]:
    """Read a number written as bytes of 255 and a rest; returns it and the position after it."""
    end = position
    while end < len(data) - 1 and data[end] == 0xFF:
        end += 1
    return sum(data[position : end + 1]), end + 1
