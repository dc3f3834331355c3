"""The client's frames on their way: kept until they are answered, and sent again where needed."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Collection

from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.types.frames import Encoding
from orchestrator.video_decoding import is_random_access_point

_VIDEO = {pb.FRAME_ENCODING_H264: Encoding.H264, pb.FRAME_ENCODING_HEVC: Encoding.HEVC}
_MOST_GROUP_BYTES = 64 << 20
"""Longer groups of pictures are not kept; a stream then goes on at its next key frame."""


class Outbox:
    """Frames of one stream over all its calls.

    Args:
        frames: The source.
        encoding: How they are coded.
    """

    def __init__(
        self, frames: AsyncIterator[pb.Frame], encoding: "pb.FrameEncoding.ValueType"
    ) -> None:
        self._frames = frames
        self._groups = _Groups(_VIDEO[encoding]) if encoding in _VIDEO else None
        self._unanswered: OrderedDict[int, pb.Frame] = OrderedDict()
        self._resend: deque[pb.Frame] = deque()
        self._repeated: set[int] = set()
        self._credits = asyncio.Semaphore(0)
        self._pulling: asyncio.Future[pb.Frame | None] | None = None

    def restart(self, started: pb.StreamStarted) -> None:
        """Begin a call: what is unanswered goes out first.

        Video that is resumed begins with its last key frame, so that the rest can be decoded.
        """
        self._credits = asyncio.Semaphore(started.credit_frame_count)
        lead = self._groups.frames() if self._groups and started.is_resumed else []
        led = {frame.frame_index for frame in lead}
        earlier = [f for index, f in self._unanswered.items() if index not in led]
        self._resend = deque([*earlier, *lead])
        self._repeated = led - self._unanswered.keys()

    def note(self, response: pb.RecognizeStreamResponse) -> bool:
        """Take note of credits and answers; return whether the response is news."""
        for _ in range(response.credit_grant.frame_count):
            self._credits.release()
        if response.HasField("recognition"):
            return self._is_news(response.recognition.frame_index)
        if response.HasField("gap"):
            indices = range(response.gap.first_frame_index, response.gap.last_frame_index + 1)
            return sum(self._is_news(index) for index in indices) > 0
        return not response.HasField("credit_grant")

    async def next(self) -> pb.Frame | None:
        """Wait for a credit and return the next frame; None after the last."""
        await self._credits.acquire()
        if self._resend:
            return self._resend.popleft()
        if self._pulling is None:
            self._pulling = asyncio.ensure_future(anext(self._frames, None))
        # Shielded: when a call breaks, the source must not be cancelled with it.
        frame = await asyncio.shield(self._pulling)
        self._pulling = None
        if frame is not None:
            if self._groups is not None:
                self._groups.add(frame, self._unanswered.keys())
            self._unanswered[frame.frame_index] = frame
        return frame

    def close(self) -> None:
        """Stop waiting for the source."""
        if self._pulling is not None:
            self._pulling.cancel()

    def _is_news(self, index: int) -> bool:
        self._unanswered.pop(index, None)
        return index not in self._repeated


class _Groups:
    """Access units from a key frame on: what it takes to decode any unit without an answer."""

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._groups: deque[list[pb.Frame]] = deque()
        self._bytes = 0

    def add(self, frame: pb.Frame, unanswered: Collection[int]) -> None:
        """Add the next unit; groups before it whose units are all answered are dropped."""
        if is_random_access_point(frame.data, self._encoding):
            while self._groups and not any(
                unit.frame_index in unanswered for unit in self._groups[0]
            ):
                self._bytes -= sum(len(unit.data) for unit in self._groups.popleft())
            self._groups.append([])
        if self._groups:
            self._groups[-1].append(frame)
            self._bytes += len(frame.data)
        if self._bytes > _MOST_GROUP_BYTES:
            self._groups.clear()
            self._bytes = 0

    def frames(self) -> list[pb.Frame]:
        """All units, in decoding order."""
        return [frame for group in self._groups for frame in group]
