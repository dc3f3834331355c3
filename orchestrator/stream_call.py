"""One call of RecognizeStream: which stream it serves, and what becomes of that stream after it."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from soccer.v1 import player_recognition_pb2 as pb

from orchestrator import metrics
from orchestrator.convert.requests import to_encoded_frame, to_stream_config
from orchestrator.convert.responses import from_models, from_stats
from orchestrator.errors import (
    ClientStalledError,
    ConnectionLostError,
    DrainingError,
    InvalidRequestError,
    QuotaExceededError,
    TouchlineError,
    status_code,
)
from orchestrator.logs import about_stream
from orchestrator.overload.admission import credit
from orchestrator.replies import AnswerLog, Replies, StreamContext
from orchestrator.resume import MAX_TOKEN_CHARACTERS, new_token
from orchestrator.security.audit import Call, Record
from orchestrator.security.auth import Principal
from orchestrator.serving import ServedStream, Serving
from orchestrator.session import StreamSession
from orchestrator.settings import ServerSettings
from orchestrator.types.frames import EncodedFrame, Encoding, LostFrame
from orchestrator.types.streams import Caller, StreamConfig

Requests = AsyncIterator[pb.RecognizeStreamRequest]

_SAME_WHEN_RESUMED = {
    "encoding": "encoding",
    "width": "width_px",
    "height": "height_px",
    "rotation_degrees": "rotation_degrees",
}
"""What decides how pictures look: attribute of `StreamConfig` and field of its message."""

log = logging.getLogger(__name__)


class StreamCall:
    """One call.

    Args:
        serving: What it shares with others.
        call: How it is named.
        requests: What the client sends.
        context: Where answers go.
        principal: Who calls.
    """

    def __init__(
        self,
        serving: Serving,
        call: Call,
        requests: Requests,
        context: StreamContext,
        principal: Principal,
    ) -> None:
        self._serving = serving
        self._call = call
        self._requests = requests
        self._context = context
        self._principal, self._tenant = principal, principal.tenant
        self._is_resumed = False
        self._is_cut = False
        """Whether the server stopped reading before the client's last frame."""

    async def serve(self) -> None:
        """Serve it to its end.

        Raises:
            TouchlineError: It was refused, or had to end before its stream did.
        """
        with self._noted():
            message = await self._config()
            config = to_stream_config(message)
            _check_size(config, self._serving.settings.server)
            self._tenant.check_size(config)
        if await self._handed_over(message):  # and noted there
            return
        with self._noted() as record:
            stream = await self._stream(message.resume_token, config)
            with (
                about_stream(stream.id),
                self._serving.streams.served(stream),
                self._keeping(stream),
                self._serving.place(config, stream.state is not None),
                self._tenant.place(),
            ):
                session = await self._open(stream, config, record)
                replies = await self._walk(stream, session, config)
                time_base = message.time_base if message.HasField("time_base") else None
                await replies.finish(from_stats(session.stats, session.people, time_base))

    async def _config(self) -> pb.StreamConfig:
        """Return the first message, which holds the config; nobody is waited for without end."""
        first = await self._tenant.hearing.first(self._requests)
        if first is None or first.WhichOneof("request") != "config":
            raise InvalidRequestError("config", "expected in the first message of the stream")
        return first.config

    async def _handed_over(self, message: pb.StreamConfig) -> bool:
        """Whether another worker process has the stream, and has served the call to its end."""
        handover = self._serving.handover
        holder = handover.holder(message.resume_token)
        if holder is None:
            return False
        with self._serving.drain.held():  # this server must not end before the holder has answered
            return await handover.relay(holder, message, self._requests, self._context)

    async def _stream(self, token: str, config: StreamConfig) -> ServedStream:
        """Return the stream of a resume token, or a new one."""
        if len(token) > MAX_TOKEN_CHARACTERS:
            expected = f"expected at most {MAX_TOKEN_CHARACTERS} characters"
            raise InvalidRequestError("config.resume_token", expected)
        settings, streams = self._serving.settings, self._serving.streams
        earlier = streams.find(token, self._tenant.name)
        if earlier is not None:
            _check_same_pictures(config, earlier.config)
            earlier = await streams.take(token, self._tenant.name)
        return earlier or ServedStream(
            self._call.id,
            new_token(settings.server.worker or 0),
            self._tenant.name,
            config,
            AnswerLog(credit(config, settings)),
        )

    @contextmanager
    def _keeping(self, stream: ServedStream) -> Iterator[None]:
        """Keep a started stream whose call breaks off, unless the client broke the protocol."""
        try:
            yield
        except InvalidRequestError:
            raise
        except (asyncio.CancelledError, TouchlineError):
            if stream.state is not None:
                self._serving.streams.keep(stream)
            raise

    async def _open(
        self, stream: ServedStream, config: StreamConfig, record: Record
    ) -> StreamSession:
        serving, tenant = self._serving, self._tenant
        limits = tenant.limited(serving.settings.server)
        self._is_resumed = stream.state is not None
        session = await StreamSession.open(
            config,
            serving.triton,
            serving.settings.model_copy(update={"server": limits}),
            control=serving.control,
            caller=Caller(stream.id, tenant.name, tenant.weight),
            state=stream.state,
        )
        stream.state = session.state
        metrics.STREAM_STARTS.labels(tenant.name, "accepted").inc()
        metrics.STREAMS_RESUMED.inc(self._is_resumed)
        call = replace(self._call, id=stream.id)
        serving.guard.audit.started(call, record, session.stats, name=config.stream_name)
        verb = "resumed" if self._is_resumed else "started"
        log.info("stream %s %r %s", stream.id, config.stream_name, verb)
        return session

    async def _walk(
        self, stream: ServedStream, session: StreamSession, config: StreamConfig
    ) -> Replies:
        """Answer all frames; also a client that vanishes frees what it held in the cluster."""
        replies = Replies(
            self._context,
            config,
            stream.answers,
            credit=session.credit,
            stall_s=self._serving.settings.server.client_stall_s,
        )
        try:
            with metrics.STREAMS.labels(self._tenant.name).track_inprogress():
                await replies.start(self._started(stream, session))
                async with self._serving.guard.watching(self._principal):
                    await self._run(session, config, replies)
        finally:
            await completed(session.close())
            log.info("stream %s ended: %s", stream.id, session.stats.gaps)
        if self._is_cut:
            raise DrainingError
        return replies

    def _started(self, stream: ServedStream, session: StreamSession) -> pb.StreamStarted:
        server = self._serving.settings.server
        return pb.StreamStarted(
            stream_id=stream.id,
            credit_frame_count=session.credit,
            max_frame_bytes=server.max_frame_bytes,
            models=from_models(self._serving.triton.models),
            resume_token=stream.token if server.resume_s > 0 else "",
            is_resumed=self._is_resumed,
        )

    async def _run(self, session: StreamSession, config: StreamConfig, replies: Replies) -> None:
        warning = asyncio.create_task(self._warn(replies))
        try:
            await session.run(self._frames(config, replies), replies.send)
        except* TouchlineError as errors:
            raise errors.exceptions[0] from errors
        finally:
            warning.cancel()

    async def _frames(
        self, config: StreamConfig, replies: Replies
    ) -> AsyncIterator[EncodedFrame | LostFrame]:
        """Yield what the stream must answer; what it has answered before is answered here."""
        while (request := await self._next_request()) is not None:
            if request.WhichOneof("request") != "frame":
                raise InvalidRequestError("frame", "expected in every message after the first")
            frame = to_encoded_frame(request.frame)
            await replies.catch_up(frame.header.frame_index)
            if replies.is_repeated(frame.header):
                await replies.repeat(frame.header)
                if config.encoding.is_video:
                    yield replace(frame, is_answered=True)
            else:
                yield await self._tenant.admit(frame, is_live=config.is_live)
        await replies.catch_up_all()

    async def _next_request(self) -> pb.RecognizeStreamRequest | None:
        try:
            return await self._serving.drain.next(self._requests)
        except DrainingError:
            self._is_cut = True
            return None

    async def _warn(self, replies: Replies) -> None:
        with suppress(ConnectionLostError, ClientStalledError):  # the next answer finds out, too
            await replies.drain(await self._serving.drain.warning())

    @contextmanager
    def _noted(self) -> Iterator[Record]:
        """Note in the audit log how the stream ends, and there and in the metrics a refusal."""
        with self._serving.guard.audit.following(self._call) as record:
            try:
                yield record
            except Exception as error:
                if record.stats is None:
                    metrics.STREAM_STARTS.labels(self._tenant.name, _outcome(error)).inc()
                raise


def _outcome(error: Exception) -> str:
    """Return the metrics' word for a refusal; a tenant's own quota is no want of room."""
    if isinstance(error, QuotaExceededError):
        return "quota_exceeded"
    return status_code(error).name.lower() if isinstance(error, TouchlineError) else "internal"


def _check_size(config: StreamConfig, server: ServerSettings) -> None:
    """Refuse a stream of which no frame could be served."""
    pixels = (config.width or 0) * (config.height or 0)
    if pixels > server.max_frame_pixels:
        expected = f"expected at most {server.max_frame_pixels} pixels in all, got {pixels}"
        raise InvalidRequestError("config.width_px", expected)
    if config.encoding is Encoding.RGB24 and 3 * pixels > server.max_frame_bytes:
        expected = f"expected at most {server.max_frame_bytes} bytes a frame, got {3 * pixels}"
        raise InvalidRequestError("config.width_px", expected)


def _check_same_pictures(config: StreamConfig, earlier: StreamConfig) -> None:
    for attribute, field in _SAME_WHEN_RESUMED.items():
        if getattr(config, attribute) != getattr(earlier, attribute):
            raise InvalidRequestError(
                f"config.{field}", "expected as in the stream that config.resume_token names"
            )


async def completed(work: Coroutine[Any, Any, None]) -> None:
    """Await work to its end, however often the waiting task is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
