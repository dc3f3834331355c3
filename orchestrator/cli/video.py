"""Video files on the client's side: what the API wants of them, and their pictures for drawing.

A file's frames are those that a player shows, numbered in presentation order from 0.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
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

_LONGEST_STEP_S = 60.0

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
        pixel_aspect: Width of a stored pixel over its height, where it is shown.
        time_base: Seconds per unit of pts.
        rotation_degrees: Clockwise rotation that shows it upright: 0, 90, 180 or 270.
        is_timed: Whether timestamps tell when frames are shown.
        presentation: The pts of every frame, ascending, where they tell the frames apart; else
            empty, and frames are numbered as they are decoded.
    """

    path: Path
    codec: str
    encoding: Encoding
    width: int
    height: int
    frame_rate: float
    pixel_aspect: Fraction
    time_base: Fraction
    rotation_degrees: int
    is_timed: bool
    presentation: tuple[int, ...]


def probe(path: Path) -> VideoFile:
    """Examine a video file: decodes its first frames and lists all its packets.

    H.264 and HEVC are sent as stored. All else is sent as JPEG, and so are files whose packets do
    not match their shown frames one to one: an edit list hides some, fields come one by one, or
    timestamps are missing, repeated, begun anew or, as in AVI, those of decoding.

    Raises:
        VideoFileError: It is missing, unreadable, not a video, without a video track, or of a codec
            that cannot be decoded here.
    """
    with _open(path) as (container, stream):
        pictures = islice(_decode(container, stream), _SAMPLE)
        first = next(pictures, None)
        if first is None:
            raise VideoFileError(f"{path}: no frame of its video track can be decoded")
        sample = [(picture.pts, picture.interlaced_frame) for picture in chain([first], pictures)]
        is_timed = _is_ascending(pts for pts, _ in sample)
        codec = stream.codec_context.name
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        time_base = stream.time_base or Fraction(1, 1000)
        pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
    presentation = _presentation(path) if is_timed and codec in _SENT_AS_STORED else ()
    if presentation and any(is_interlaced for _, is_interlaced in sample):
        share = _frames_per_packet([pts for pts, _ in sample if pts is not None], presentation)
        if share < 1:  # some packets are single fields, each with a timestamp of its own
            presentation, rate = (), rate * share
    return VideoFile(
        path=path,
        codec=codec,
        encoding=_SENT_AS_STORED[codec] if presentation else Encoding.JPEG,
        width=first.width,
        height=first.height,
        frame_rate=rate,
        pixel_aspect=pixel_aspect,
        time_base=time_base,
        rotation_degrees=round(-first.rotation / 90) * 90 % 360,  # FFmpeg's is counterclockwise
        is_timed=is_timed,
        presentation=presentation,
    )


class Clock:
    """Tells when the frames of a file are shown; give it their timestamps in that order.

    A timestamp that does not rise, or leaps by more than a minute, as where recordings were joined,
    tells nothing: its frame comes one mean frame after the one before.
    """

    def __init__(self, video: VideoFile) -> None:
        self._is_timed = video.is_timed
        self._time_base = video.time_base
        self._mean_step = 1 / video.frame_rate
        self._latest: int | None = None
        self._seconds: float | None = None

    def seconds(self, pts: int | None) -> float:
        """Return when the next frame is shown, in seconds since the first one was."""
        if self._seconds is None:
            self._seconds = 0.0
        else:
            self._seconds += self._step(pts)
        self._latest = pts
        return self._seconds

    def _step(self, pts: int | None) -> float:
        if self._is_timed and pts is not None and self._latest is not None:
            step = float((pts - self._latest) * self._time_base)
            if 0 < step <= _LONGEST_STEP_S:
                return step
        return self._mean_step


def access_units(video: VideoFile) -> Iterator[EncodedFrame]:
    """Yield what to send, in decoding order: Annex B access units as stored, or JPEG files.

    Parameter sets are in band from the first unit on. Units that the file holds only in part are
    yielded as they are, for the server to declare them lost; what the file has grown by since it
    was examined is left out.

    Raises:
        VideoFileError: The file cannot be opened any more.
    """
    with _open(video.path) as (container, stream):
        if video.encoding is Encoding.JPEG:
            for index, picture in enumerate(_decode(container, stream)):
                yield EncodedFrame(FrameHeader(index, picture.pts), _to_jpeg(picture))
            return
        annex_b = BitStreamFilterContext(_TO_ANNEX_B[video.encoding], stream)
        index_by_pts = _index_by_pts(video)
        for packet in _demux(container, stream):
            place = index_by_pts.get(packet.pts)
            if place is not None:
                yield EncodedFrame(FrameHeader(place, packet.pts), _filter(annex_b, packet))


def frames(video: VideoFile) -> Iterator[tuple[int, float, Pixels]]:
    """Yield `(frame_index, seconds, pixels)` in presentation order, upright.

    Indices equal those of `access_units`; frames that cannot be decoded are left out. Seconds count
    from the first frame on.

    Raises:
        VideoFileError: The file cannot be opened any more.
    """
    index_by_pts, clock = _index_by_pts(video), Clock(video)
    reformatter = VideoReformatter()
    with _open(video.path) as (container, stream):
        for position, picture in enumerate(_decode(container, stream)):
            index = index_by_pts.get(picture.pts) if index_by_pts else position
            if index is not None:
                pixels = reformatter.reformat(picture, format="rgb24").to_ndarray()
                upright = np.rot90(pixels, -(video.rotation_degrees // 90))
                yield index, clock.seconds(picture.pts), np.ascontiguousarray(upright, np.uint8)


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
        packets = [(p.pts, p.dts, p.is_discard) for p in _demux(container, stream)]
    timestamps = sorted({pts for pts, _, is_hidden in packets if pts is not None and not is_hidden})
    decoding = [dts for _, dts, _ in packets if dts is not None]
    is_begun_anew = any(later < earlier for earlier, later in pairwise(decoding))
    return tuple(timestamps) if len(timestamps) == len(packets) and not is_begun_anew else ()


def _frames_per_packet(shown: Sequence[int], presentation: Sequence[int]) -> float:
    """Return how many frames were shown per packet, from the first of `shown` to the last."""
    if len(shown) < 2:
        return 1.0
    steps = bisect_left(presentation, shown[-1]) - bisect_left(presentation, shown[0])
    return (len(shown) - 1) / steps


def _index_by_pts(video: VideoFile) -> dict[int | None, int]:
    return {pts: index for index, pts in enumerate(video.presentation)}


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
