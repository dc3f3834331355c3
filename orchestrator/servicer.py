"""The public API: who may call, places of the server, single images; errors are mapped once.

Streams are served by `stream_call`.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import grpc
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc
from typing_extensions import override

from orchestrator.contracts import RFDETR_DETECTOR
from orchestrator.convert.requests import to_still_config
from orchestrator.convert.responses import from_models, from_recognition
from orchestrator.drain import Drain
from orchestrator.errors import (
    DecodeError,
    DrainingError,
    InvalidRequestError,
    ModelUnavailableError,
    OverloadedError,
    TouchlineError,
    status_code,
)
from orchestrator.flow import Outcome
from orchestrator.handover import Handover, client_of
from orchestrator.logs import about_stream
from orchestrator.overload.admission import Admission
from orchestrator.overload.control import LoadControl
from orchestrator.resume import KeptStreams, StreamRegistry
from orchestrator.security.audit import Call
from orchestrator.security.auth import current_principal
from orchestrator.security.guard import Guard
from orchestrator.security.tenants import Tenant
from orchestrator.serving import ServedStream, Serving
from orchestrator.session import StreamSession
from orchestrator.settings import ServerSettings, Settings
from orchestrator.stream_call import StreamCall, completed
from orchestrator.tracing import called_by
from orchestrator.triton.client import TritonClient
from orchestrator.types.frames import EncodedFrame, FrameHeader, GapReason, LostFrame
from orchestrator.types.results import Recognition
from orchestrator.types.streams import Caller, StreamConfig

Stream = grpc.aio.ServicerContext[pb.RecognizeStreamRequest, pb.RecognizeStreamResponse]
Still = grpc.aio.ServicerContext[pb.RecognizeFrameRequest, pb.RecognizeFrameResponse]

_MOST_PEOPLE = 64
_ABORT_S = 5.0
"""Longest wait for a client to take the status of its call; one that reads nothing never does."""

_T = TypeVar("_T")
log = logging.getLogger(__name__)


class PlayerRecognitionServicer(pb_grpc.PlayerRecognitionServiceServicer):
    """Serves soccer.v1.PlayerRecognitionService."""

    def __init__(self, triton: TritonClient, settings: Settings, guard: Guard) -> None:
        self._triton = triton
        self._settings = settings
        self._guard = guard
        self._control = LoadControl(settings)
        self._admission = Admission(triton, self._control, settings, guard.ledger)
        self._drain = Drain()
        self._places_taken = 0
        self._serving = Serving(
            triton,
            settings,
            guard,
            control=self._control,
            drain=self._drain,
            place=self._place,
            streams=StreamRegistry(_kept_streams(settings.server)),
            handover=Handover(settings.server),
        )

    @property
    def is_draining(self) -> bool:
        """Whether new streams are refused because the server stops."""
        return self._drain.has_begun

    async def drain(self, drain_s: float) -> None:
        """Refuse new calls and have the open ones end; return then, or after `drain_s` seconds."""
        self._drain.begin(drain_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drain.until_free(), drain_s)

    @override
    async def RecognizeStream(  # type: ignore[override]  # grpc.aio also takes a writing coroutine
        self, request_iterator: AsyncIterator[pb.RecognizeStreamRequest], context: Stream
    ) -> None:
        """Serve one stream."""
        stream_id, principal = secrets.token_hex(8), current_principal()
        call = Call(stream_id, "RecognizeStream", principal.tenant.name, client_of(context))
        serving = StreamCall(self._serving, call, request_iterator, context, principal)
        await _answer(call, context, serving.serve())

    @override
    async def RecognizeFrame(
        self, request: pb.RecognizeFrameRequest, context: Still
    ) -> pb.RecognizeFrameResponse:
        """Serve one image."""
        call_id, tenant = secrets.token_hex(8), current_principal().tenant
        call = Call(call_id, "RecognizeFrame", tenant.name, context.peer())
        return await _answer(call, context, self._recognize_still(call, request, tenant))

    @contextmanager
    def _place(self, config: StreamConfig, is_resumed: bool = False) -> Iterator[None]:
        """Take one of the server's places for as long as the context is open.

        Args:
            config: Of the stream.
            is_resumed: Whether it had a place before.

        Raises:
            DrainingError: The server stops.
            OverloadedError: It has no room.
        """
        most = self._settings.server.max_streams
        if self._drain.has_begun:
            raise DrainingError
        if self._places_taken >= most:
            raise OverloadedError(f"all {most} places of this server are taken")
        with self._admission.admit(config, is_resumed=is_resumed), self._drain.held():
            self._places_taken += 1
            try:
                yield
            finally:
                self._places_taken -= 1

    async def _recognize_still(
        self, call: Call, request: pb.RecognizeFrameRequest, tenant: Tenant
    ) -> pb.RecognizeFrameResponse:
        with self._guard.audit.following(call):
            config = to_still_config(request)
            tenant.check_size(config)
            limit = self._settings.server.max_frame_bytes
            if len(request.data) > limit:
                raise InvalidRequestError("data", f"expected at most {limit} bytes")
            tenant.check_rates(len(request.data))
            frame = EncodedFrame(FrameHeader(0), request.data)
            with self._place(config), tenant.place():
                answer = await self._answer_to(frame, config, call.id, tenant)
        if isinstance(answer, LostFrame):
            _raise_lost(answer)
        assert isinstance(answer, Recognition)
        return pb.RecognizeFrameResponse(
            recognition=from_recognition(answer, config),
            models=from_models(self._triton.models),
        )

    async def _answer_to(
        self, frame: EncodedFrame, config: StreamConfig, call_id: str, tenant: Tenant
    ) -> Outcome:
        """Run a stream of a single frame."""
        limits = {"server": tenant.limited(self._settings.server)}
        settings = _for_a_still(self._settings)
        session = await StreamSession.open(
            config,
            self._triton,
            settings.model_copy(update=limits),
            control=self._control,
            caller=Caller(call_id, tenant.name, tenant.weight),
        )
        outcomes: list[Outcome] = []

        async def keep(outcome: Outcome) -> None:
            outcomes.append(outcome)

        try:
            await session.run(_only(frame), keep)
        finally:
            await completed(session.close())
        return outcomes[0]


async def _only(frame: EncodedFrame) -> AsyncIterator[EncodedFrame]:
    yield frame


def _for_a_still(settings: Settings) -> Settings:
    """Return the settings for a single image: one look at each person, at all of them at once."""
    at_once = {"max_crops_per_frame": _MOST_PEOPLE}
    one_look = {**at_once, "min_readings": 1, "role_min_readings": 1.0}
    return settings.model_copy(
        update={
            "identify": settings.identify.model_copy(update=at_once),
            "number": settings.number.model_copy(update=one_look),
        }
    )


def _raise_lost(lost: LostFrame) -> NoReturn:
    if lost.reason is GapReason.MODEL_UNAVAILABLE:
        raise ModelUnavailableError(RFDETR_DETECTOR.name, lost.detail)
    if lost.reason is GapReason.INTERNAL:
        raise TouchlineError(lost.detail)
    raise DecodeError(f"data: {lost.detail}")


async def _answer(
    call: Call, context: "grpc.aio.ServicerContext[Any, Any]", work: Awaitable[_T]
) -> _T:
    """Await a call's work; our errors become its status, others INTERNAL without their text."""
    with about_stream(call.id), called_by(context.invocation_metadata() or ()):
        try:
            return await work
        except TouchlineError as error:
            await _abort(context, status_code(error), str(error))
        except grpc.aio.AbortError:
            raise
        except Exception:
            log.exception("call %s failed", call.id)
            await _abort(context, grpc.StatusCode.INTERNAL, f"internal error; quote {call.id}")


async def _abort(
    context: "grpc.aio.ServicerContext[Any, Any]", code: grpc.StatusCode, details: str
) -> NoReturn:
    async with asyncio.timeout(_ABORT_S):
        await context.abort(code, details)


def _kept_streams(settings: ServerSettings) -> KeptStreams[ServedStream]:
    return KeptStreams(
        keep_s=settings.resume_s,
        max_streams=settings.resume_streams,
        max_bytes=settings.resume_bytes,
    )
