"""Spans as OpenTelemetry has them, and their way to a receiver: OTLP over HTTP, by the variables OTEL_*.

Needs the extra `tracing`. Names and attributes follow the semantic conventions for RPC and for Redis; what is our own
begins with `extauth.`.
"""

import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from extauth.rls.request import SERVICE
from extauth.rls.trace_context import TraceParent
from extauth.telemetry.tracing import BatchRecord, CallRecord
from extauth.version import own_version

METHOD = f"{SERVICE}/ShouldRateLimit"
_COMMAND = "EVALSHA"  # that counts


class OtlpReceiver:
    """The receiver that the environment names. `store` is the URL of Redis without secrets, None without a Redis.

    `warnings` is what the SDK finds wrong with its variables, without their values.
    """

    def __init__(self, *, replica: str, store: str | None) -> None:
        self._store = None if store is None else store_attributes(store)
        heard = _silence_sdk()
        own = {"service.name": "extauth", "service.version": own_version(), "service.instance.id": replica}
        provider = TracerProvider(
            sampler=ParentBased(ALWAYS_OFF),
            resource=Resource.create(own).merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._ended = _Ended()
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer("extauth", own_version())
        self._session = _Session()
        self._exporter = OTLPSpanExporter(session=self._session)
        self.warnings = heard.take()

    def send(self, calls: Sequence[CallRecord]) -> str:
        """Send the spans of these calls; returns what went wrong, or nothing."""
        stores: dict[BatchRecord, SpanContext] = {}
        for call in calls:
            self._trace(call, stores)
        spans = self._ended.take()
        self._session.fault = ""
        if self._exporter.export(spans) is SpanExportResult.SUCCESS:
            return ""
        return self._session.fault or "the spans could not be encoded"

    def close(self) -> None:
        """Give up what is being sent."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call] # as the SDK has it

    def _trace(self, call: CallRecord, stores: dict[BatchRecord, SpanContext]) -> None:
        """End a span for the call and, where the store was asked, one below it for that.

        `stores` has, for each batch, the first of its spans at the store: one command counts for many calls, so the
        other spans link to that one.
        """
        status = "OK" if call.code is not None else "DEADLINE_EXCEEDED" if call.sent else "UNAVAILABLE"
        span = self._tracer.start_span(
            METHOD,
            _context(call.parent),
            SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": METHOD, "rpc.response.status_code": status, **_decision(call)},
            start_time=call.arrived_ns,
        )
        if call.code is None:
            span.set_attribute("error.type", status)
            span.set_status(StatusCode.ERROR)
        batch = call.batch
        if batch is not None and call.sent and self._store is not None:
            first = stores.get(batch)
            below = self._tracer.start_span(
                _COMMAND,
                set_span_in_context(span),
                SpanKind.CLIENT,
                {**self._store, "extauth.batch.calls": batch.calls},
                links=[] if first is None else [Link(first)],
                start_time=batch.asked_ns,
            )
            stores.setdefault(batch, below.get_span_context())
            if batch.error_kind:
                below.set_attribute("error.type", batch.error_kind)
                below.set_status(Status(StatusCode.ERROR, batch.error))
            below.end(batch.decided_ns)
        span.end(call.answered_ns)


def store_attributes(url: str) -> dict[str, str | int]:
    """The attributes of a span at the store with that URL."""
    parts = urlsplit(url)
    attributes: dict[str, str | int] = {"db.system.name": "redis", "db.operation.name": _COMMAND}
    if parts.scheme == "unix":
        return {**attributes, "server.address": parts.path}
    attributes |= {"server.address": parts.hostname or "", "server.port": parts.port or 6379}
    return {**attributes, "db.namespace": parts.path.strip("/") or "0"}


def _decision(call: CallRecord) -> dict[str, Any]:
    """The attributes of a decision, without those that do not apply."""
    attributes = {
        "extauth.domain": call.domain,
        "extauth.tier": call.tier,
        "extauth.rules": call.rules,
        "extauth.code": call.code and call.code.name,
        "extauth.source": str(call.source),
        "extauth.on_store_failure": call.given and str(call.given),
        "extauth.shed": call.shed,
    }
    return {name: value for name, value in attributes.items() if value}


def _context(parent: TraceParent) -> Context:
    state = TraceState.from_header([parent.state]) if parent.state else None
    trace_id, span_id = int(parent.trace_id, 16), int(parent.span_id, 16)
    remote = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(parent.flags), trace_state=state)
    return set_span_in_context(NonRecordingSpan(remote), Context())


class _Heard(logging.Handler):
    """Keeps what the SDK logs, without values, until it is taken; then no more."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(str(record.msg).partition("%")[0].strip(" :("))

    def take(self) -> list[str]:
        logging.getLogger("opentelemetry").removeHandler(self)
        return self._lines


def _silence_sdk() -> _Heard:
    """Keep the SDK's lines out of the log: of each batch that is lost there is one, and they contain variables."""
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    heard = _Heard()
    logger.handlers = [logging.NullHandler(), heard]
    return heard


class _Ended(SpanProcessor):
    """Keeps the spans that have ended until they are taken."""

    def __init__(self) -> None:
        self._spans: list[ReadableSpan] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        pass

    def on_end(self, span: ReadableSpan) -> None:
        self._spans.append(span)

    def take(self) -> list[ReadableSpan]:
        spans, self._spans = self._spans, []
        return spans


class _Session(requests.Session):
    """Remembers what went wrong with its last request, if anything did."""

    fault = ""

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - as the base class has them
        try:
            response = super().request(*args, **kwargs)
        except requests.RequestException as error:
            self.fault = _cause(error)
            raise
        self.fault = "" if response.ok else f"the receiver answers with HTTP status {response.status_code}"
        return response


def _cause(error: BaseException) -> str:
    """The innermost reason, in the words of the system alone: others repeat the URL, whose query may be a secret."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"the receiver is not reached: {error if isinstance(error, OSError) else type(error).__name__}"
