"""Video files on the client's side: what the API wants of them, and their pictures for drawing.

A file's frames are those that a player shows, numbered in presentation order from 0.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice, pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from av import Packet, VideoFrame
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from orchestrator.errors import VideoFileError
from orchestrator.types.frames import EncodedFrame, Encoding, FrameHeader
from orchestrator.types.pictures import Pixels

JPEG_QUALITY = 95

# Enough decoded frames to see whether timestamps follow presentation: the deepest reordering is 16.
_SAMPLE = 32

_SENT_AS_STORED = {"h264": Encoding.H264, "hevc": Encoding.HEVC}

# dump_extra puts the parameter sets in front of key frames that are no IDR pictures, too.
_TO_ANNEX_B = {
    Encoding.H264: "h264_mp4toannexb,dump_extra",
    Encoding.HEVC: "hevc_mp4toannexb,dump_extra",
}


@dataclass(frozen=True, slots=True)
class VideoFile:
    """What is known of a video file without decoding it all.

    Attributes:
        codec: FFmpeg's name of the codec inside.
        encoding: How `access_units` sends it: as stored, or as JPEG.
        width: Width in pixels before rotation.
        height: Height in pixels before rotation.
        frame_rate: Mean frames per second.
        time_base: Seconds per unit of pts.
        rotation_degrees: Clockwise rotation that shows it upright: 0, 90, 180 or 270.
        presentation: The pts of every frame, ascending, where they tell the frames apart; else
            empty, and frames are numbered as they are decoded.
    """

    path: Path
    codec: str
    encoding: Encoding
    width: int
    height: int
    frame_rate: float
    time_base: Fraction
    rotation_degrees: int
    presentation: tuple[int, ...]


def probe(path: Path) -> VideoFile:
    """Examine a video file: decodes its first frames and lists all its packets.

    H.264 and HEVC are sent as stored. All else is sent as JPEG, and so are files whose packets do
    not match their shown frames one to one: an edit list hides some, or timestamps are missing,
    repeated or, as in AVI, those of decoding.

    Raises:
        VideoFileError: It is missing, unreadable, not a video, without a video track, or of a codec
            that cannot be decoded here.
    """
    with _open(path) as (container, stream):
        pictures = islice(_decode(container, stream), _SAMPLE)
        first = next(pictures, None)
        if first is None:
            raise VideoFileError(f"{path}: no frame of its video track can be decoded")
        is_timed = _is_ascending(picture.pts for picture in chain([first], pictures))
        codec = stream.codec_context.name
        rate = stream.average_rate or stream.guessed_rate
        time_base = stream.time_base
    presentation = _presentation(path) if is_timed and codec in _SENT_AS_STORED else ()
    return VideoFile(
        path=path,
        codec=codec,
        encoding=_SENT_AS_STORED[codec] if presentation else Encoding.JPEG,
        width=first.width,
        height=first.height,
        frame_rate=float(rate) if rate else 25.0,
        time_base=time_base or Fraction(1, 1000),
        rotation_degrees=round(-first.rotation / 90) * 90 % 360,  # FFmpeg's is counterclockwise
        presentation=presentation,
    )


def access_units(video: VideoFile) -> Iterator[EncodedFrame]:
    """Yield what to send, in decoding order: Annex B access units as stored, or JPEG files.

    Parameter sets are in band from the first unit on. Units that the file holds only in part are
    yielded as they are, for the server to declare them lost.

    Raises:
        VideoFileError: The file cannot be opened any more.
    """
    with _open(video.path) as (container, stream):
        if video.encoding is Encoding.JPEG:
            for index, picture in enumerate(_decode(container, stream)):
                yield EncodedFrame(FrameHeader(index, picture.pts), _to_jpeg(picture))
            return
        annex_b = BitStreamFilterContext(_TO_ANNEX_B[video.encoding], stream)
        for packet in _demux(container, stream):
            if packet.pts is not None:
                header = FrameHeader(bisect_left(video.presentation, packet.pts), packet.pts)
                yield EncodedFrame(header, _filter(annex_b, packet))


def frames(video: VideoFile) -> Iterator[tuple[int, Pixels]]:
    """Yield `(frame_index, pixels)` in presentation order, upright.

    Indices equal those of `access_units`; frames that cannot be decoded are left out.

    Raises:
        VideoFileError: The file cannot be opened any more.
    """
    index_by_pts: dict[int | None, int] = {
        pts: index for index, pts in enumerate(video.presentation)
    }
    reformatter = VideoReformatter()
    with _open(video.path) as (container, stream):
        for position, picture in enumerate(_decode(container, stream)):
            index = index_by_pts.get(picture.pts) if index_by_pts else position
            if index is not None:
                pixels = reformatter.reformat(picture, format="rgb24").to_ndarray()
                upright = np.rot90(pixels, -(video.rotation_degrees // 90))
                yield index, np.ascontiguousarray(upright, np.uint8)


@contextmanager
def _open(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        # The prefix keeps names such as "match:1.mp4" from being read as a protocol.
        container = av.open(f"file:{path}")
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise VideoFileError(f"{path}: expected a video file: {reason}") from error
    with container:
        yield container, _video_track(container, path)


def _video_track(container: InputContainer, path: Path) -> VideoStream:
    # Cover art of audio files also counts as video for FFmpeg.
    tracks = [t for t in container.streams.video if not t.disposition & Disposition.attached_pic]
    if not tracks:
        raise VideoFileError(f"{path}: has no video track")
    if tracks[0].codec_context is None:
        raise VideoFileError(f"{path}: the codec of its video track is not supported")
    return tracks[0]


def _demux(container: InputContainer, stream: VideoStream) -> Iterator["Packet[VideoStream]"]:
    """Yield the packets up to where the file ends or cannot be read on."""
    with suppress(av.FFmpegError):
        yield from (packet for packet in container.demux(stream) if packet.size)


def _is_ascending(timestamps: Iterable[int | None]) -> bool:
    return all(
        earlier is not None and later is not None and earlier < later
        for earlier, later in pairwise(timestamps)
    )


def _presentation(path: Path) -> tuple[int, ...]:
    with _open(path) as (container, stream):
        packets = [(packet.pts, packet.is_discard) for packet in _demux(container, stream)]
    timestamps = sorted({pts for pts, is_hidden in packets if pts is not None and not is_hidden})
    return tuple(timestamps) if len(timestamps) == len(packets) else ()


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Yield the pictures that can be decoded, in presentation order."""
    for packet in _demux(container, stream):
        with suppress(av.FFmpegError):
            yield from packet.decode()
    with suppress(av.FFmpegError):
        yield from stream.decode(None)


def _filter(annex_b: BitStreamFilterContext, packet: "Packet[VideoStream]") -> bytes:
    stored = bytes(packet)
    try:
        return b"".join(bytes(part) for part in annex_b.filter(packet)) or stored
    except av.FFmpegError:
        annex_b.flush()
        return stored


def _to_jpeg(picture: VideoFrame) -> bytes:
    options = (
        cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    )  # fmt: skip
    _, data = cv2.imencode(".jpg", picture.to_ndarray(format="bgr24"), options)
    return data.tobytes()
