"""The gRPC engine on grpc.aio: RateLimitService and grpc.health.v1."""

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from extauth.errors import InvalidRequestError, SettingsError
from extauth.limiter.plan import Planner
from extauth.transport.batching import Batcher
from extauth.transport.rls import SERVICE, encode_response

MAX_MESSAGE_BYTES = 64 * 1024

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # else a second server on a taken port would silently share its calls
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_concurrent_streams", 1024),
)


class GrpcioServer:
    """Serves on `listen`: HOST:PORT or unix:PATH."""

    def __init__(self, listen: str, planner: Planner, batcher: Batcher) -> None:
        self._listen = listen
        self._planner = planner
        self._batcher = batcher
        self._health = health.HealthServicer()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen and be SERVING; raises SettingsError where the address cannot be had."""
        server = grpc.aio.server(options=_OPTIONS)
        # Without serializers the handler gets and gives raw bytes.
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            self._should_rate_limit
        )  # raw bytes in and out
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ShouldRateLimit": method}),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        try:
            server.add_insecure_port(self._listen)
        except RuntimeError as error:
            message = f"EXTAUTH_GRPC_LISTEN={self._listen}: cannot listen there; is the port taken, the address yours?"
            raise SettingsError(message) from error
        await server.start()
        self._server = server
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self) -> None:
        """Say NOT_SERVING to health checks; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Take no new calls, and answer those in flight within `grace_s`."""
        if self._server is not None:
            await self._server.stop(grace_s)

    async def _should_rate_limit(self, message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            plan = self._planner.plan(message)
        except InvalidRequestError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        verdict = await self._batcher.decide(plan)
        if verdict is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the counters' store does not answer")
        return encode_response(verdict)
