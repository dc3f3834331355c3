"""The response side of one stream: answers, credits, and what a client may have missed."""

import asyncio
import heapq
import itertools
import math
from collections import OrderedDict
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from soccer.v1 import player_recognition_pb2 as pb

from orchestrator.convert.responses import from_identity_update, from_lost_frame, from_recognition
from orchestrator.errors import ClientStalledError, ConnectionLostError
from orchestrator.flow import Outcome
from orchestrator.types.frames import FrameHeader, GapReason, LostFrame
from orchestrator.types.results import IdentityUpdate, Recognition
from orchestrator.types.streams import StreamConfig
from orchestrator.video_decoding import MAX_HELD_FRAMES

_GRANT_FRAMES = 4
"""Credits go back in small batches: fewer messages, and never more than this many held back."""

StreamContext = grpc.aio.ServicerContext[Any, pb.RecognizeStreamResponse]


class AnswerLog:
    """The last answers of a stream.

    A client whose connection broke may not have received them, and sends those frames again. It has
    at most its credit of frames without an answer, so as many answers are enough.

    Args:
        most: Frames whose answers are kept.

    Attributes:
        newest_index: The highest frame index answered so far; -1 for none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: OrderedDict[int, list[pb.RecognizeStreamResponse]] = OrderedDict()
        self.newest_index = -1

    def add(self, outcome: Outcome, response: pb.RecognizeStreamResponse) -> None:
        """Enter a response: of a new frame, or what goes with the frame answered last."""
        if isinstance(outcome, IdentityUpdate):
            self._answers[next(reversed(self._answers))].append(response)
            return
        if isinstance(outcome, LostFrame) and outcome.reason is GapReason.INVALID_FRAME:
            return  # its index may be anything, and it would be refused again
        index = outcome.header.frame_index
        self._answers[index] = [response]
        self.newest_index = max(self.newest_index, index)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def of(self, header: FrameHeader) -> list[pb.RecognizeStreamResponse]:
        """Return what a frame was answered by, or a gap if that is long ago."""
        answered = self._answers.get(header.frame_index)
        if answered is not None:
            return answered
        detail = "frame_index: answered before the stream was resumed"
        gap = from_lost_frame(LostFrame(header, GapReason.INVALID_FRAME, detail))
        return [pb.RecognizeStreamResponse(gap=gap)]

    def behind(self, index: float) -> list[pb.RecognizeStreamResponse]:
        """Return what was told behind the last answer before a frame."""
        before = max((known for known in self._answers if known < index), default=None)
        return [] if before is None else self._answers[before][1:]

    @property
    def size_bytes(self) -> int:
        """Memory held, roughly."""
        return sum(r.ByteSize() for responses in self._answers.values() for r in responses)


class Replies:
    """Answers one call; writes never overlap.

    Args:
        context: The call.
        config: The stream's config.
        log: The stream's answers; those in it are older than the call.
        credit: Frames that the client may have under way.
        stall_s: How long the client may leave an answer unread, in seconds.
    """

    def __init__(
        self,
        context: StreamContext,
        config: StreamConfig,
        log: AnswerLog,
        *,
        credit: int,
        stall_s: float,
    ) -> None:
        self._context = context
        self._config = config
        self._log = log
        self._resumed_index = log.newest_index
        self._has_caught_up = False
        self._grant_frames = min(_GRANT_FRAMES, credit // 2)
        self._stall_s = stall_s
        self._writing = asyncio.Lock()
        self._ungranted = 0
        self._most_held = MAX_HELD_FRAMES if config.encoding.is_video else 0
        self._held: list[tuple[int, int, FrameHeader]] = []
        """Frames answered before, as a heap: they are sent again in decoding order."""
        self._repeats = itertools.count()

    async def start(self, started: pb.StreamStarted) -> None:
        """Tell that the stream was accepted."""
        await self._write(pb.RecognizeStreamResponse(started=started))

    async def catch_up(self, index: float) -> None:
        """Before the first frame, tell what may have been cut off behind the last answer to arrive.

        A client that got an answer, and not the revisions behind it, does not send its frame again.

        Args:
            index: Of that first frame; infinite if there is none.
        """
        if not self._has_caught_up:
            self._has_caught_up = True
            await self._write(*self._log.behind(index))

    def is_repeated(self, header: FrameHeader) -> bool:
        """Whether a frame was answered by an earlier call of the stream."""
        return 0 <= header.frame_index <= self._resumed_index

    async def repeat(self, header: FrameHeader) -> None:
        """Answer such a frame as before, video in presentation order as ever."""
        heapq.heappush(self._held, (header.frame_index, next(self._repeats), header))
        await self._write(*self._repeated(self._most_held))
        await self._give_credit()

    async def send(self, outcome: Outcome) -> None:
        """Send an outcome; an answered frame gives a credit back.

        Raises:
            ClientStalledError: The client does not read.
        """
        response, repeated = self._response(outcome), self._repeated()
        # At once, for it is counted: were it lost on the way, it would be recognised once more.
        self._log.add(outcome, response)
        await self._write(*repeated, response)
        if not isinstance(outcome, IdentityUpdate):
            await self._give_credit()

    async def drain(self, remaining_s: float) -> None:
        """Warn that the server stops."""
        remaining = Duration()
        remaining.FromNanoseconds(int(remaining_s * 1e9))
        notice = pb.DrainNotice(remaining=remaining)
        await self._write(pb.RecognizeStreamResponse(drain_notice=notice))

    async def catch_up_all(self) -> None:
        """After the last frame that is read, tell what is still due of earlier answers."""
        await self.catch_up(math.inf)
        await self._write(*self._repeated())

    async def finish(self, summary: pb.StreamSummary) -> None:
        """Send the totals.

        A broken connection looks like the client's last frame at first; this tells the difference.
        """
        await self._write(pb.RecognizeStreamResponse(summary=summary))

    def _repeated(self, most: int = 0) -> list[pb.RecognizeStreamResponse]:
        """Return the answers of the earliest frames held, so that no more than `most` are left."""
        answers: list[pb.RecognizeStreamResponse] = []
        while len(self._held) > most:
            _, _, header = heapq.heappop(self._held)
            answers += self._log.of(header)
        return answers

    def _response(self, outcome: Outcome) -> pb.RecognizeStreamResponse:
        if isinstance(outcome, IdentityUpdate):
            update = from_identity_update(outcome)
            return pb.RecognizeStreamResponse(identity_update=update)
        if isinstance(outcome, Recognition):
            recognition = from_recognition(outcome, self._config)
            return pb.RecognizeStreamResponse(recognition=recognition)
        return pb.RecognizeStreamResponse(gap=from_lost_frame(outcome))

    async def _give_credit(self) -> None:
        self._ungranted += 1
        if self._ungranted >= self._grant_frames:
            grant = pb.CreditGrant(frame_count=self._ungranted)
            self._ungranted = 0
            await self._write(pb.RecognizeStreamResponse(credit_grant=grant))

    async def _write(self, *responses: pb.RecognizeStreamResponse) -> None:
        async with self._writing:
            for response in responses:
                await write(self._context, response, self._stall_s)


async def write(
    context: StreamContext, response: pb.RecognizeStreamResponse, stall_s: float
) -> None:
    """Send a response to the client of a call.

    Raises:
        ClientStalledError: It was not taken within `stall_s` seconds.
        ConnectionLostError: The client is gone.
    """
    try:
        async with asyncio.timeout(stall_s):
            await context.write(response)
    except TimeoutError as error:
        raise ClientStalledError(stall_s) from error
    except grpc.aio.BaseError as error:
        raise ConnectionLostError from error
