"""The gRPC engine on grpc.aio: RateLimitService, grpc.health.v1 and grpc.reflection."""

from collections.abc import Iterable

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from extauth.errors import InvalidRequestError, RequestTooLargeError, SettingsError
from extauth.limiter.counters import Uncounted
from extauth.rls.request import SERVICE
from extauth.rls.trace_context import TraceParent, sampled_parent
from extauth.transport.batching import Shed
from extauth.transport.deadlines import deadline_after_s
from extauth.transport.engine import MAX_BLOCK_BYTES, EngineContext, Guard
from extauth.transport.grpcio_reflection import GrpcioReflection
from extauth.transport.h2.health import SERVICES, STORE_SERVICE
from extauth.transport.h2.hpack import FIELD_BYTES
from extauth.transport.single_call import ONLY, Waiter
from extauth.transport.tls import Tls
from extauth.transport.waiting import Calls

MAX_RECEIVED_BYTES = 16_777_216  # of a message; a larger one is refused by gRPC itself


class GrpcioServer:
    """The `Engine` on grpc.aio, which serves on `listen`, HOST:PORT or unix:PATH.

    Of the ConnectionLimits, it enforces only those on streams, messages, headers and the age of connections.
    """

    def __init__(self, listen: str, context: EngineContext) -> None:
        self._listen = listen
        self._planner = context.planner
        self._batcher = context.batcher
        self._tls = context.tls
        self._limits = context.limits
        self._on_guard = context.on_guard
        self._traced = context.traced
        self._health = health.HealthServicer()  # after `drain` it keeps to NOT_SERVING
        self._reported: dict[str, bool] = {}
        self._reflects = context.reflection
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen and report SERVING; raises SettingsError if the address is not available."""
        server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", 0),  # else a second server on a taken port would silently share its calls
                # A call that gRPC itself refuses is a free pass where Envoy lets failed calls through. So calls above
                # our own limits are accepted up to these sizes, and answered OVER_LIMIT.
                ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
                ("grpc.max_metadata_size", MAX_BLOCK_BYTES),
                ("grpc.absolute_max_metadata_size", MAX_BLOCK_BYTES),
                ("grpc.max_concurrent_streams", self._limits.max_streams),
                # Envoy's keepalive: by default gRPC closes a connection that is pinged while idle.
                ("grpc.http2.min_ping_interval_without_data_ms", 1000),
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.keepalive_permit_without_calls", 1),
                *self._age(),
            )
        )
        # Without serializers the handler gets and returns raw bytes.
        method: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._should_rate_limit)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ShouldRateLimit": method}),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._reflects:
            calls = GrpcioReflection(self._batcher.clock, self._limits.stall_timeout_s)
            server.add_generic_rpc_handlers(calls.handlers())
        try:
            if self._tls is None:
                server.add_insecure_port(self._listen)
            else:
                server.add_secure_port(self._listen, _credentials(self._tls))
        except RuntimeError as error:
            message = f"EXTAUTH_GRPC_LISTEN={self._listen}: cannot listen there; is the port taken, the address yours?"
            raise SettingsError(message) from error
        await server.start()
        self._server = server
        await self.report(serving=True, store=False)

    def _age(self) -> list[tuple[str, int]]:
        """The options for a connection's age, of which gRPC takes or adds AGE_JITTER by itself."""
        if not self._limits.max_age_s:
            return []
        return [
            ("grpc.max_connection_age_ms", round(self._limits.max_age_s * 1000)),
            ("grpc.max_connection_age_grace_ms", round(self._limits.age_grace_s * 1000)),
        ]

    async def report(self, *, serving: bool, store: bool) -> None:
        """As Engine.report."""
        for service, so in (*((service, serving) for service in SERVICES), (STORE_SERVICE, store)):
            if self._reported.get(service) is not so:  # else those who watch it would be told once more
                self._reported[service] = so
                status = health_pb2.HealthCheckResponse.SERVING if so else health_pb2.HealthCheckResponse.NOT_SERVING
                await self._health.set(service, status)

    async def drain(self) -> None:
        """Report NOT_SERVING to health checks; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Accept no new calls, and answer those in flight within `grace_s`."""
        if self._server is not None:
            await self._server.stop(grace_s)

    async def _should_rate_limit(self, message: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if len(message) > self._limits.max_message_bytes:
            self._on_guard(Guard.MESSAGE)
            return self._batcher.too_large
        metadata = context.invocation_metadata() or ()
        sizes = (len(key) + len(value) + FIELD_BYTES for key, value in metadata)
        if sum(sizes) > self._limits.max_header_bytes:
            self._on_guard(Guard.HEADERS)
            return self._batcher.too_large
        try:
            plan = self._planner.plan(message)
        except RequestTooLargeError:
            self._on_guard(Guard.MESSAGE)
            return self._batcher.too_large
        except InvalidRequestError as error:
            self._on_guard(Guard.INVALID_CALL)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        waiter = Waiter(self._batcher)
        calls = Calls(waiter, self._batcher.clock())
        if self._traced and (parent := _parent(metadata)) is not None:
            calls.add_parent(ONLY, parent)
        if self._batcher.room() <= 0:
            answer = self._batcher.shed(plan, Shed.WAITING_CALLS, calls, ONLY)
        else:
            calls.plans.append(plan)
            calls.stream_ids.append(ONLY)
            if (timeout_s := context.time_remaining()) is not None:
                calls.deadline = calls.arrived + deadline_after_s(timeout_s)
            self._batcher.submit(calls)
            answer = await waiter.future
        if isinstance(answer, Uncounted):
            # Only what the store was not asked about may be tried again elsewhere: it cannot be counted twice.
            unsent = answer is Uncounted.UNSENT
            status = grpc.StatusCode.UNAVAILABLE if unsent else grpc.StatusCode.DEADLINE_EXCEEDED
            await context.abort(status, "the counters' store does not answer")
        return answer


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """Credentials that use the newest files at each handshake."""

    def newest() -> grpc.ServerCertificateConfiguration:
        key, cert, client_ca = tls.pem
        return grpc.ssl_server_certificate_configuration([(key, cert)], client_ca)

    mutual = tls.files.client_ca is not None
    return grpc.dynamic_ssl_server_credentials(newest(), newest, require_client_authentication=mutual)


def _parent(metadata: Iterable[tuple[str, str | bytes]]) -> TraceParent | None:
    def values(name: str) -> list[bytes]:
        return [value.encode() for key, value in metadata if key == name and isinstance(value, str)]

    return sampled_parent(values("traceparent"), values("tracestate"))
