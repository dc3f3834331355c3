"""The public API: protobuf streams in and out, one `StreamSession` per call, errors mapped once."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc
from typing_extensions import override

from orchestrator.convert.requests import to_encoded_frame, to_still_config, to_stream_config
from orchestrator.convert.responses import (
    from_identity_update,
    from_lost_frame,
    from_models,
    from_recognition,
    from_stats,
)
from orchestrator.errors import (
    DecodeError,
    InvalidRequestError,
    ModelUnavailableError,
    OverloadedError,
    TouchlineError,
    status_code,
)
from orchestrator.flow import Outcome
from orchestrator.session import StreamSession
from orchestrator.settings import IdentifySettings, NumberSettings, Settings
from orchestrator.triton.client import TritonClient
from orchestrator.types import (
    EncodedFrame,
    FrameHeader,
    GapReason,
    IdentityUpdate,
    LostFrame,
    Recognition,
    StreamConfig,
)

Stream = grpc.aio.ServicerContext[pb.RecognizeStreamRequest, pb.RecognizeStreamResponse]
Still = grpc.aio.ServicerContext[pb.RecognizeFrameRequest, pb.RecognizeFrameResponse]

_GRANT_FRAMES = 4
"""Credits go back in small batches: fewer messages, and never more than this many held back."""
_MOST_PEOPLE = 64
_STILL = {
    "identify": IdentifySettings(max_crops_per_frame=_MOST_PEOPLE),
    "number": NumberSettings(
        max_crops_per_frame=_MOST_PEOPLE, min_votes=0.5, min_readings=1, role_min_readings=1
    ),
}
"""A single image has one look at each person, at all of them at once."""

_T = TypeVar("_T")
log = logging.getLogger(__name__)


class PlayerRecognitionServicer(pb_grpc.PlayerRecognitionServiceServicer):
    """Serves soccer.v1.PlayerRecognitionService."""

    def __init__(self, triton: TritonClient, settings: Settings) -> None:
        self._triton = triton
        self._settings = settings
        self._open_streams = 0
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Tell all open streams to finish, and refuse new ones."""
        self._draining.set()

    @override
    async def RecognizeStream(  # type: ignore[override]  # grpc.aio also takes a writing coroutine
        self, request_iterator: AsyncIterator[pb.RecognizeStreamRequest], context: Stream
    ) -> None:
        """Serve one stream."""
        stream_id = secrets.token_hex(8)
        await _answer(stream_id, context, self._serve(stream_id, request_iterator, context))

    @override
    async def RecognizeFrame(
        self, request: pb.RecognizeFrameRequest, context: Still
    ) -> pb.RecognizeFrameResponse:
        """Serve one image."""
        return await _answer(secrets.token_hex(8), context, self._recognize_still(request))

    async def _serve(
        self,
        stream_id: str,
        requests: AsyncIterator[pb.RecognizeStreamRequest],
        context: Stream,
    ) -> None:
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("request") != "config":
            raise InvalidRequestError("config", "expected in the first message of the stream")
        config = to_stream_config(first.config)
        with self._place():
            session = await StreamSession.open(config, self._triton, self._settings)
            replies = _Replies(context, session, config)
            log.info("stream %s %r started", stream_id, config.stream_name)
            try:
                await replies.start(stream_id, self._settings, self._triton)
                await self._run(session, requests, replies)
            finally:
                # Shielded: also a client that vanished must free its slot in the cluster.
                await asyncio.shield(session.close())
                log.info("stream %s ended: %s", stream_id, session.stats.gaps)
            time_base = first.config.time_base if first.config.HasField("time_base") else None
            await replies.finish(time_base)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Take one of the server's places for as long as the context is open."""
        most = self._settings.server.max_streams
        if self._draining.is_set():
            raise ModelUnavailableError("orchestrator", "the server is stopping; connect again")
        if self._open_streams >= most:
            raise OverloadedError(f"all {most} places of this server are taken")
        self._open_streams += 1
        try:
            yield
        finally:
            self._open_streams -= 1

    async def _run(
        self,
        session: StreamSession,
        requests: AsyncIterator[pb.RecognizeStreamRequest],
        replies: "_Replies",
    ) -> None:
        notice = asyncio.create_task(self._notify_drain(replies))
        try:
            await session.run(_frames(requests), replies.send)
        except* TouchlineError as errors:
            raise errors.exceptions[0] from errors
        finally:
            notice.cancel()

    async def _notify_drain(self, replies: "_Replies") -> None:
        await self._draining.wait()
        await replies.drain(self._settings.server.drain_s)

    async def _recognize_still(
        self, request: pb.RecognizeFrameRequest
    ) -> pb.RecognizeFrameResponse:
        config = to_still_config(request)
        limit = self._settings.server.max_frame_bytes
        if len(request.data) > limit:
            raise InvalidRequestError("data", f"expected at most {limit} bytes")
        with self._place():
            answer = await self._answer_to(EncodedFrame(FrameHeader(0), request.data), config)
        if isinstance(answer, LostFrame):
            _raise_lost(answer)
        assert isinstance(answer, Recognition)
        return pb.RecognizeFrameResponse(
            recognition=from_recognition(answer, config),
            models=from_models(self._triton.models),
        )

    async def _answer_to(self, frame: EncodedFrame, config: StreamConfig) -> Outcome:
        """Run a stream of a single frame."""
        settings = self._settings.model_copy(update=_STILL)
        session = await StreamSession.open(config, self._triton, settings)
        outcomes: list[Outcome] = []

        async def keep(outcome: Outcome) -> None:
            outcomes.append(outcome)

        try:
            await session.run(_only(frame), keep)
        finally:
            await asyncio.shield(session.close())
        return outcomes[0]


class _Replies:
    """The response side of one stream; writes never overlap."""

    def __init__(self, context: Stream, session: StreamSession, config: StreamConfig) -> None:
        self._context = context
        self._session = session
        self._config = config
        self._writing = asyncio.Lock()
        self._ungranted = 0

    async def start(self, stream_id: str, settings: Settings, triton: TritonClient) -> None:
        started = pb.StreamStarted(
            stream_id=stream_id,
            credit_frame_count=self._session.credit,
            max_frame_bytes=settings.server.max_frame_bytes,
            models=from_models(triton.models),
        )
        await self._write(pb.RecognizeStreamResponse(started=started))

    async def send(self, outcome: Outcome) -> None:
        """Send an outcome; an answered frame gives a credit back."""
        if isinstance(outcome, IdentityUpdate):
            update = from_identity_update(outcome)
            await self._write(pb.RecognizeStreamResponse(identity_update=update))
            return
        if isinstance(outcome, LostFrame):
            gap = from_lost_frame(outcome)
            await self._write(pb.RecognizeStreamResponse(gap=gap))
        else:
            recognition = from_recognition(outcome, self._config)
            await self._write(pb.RecognizeStreamResponse(recognition=recognition))
        self._ungranted += 1
        if self._ungranted >= min(_GRANT_FRAMES, self._session.credit // 2):
            grant = pb.CreditGrant(frame_count=self._ungranted)
            self._ungranted = 0
            await self._write(pb.RecognizeStreamResponse(credit_grant=grant))

    async def drain(self, remaining_s: float) -> None:
        remaining = Duration()
        remaining.FromNanoseconds(int(remaining_s * 1e9))
        notice = pb.DrainNotice(remaining=remaining)
        await self._write(pb.RecognizeStreamResponse(drain_notice=notice))

    async def finish(self, time_base: pb.Rational | None) -> None:
        summary = from_stats(self._session.stats, self._session.people, time_base)
        await self._write(pb.RecognizeStreamResponse(summary=summary))

    async def _write(self, response: pb.RecognizeStreamResponse) -> None:
        async with self._writing:
            await self._context.write(response)


async def _frames(
    requests: AsyncIterator[pb.RecognizeStreamRequest],
) -> AsyncIterator[EncodedFrame]:
    async for request in requests:
        if request.WhichOneof("request") != "frame":
            raise InvalidRequestError("frame", "expected in every message after the first")
        yield to_encoded_frame(request.frame)


async def _only(frame: EncodedFrame) -> AsyncIterator[EncodedFrame]:
    yield frame


def _raise_lost(lost: LostFrame) -> NoReturn:
    if lost.reason is GapReason.MODEL_UNAVAILABLE:
        raise ModelUnavailableError("rfdetr_detector", lost.detail)
    raise DecodeError(f"data: {lost.detail}")


async def _answer(
    call_id: str, context: "grpc.aio.ServicerContext[Any, Any]", call: Awaitable[_T]
) -> _T:
    """Await a call's work; our errors become its status, others INTERNAL without their text."""
    try:
        return await call
    except TouchlineError as error:
        await context.abort(status_code(error), str(error))
    except grpc.aio.AbortError:
        raise
    except Exception:
        log.exception("call %s failed", call_id)
        await context.abort(grpc.StatusCode.INTERNAL, f"internal error; quote {call_id}")
