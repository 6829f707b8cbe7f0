"""Reflection on grpc.aio, which serves it as it serves any other streams of messages."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio

from extauth.errors import InvalidRequestError
from extauth.transport.deadlines import Clock
from extauth.transport.reflection import (
    IDLE,
    MAX_REQUEST_BYTES,
    METHOD,
    SERVICES,
    TOO_LARGE,
    TOO_MANY,
    Reflection,
    respond,
)


class GrpcioReflection:
    """The reflection calls of a server, which end after `stall_timeout_s` without a request."""

    def __init__(self, clock: Clock, stall_timeout_s: float) -> None:
        self._reflection = Reflection()
        self._clock = clock
        self._stall_timeout_s = stall_timeout_s

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """The handlers of each version's method, which get and return raw bytes."""
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._serve)
        return tuple(grpc.method_handlers_generic_handler(service, {METHOD: method}) for service in SERVICES)

    async def _serve(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        while (message := await self._next(requests, context)) is not None:
            if len(message) > MAX_REQUEST_BYTES:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_LARGE)
            if not self._reflection.admits(self._clock()):
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, TOO_MANY)
            try:
                answer = respond(message)
            except InvalidRequestError as error:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            yield answer

    async def _next(
        self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> bytes | None:
        """The next request, or None if the client has sent all."""
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                return await anext(requests, None)
        except TimeoutError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, IDLE)
