"""How messages are read: in their turn, and bytes that are none are the client's mistake."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from typing_extensions import override

from orchestrator.errors import InvalidRequestError, TouchlineError, status_code
from orchestrator.security.auth import current_principal, is_open

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
_Parse = Callable[[bytes], Any]


class WellFormedInterceptor(grpc.aio.ServerInterceptor):
    """Has malformed messages end their call with INVALID_ARGUMENT; gRPC itself says UNKNOWN.

    In a stream, InvalidRequestError comes from the iterator of requests. A single request is read
    in its tenant's hearing; gRPC itself reads as many at once as there are calls.
    """

    @override
    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        parse = _strict(handler.request_deserializer)
        if handler.unary_unary is not None and not is_open(handler_call_details.method):
            # A stream to gRPC, which then leaves the reading to us.
            return grpc.stream_stream_rpc_method_handler(
                _hearing(handler.unary_unary), parse, handler.response_serializer
            )
        if handler.unary_unary is not None:
            answer = _parsing(parse, handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(
                answer, response_serializer=handler.response_serializer
            )
        if handler.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                handler.stream_stream, parse, handler.response_serializer
            )
        return handler


def _strict(deserialize: _Parse) -> _Parse:
    def parse(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            del data  # the error's traceback would keep it for as long as gRPC keeps the error
            expected = "expected a message of the method's request type"
            raise InvalidRequestError("request", expected) from error

    return parse


def _hearing(answer: Callable[..., Any]) -> Callable[..., Awaitable[None]]:
    async def answer_heard(
        requests: AsyncIterator[Any], context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        try:
            request = await current_principal().tenant.hearing.first(requests)
            if request is None:
                raise InvalidRequestError("request", "expected one message")
        except TouchlineError as error:
            await context.abort(status_code(error), str(error))
        await context.write(await answer(request, context))

    return answer_heard


def _parsing(parse: _Parse, answer: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Parse within the handler: only there can a call still be given a status."""

    async def answer_bytes(data: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
        try:
            request = parse(data)
        except InvalidRequestError as error:
            await context.abort(status_code(error), str(error))
        return await answer(request, context)

    return answer_bytes
