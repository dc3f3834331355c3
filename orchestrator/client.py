"""RecognitionClient: the typed async client that `touchline` and load tests use.

It honours the server's credits, and reconnects: frames that were sent but not answered are sent
again. Shown its resume token, a server that kept the stream goes on with the same track ids; any
other starts anew, as `StreamStarted.is_resumed` says, with video from its next key frame on. One
that has no room is asked again, too, as long as it is about a stream that had a place before.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Self

import grpc
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.outbox import Outbox

_MAX_MESSAGE_BYTES = 128 << 20
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
BROKEN_WRITE = "Internal error from Core"
"""What gRPC says where a message could not be written; servers never say it, but it may take the
place of what they said: github.com/grpc/grpc/issues/36066."""
_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # A server that is gone without a word is noticed within half a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)

log = logging.getLogger(__name__)


class RecognitionClient:
    """A connection to one orchestrator.

    Args:
        target: `host:port`.
        credentials: TLS credentials; None connects in the clear.
        bearer: Returns our API key or token; asked for each call, so that a new one takes over.
        max_reconnects: How often in a row a stream is opened again after the connection broke.
    """

    def __init__(
        self,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        bearer: Callable[[], str] | None = None,
        max_reconnects: int = 5,
    ) -> None:
        self._channel = (
            grpc.aio.secure_channel(target, credentials, _OPTIONS)
            if credentials
            else grpc.aio.insecure_channel(target, _OPTIONS)
        )
        self._stub = pb_grpc.PlayerRecognitionServiceStub(self._channel)
        self._max_reconnects = max_reconnects
        self._bearer = bearer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection; open streams are cancelled."""
        await self._channel.close()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return () if self._bearer is None else (("authorization", f"Bearer {self._bearer()}"),)

    async def recognize_frame(
        self, request: pb.RecognizeFrameRequest, *, timeout_s: float = 30.0
    ) -> pb.RecognizeFrameResponse:
        """Recognise one image.

        Raises:
            grpc.aio.AioRpcError: The server refused or failed; the details say why.
        """
        response: pb.RecognizeFrameResponse
        response = await self._stub.RecognizeFrame(
            request, timeout=timeout_s, metadata=self._metadata()
        )
        return response

    async def recognize_stream(
        self, config: pb.StreamConfig, frames: AsyncIterator[pb.Frame]
    ) -> AsyncGenerator[pb.RecognizeStreamResponse, None]:
        """Recognise a stream.

        Whoever stops before its end closes it, as `contextlib.aclosing` does: its call ends then.

        Args:
            config: How the stream is coded and what is wanted.
            frames: The frames; taken only as fast as the server grants credits.

        Yields:
            Every response but credit grants, in order. After a reconnection comes another
            `started`; if it is resumed, track ids and the summary are those of the whole stream.

        Raises:
            grpc.aio.AioRpcError: The server refused the stream, or stayed away.
        """
        outbox = Outbox(frames, config.encoding)
        try:
            async with aclosing(self._attempts(config, outbox)) as responses:
                async for response in responses:
                    yield response
        finally:
            outbox.close()

    async def _attempts(
        self, config: pb.StreamConfig, outbox: Outbox
    ) -> AsyncGenerator[pb.RecognizeStreamResponse, None]:
        failures, had_place = 0, False
        current = pb.StreamConfig()
        current.CopyFrom(config)
        while True:
            has_begun = False
            try:
                async with aclosing(self._attempt(current, outbox)) as responses:
                    async for response in responses:
                        if response.HasField("started"):
                            current.resume_token = response.started.resume_token
                            had_place = has_begun = True
                        else:
                            failures = 0
                        yield response
            except grpc.aio.AioRpcError as error:
                failures += 1
                is_refused = had_place and not has_begun
                if not _is_retryable(error, is_refused) or failures > self._max_reconnects:
                    raise
                pause = min(_FIRST_PAUSE_S * 2 ** (failures - 1), _LONGEST_PAUSE_S)
                what = "broke off" if has_begun else "did not start"
                log.warning("stream %s (%s); again in %.1f s", what, error.details(), pause)
                await asyncio.sleep(pause)
            else:
                return

    async def _attempt(
        self, config: pb.StreamConfig, outbox: Outbox
    ) -> AsyncGenerator[pb.RecognizeStreamResponse, None]:
        call = self._stub.RecognizeStream(metadata=self._metadata())
        sending: asyncio.Task[None] | None = None
        try:
            await call.write(pb.RecognizeStreamRequest(config=config))
            async for response in call:
                if response.HasField("started"):
                    outbox.restart(response.started)
                    sending = asyncio.create_task(_send(call, outbox))
                if outbox.note(response):
                    yield response
            if sending is not None and sending.done():
                sending.result()  # an error of the frame source must not pass for a clean end
        except asyncio.CancelledError:
            if sending is not None and sending.done():
                sending.result()  # nor for our caller's wish
            raise
        finally:
            if sending is not None:
                sending.cancel()
            call.cancel()


def _is_retryable(error: grpc.aio.AioRpcError, is_refused: bool) -> bool:
    """Whether to connect again; `is_refused` if a stream that had a place was not let in again."""
    code = error.code()
    is_broken_write = code is grpc.StatusCode.INTERNAL and error.details() == BROKEN_WRITE
    is_full = code is grpc.StatusCode.RESOURCE_EXHAUSTED and is_refused
    return code is grpc.StatusCode.UNAVAILABLE or is_broken_write or is_full


async def _send(
    call: "grpc.aio.StreamStreamCall[pb.RecognizeStreamRequest, pb.RecognizeStreamResponse]",
    outbox: Outbox,
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
