"""The command `extauth serve` with a receiver of traces: there, away, and back."""

from collections.abc import Callable, Iterator

import grpc
import pytest

from extauth.rls.request import SERVICE
from tests.integration.store_service import call
from tests.support.otlp import receiver
from tests.support.ports import free_port
from tests.support.process import Served, served_with
from tests.support.stores import Store
from tests.support.wait import until

CONFIG = """
domain: d
descriptors: [{key: tight, rate_limit: {unit: day, requests_per_unit: 2}}]
"""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SETTINGS = {"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5", "EXTAUTH_LOG_FORMAT": "json"}


@pytest.fixture
def serve(own_store: Store) -> Iterator[Callable[..., Served]]:
    with served_with(own_store, CONFIG) as start:
        yield start


def ask(served: Served, calls: int, *, flags: int = 1) -> None:
    """Calls of one trace, whose callers' spans are numbered from 1."""
    with grpc.insecure_channel(served.address) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")
        for number in range(1, calls + 1):
            metadata = (("traceparent", f"00-{TRACE}-{number:016x}-{flags:02x}"),)
            method(call("tight"), timeout=20, metadata=metadata)


def events(served: Served, *names: str) -> list[dict[str, object]]:
    return [line for line in served.lines() if line["event"] in names]


@pytest.mark.parametrize("engine", ["h2", "grpcio"])
def test_spans_of_sampled_calls_reach_the_receiver(serve: Callable[..., Served], engine: str) -> None:
    with receiver() as received:
        served = serve(
            **SETTINGS, OTEL_EXPORTER_OTLP_ENDPOINT=received.url, EXTAUTH_ENGINE=engine, EXTAUTH_LOG_LEVEL="debug"
        )
        served.until_ready()
        ask(served, 5, flags=0)
        ask(served, 3)
        until(lambda: len(received.spans) >= 6)
        decisions = [span for span in received.spans if span.kind == "SERVER"]
        assert [span.parent_id for span in decisions] == [f"{number:016x}" for number in (1, 2, 3)]
        assert {span.attributes["extauth.code"] for span in decisions} == {"OVER_LIMIT"}
        lines = events(served, "decision")
        assert [line.get("trace_id") for line in lines] == [None] * 5 + [TRACE] * 3


def test_spans_that_wait_are_sent_when_the_service_stops(serve: Callable[..., Served]) -> None:
    with receiver() as received:
        served = serve(**SETTINGS | {"OTEL_BSP_SCHEDULE_DELAY": "60000"}, OTEL_EXPORTER_OTLP_ENDPOINT=received.url)
        served.until_ready()
        ask(served, 2)
        assert received.spans == []
        served.process.terminate()
        assert served.process.wait(20) == 0
        assert len([span for span in received.spans if span.kind == "SERVER"]) == 2


def test_while_nobody_receives_decisions_go_on_and_one_line_says_so(serve: Callable[..., Served]) -> None:
    port = free_port()
    served = serve(**SETTINGS, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}")
    served.until_ready()
    for _ in range(3):
        ask(served, 10)
        until(lambda: len(events(served, "traces_lost")) == 1, served.log.read_text)
    with receiver(port) as received:

        def back() -> bool:
            ask(served, 1)
            return len(events(served, "traces_sent")) == 1

        until(back, served.log.read_text)
        assert received.spans
    (lost,) = events(served, "traces_lost")
    assert (lost["level"], "Connection refused" in str(lost["reason"])) == ("warning", True)
    assert {line["event"] for line in served.lines()} == {"store_up", "serving", "traces_lost", "traces_sent"}
    served.process.terminate()
    assert served.process.wait(20) == 0


def test_without_a_receiver_what_sends_spans_is_not_imported(serve: Callable[..., Served]) -> None:
    served = serve(PYTHONVERBOSE="1")
    served.until_ready()
    imported = served.log.read_text()
    assert "extauth.telemetry.tracing" in imported
    assert "opentelemetry.exporter" not in imported
    assert "urllib3" not in imported
