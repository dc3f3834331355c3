"""Bytes that are no message of the method's type: the client's mistake, and answered as such."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError
from typing_extensions import override

from orchestrator.errors import InvalidRequestError, status_code

_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
_Parse = Callable[[bytes], Any]


class WellFormedInterceptor(grpc.aio.ServerInterceptor):
    """Has malformed messages end their call with INVALID_ARGUMENT; gRPC itself says UNKNOWN.

    In a stream, InvalidRequestError comes from the iterator of requests.
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
            expected = "expected a message of the method's request type"
            raise InvalidRequestError("request", expected) from error

    return parse


def _parsing(parse: _Parse, answer: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Parse within the handler: only there can a call still be given a status."""

    async def answer_bytes(data: bytes, context: "grpc.aio.ServicerContext[Any, Any]") -> Any:
        try:
            request = parse(data)
        except InvalidRequestError as error:
            await context.abort(status_code(error), str(error))
        return await answer(request, context)

    return answer_bytes
