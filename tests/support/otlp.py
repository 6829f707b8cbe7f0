"""A receiver of traces: OTLP over HTTP, with OpenTelemetry's own messages."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True, kw_only=True)
class Span:
    """A span as it came; identifiers are hexadecimal, times nanoseconds since 1970."""

    service: str
    resource: dict[str, Any]
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    begun_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    failed: bool
    message: str


class Received:
    """The spans that came, and the paths and headers of the requests that brought them, in order."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.status = 200  # with which it answers; others keep nothing

    def of(self, service: str) -> list[Span]:
        """The spans of one service."""
        return [span for span in self.spans if span.service == service]

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        """Keep what a request brought."""
        request = ExportTraceServiceRequest.FromString(body)
        for resource_spans in request.resource_spans:
            resource = _attributes(resource_spans.resource.attributes)
            for scope_spans in resource_spans.scope_spans:
                self.spans += [_span(resource, message) for message in scope_spans.spans]
        self.requests.append((path, headers))


@contextmanager
def receiver(port: int = 0) -> Iterator[Received]:
    """A receiver on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.body()
            if received.status == 200:
                received.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(received.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def body(self) -> bytes:
            if "content-length" in self.headers:
                return self.rfile.read(int(self.headers["content-length"]))
            chunks = []  # Envoy sends them
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    received = Received(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _span(resource: dict[str, Any], message: Message) -> Span:
    return Span(
        service=resource.get("service.name", ""),
        resource=resource,
        name=message.name,
        kind=Message.SpanKind.Name(message.kind).removeprefix("SPAN_KIND_"),
        trace_id=message.trace_id.hex(),
        span_id=message.span_id.hex(),
        parent_id=message.parent_span_id.hex(),
        state=message.trace_state,
        begun_ns=message.start_time_unix_nano,
        ended_ns=message.end_time_unix_nano,
        attributes=_attributes(message.attributes),
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in message.links),
        failed=message.status.code == Status.STATUS_CODE_ERROR,
        message=message.status.message,
    )


def _attributes(pairs: Any) -> dict[str, Any]:  # noqa: ANN401 - a repeated field
    def value(any_value: AnyValue) -> Any:  # noqa: ANN401 - any of its types
        kind = any_value.WhichOneof("value")
        if kind == "array_value":
            return [value(each) for each in any_value.array_value.values]
        return None if kind is None else getattr(any_value, kind)

    return {pair.key: value(pair.value) for pair in pairs}
