"""RecognitionClient: the typed async client that `touchline` and load tests use.

It honours the server's credits, and reconnects: frames that were sent but not answered are sent
again on the new stream. Track ids then start anew, and video resumes at its next key frame.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Self

import grpc
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

_MAX_MESSAGE_BYTES = 128 << 20
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
_RETRYABLE = {grpc.StatusCode.UNAVAILABLE}

log = logging.getLogger(__name__)


class RecognitionClient:
    """A connection to one orchestrator.

    Args:
        target: `host:port`.
        credentials: TLS credentials; None connects in the clear.
        max_reconnects: How often in a row a stream is opened again after the connection broke.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        max_reconnects: int = 5,
    ) -> None:
        options = [
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ]
        self._channel = (
            grpc.aio.secure_channel(target, credentials, options)
            if credentials
            else grpc.aio.insecure_channel(target, options)
        )
        self._stub = pb_grpc.PlayerRecognitionServiceStub(self._channel)
        self._max_reconnects = max_reconnects

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection; open streams are cancelled."""
        await self._channel.close()

    async def recognize_frame(
        self, request: pb.RecognizeFrameRequest, *, timeout_s: float = 30.0
    ) -> pb.RecognizeFrameResponse:
        """Recognise one image.

        Raises:
            grpc.aio.AioRpcError: The server refused or failed; the details say why.
        """
        response: pb.RecognizeFrameResponse
        response = await self._stub.RecognizeFrame(request, timeout=timeout_s)
        return response

    async def recognize_stream(
        self, config: pb.StreamConfig, frames: AsyncIterator[pb.Frame]
    ) -> AsyncIterator[pb.RecognizeStreamResponse]:
        """Recognise a stream.

        Args:
            config: How the stream is coded and what is wanted.
            frames: The frames; taken only as fast as the server grants credits.

        Yields:
            Every response but credit grants, in order. After a reconnection comes another
            `started`.

        Raises:
            grpc.aio.AioRpcError: The server refused the stream, or stayed away.
        """
        outbox = _Outbox(frames)
        try:
            async for response in self._attempts(config, outbox):
                yield response
        finally:
            outbox.close()

    async def _attempts(
        self, config: pb.StreamConfig, outbox: "_Outbox"
    ) -> AsyncIterator[pb.RecognizeStreamResponse]:
        failures = 0
        while True:
            try:
                async for response in self._attempt(config, outbox):
                    if not response.HasField("started"):
                        failures = 0
                    yield response
            except grpc.aio.AioRpcError as error:
                failures += 1
                if error.code() not in _RETRYABLE or failures > self._max_reconnects:
                    raise
                pause = min(_FIRST_PAUSE_S * 2 ** (failures - 1), _LONGEST_PAUSE_S)
                log.warning("connection lost (%s); again in %.1f s", error.details(), pause)
                await asyncio.sleep(pause)
            else:
                return

    async def _attempt(
        self, config: pb.StreamConfig, outbox: "_Outbox"
    ) -> AsyncIterator[pb.RecognizeStreamResponse]:
        call = self._stub.RecognizeStream()
        sending: asyncio.Task[None] | None = None
        try:
            await call.write(pb.RecognizeStreamRequest(config=config))
            async for response in call:
                if response.HasField("started"):
                    outbox.restart(response.started.credit_frame_count)
                    sending = asyncio.create_task(_send(call, outbox))
                outbox.note(response)
                if not response.HasField("credit_grant"):
                    yield response
            if sending is not None and sending.done():
                sending.result()  # an error of the frame source must not pass for a clean end
        finally:
            if sending is not None:
                sending.cancel()
            call.cancel()


class _Outbox:
    """Frames on their way: keeps each until it is answered, and counts credits."""

    def __init__(self, frames: AsyncIterator[pb.Frame]) -> None:
        self._frames = frames
        self._unanswered: OrderedDict[int, pb.Frame] = OrderedDict()
        self._resend: list[pb.Frame] = []
        self._credits = asyncio.Semaphore(0)
        self._pulling: asyncio.Future[pb.Frame | None] | None = None

    def restart(self, credits_: int) -> None:
        """Begin a stream: what is unanswered goes out first."""
        self._resend = list(self._unanswered.values())
        self._credits = asyncio.Semaphore(credits_)

    def note(self, response: pb.RecognizeStreamResponse) -> None:
        """Take note of credits and answers."""
        for _ in range(response.credit_grant.frame_count):
            self._credits.release()
        if response.HasField("recognition"):
            self._unanswered.pop(response.recognition.frame_index, None)
        if response.HasField("gap"):
            for index in range(response.gap.first_frame_index, response.gap.last_frame_index + 1):
                self._unanswered.pop(index, None)

    async def next(self) -> pb.Frame | None:
        """Wait for a credit and return the next frame; None after the last."""
        await self._credits.acquire()
        if self._resend:
            return self._resend.pop(0)
        if self._pulling is None:
            self._pulling = asyncio.ensure_future(anext(self._frames, None))
        # Shielded: when a stream breaks, the source must not be cancelled with it.
        frame = await asyncio.shield(self._pulling)
        self._pulling = None
        if frame is not None:
            self._unanswered[frame.frame_index] = frame
        return frame

    def close(self) -> None:
        """Stop waiting for the source."""
        if self._pulling is not None:
            self._pulling.cancel()


async def _send(
    call: "grpc.aio.StreamStreamCall[pb.RecognizeStreamRequest, pb.RecognizeStreamResponse]",
    outbox: _Outbox,
) -> None:
    try:
        while (frame := await outbox.next()) is not None:
            await call.write(pb.RecognizeStreamRequest(frame=frame))
        await call.done_writing()
    except asyncio.InvalidStateError:
        pass  # the call is over; its status tells why
    except grpc.aio.AioRpcError:
        pass  # likewise
    except BaseException:
        call.cancel()
        raise
