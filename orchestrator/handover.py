"""Calls that resume a stream of another worker process are handed over to it.

The kernel gives a new connection to any worker, but what a stream has learnt lives in one. Resume
tokens name it, and workers reach each other by Unix sockets in a directory that only they can
enter. The call is relayed for as long as it lasts, which costs a copy of each message.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TypeAlias

import grpc
from soccer.v1 import player_recognition_pb2 as pb
from soccer.v1 import player_recognition_pb2_grpc as pb_grpc

from orchestrator.errors import RelayedError, TouchlineError
from orchestrator.replies import StreamContext, write
from orchestrator.resume import worker_of
from orchestrator.settings import ServerSettings

_Call: TypeAlias = (
    "grpc.aio.StreamStreamCall[pb.RecognizeStreamRequest, pb.RecognizeStreamResponse]"
)

_FORWARDED = {"authorization", "x-api-key", "traceparent", "tracestate"}
"""Metadata that the other worker needs to know who calls."""
_PEER = "x-touchline-peer"
_BREAK_S = 0.1
_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
"""Both ends have checked their client's messages."""


def own_socket(settings: ServerSettings) -> str | None:
    """Return the address at which the other workers reach this one; None if it is alone."""
    return None if settings.worker is None else _socket(settings, settings.worker)


def client_of(context: StreamContext) -> str:
    """Return the address of a call's client as gRPC writes it, also if it was handed over."""
    peer = str(context.peer())
    if not peer.startswith("unix:"):  # where only workers come from
        return peer
    handed_over = (v for k, v in context.invocation_metadata() or () if k == _PEER)
    return str(next(handed_over, peer))


def _socket(settings: ServerSettings, worker: int) -> str | None:
    directory = settings.worker_directory
    return None if directory is None else f"unix:{directory}/{worker}.sock"


class Handover:
    """Hands calls over to the other workers.

    Args:
        settings: Which worker this is, and where the others are.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    def holder(self, token: str) -> str | None:
        """Return the address of the other worker that a resume token names; None for no other."""
        worker, settings = worker_of(token), self._settings
        if worker is None or worker >= settings.workers or worker == settings.worker:
            return None
        return _socket(settings, worker)

    async def relay(
        self,
        holder: str,
        config: pb.StreamConfig,
        requests: AsyncIterator[pb.RecognizeStreamRequest],
        context: StreamContext,
    ) -> bool:
        """Relay a call to its end; return False, with nothing done, if the holder is gone.

        Raises:
            RelayedError: It ended with an error there.
            InvalidRequestError: The client sent what is no message.
            ClientStalledError: The client does not read.
            ConnectionLostError: The client is gone.
        """
        metadata = [(k, v) for k, v in context.invocation_metadata() or () if k in _FORWARDED]
        metadata.append((_PEER, context.peer()))
        async with grpc.aio.insecure_channel(holder, _UNLIMITED) as channel:
            call = pb_grpc.PlayerRecognitionServiceStub(channel).RecognizeStream(metadata=metadata)
            try:
                await call.write(pb.RecognizeStreamRequest(config=config))
                response = await call.read()
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    return False
                raise RelayedError(error.code(), error.details() or "") from error
            try:
                async with asyncio.TaskGroup() as tasks:
                    sending = tasks.create_task(_send(requests, call))
                    await self._answer(response, call, context)
                    sending.cancel()
            except* TouchlineError as errors:
                raise errors.exceptions[0] from errors
        return True

    async def _answer(self, response: object, call: _Call, context: StreamContext) -> None:
        """Pass the responses on, from a first one to the end."""
        try:
            while isinstance(response, pb.RecognizeStreamResponse):  # and not the end
                await write(context, response, self._settings.client_stall_s)
                response = await call.read()
        except grpc.aio.AioRpcError as error:
            raise RelayedError(error.code(), error.details() or "") from error


async def _send(requests: AsyncIterator[pb.RecognizeStreamRequest], call: _Call) -> None:
    with contextlib.suppress(asyncio.InvalidStateError, grpc.aio.AioRpcError):  # its status tells
        async for request in requests:
            await call.write(request)
        # A broken connection ends the requests, too, and cancels this call a moment later: the
        # stream must not take that for its end.
        await asyncio.sleep(_BREAK_S)
        await call.done_writing()
