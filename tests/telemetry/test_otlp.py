"""Spans as a receiver of OTLP gets them."""

import logging
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest

from extauth.limiter.counters import Source
from extauth.rls.response import Code
from extauth.rls.trace_context import TraceParent
from extauth.rules.model import OnStoreFailure
from extauth.telemetry.otlp import METHOD, OtlpReceiver
from extauth.telemetry.tracing import BatchRecord, CallRecord
from tests.support.otlp import Received, receiver
from tests.support.ports import free_port

PARENT = TraceParent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1, "a=1,b=2")
BATCH = BatchRecord(1200, 1700, 40)
CALL = CallRecord(
    parent=PARENT,
    arrived_ns=1000,
    answered_ns=2000,
    domain="api",
    tier="free",
    rules=("api_key", "path"),
    code=Code.OVER_LIMIT,
    source=Source.STORE,
    given=None,
    sent=True,
    batch=BATCH,
)
STORE = "redis://***@redis.internal:6380/3"


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Received]:
    with receiver() as started:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", started.url)
        yield started


def sender(store: str | None = STORE) -> OtlpReceiver:
    return OtlpReceiver(replica="replica-1", store=store)


def test_a_decision_is_a_span_below_its_caller_s_and_the_store_one_below_that(received: Received) -> None:
    assert sender().send([CALL]) == ""
    store, decision = received.spans
    assert (decision.name, decision.kind, decision.failed) == (METHOD, "SERVER", False)
    assert (decision.trace_id, decision.parent_id, decision.state) == (PARENT.trace_id, PARENT.span_id, PARENT.state)
    assert (decision.begun_ns, decision.ended_ns) == (1000, 2000)
    assert decision.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": METHOD,
        "rpc.response.status_code": "OK",
        "extauth.domain": "api",
        "extauth.tier": "free",
        "extauth.rules": ["api_key", "path"],
        "extauth.code": "OVER_LIMIT",
        "extauth.source": "store",
    }
    assert (store.name, store.kind, store.failed, store.links) == ("EVALSHA", "CLIENT", False, ())
    assert (store.trace_id, store.parent_id) == (PARENT.trace_id, decision.span_id)
    assert (store.begun_ns, store.ended_ns) == (1200, 1700)
    assert store.attributes == {
        "db.system.name": "redis",
        "db.operation.name": "EVALSHA",
        "db.namespace": "3",
        "server.address": "redis.internal",
        "server.port": 6380,
        "extauth.batch.calls": 40,
    }


def test_spans_at_the_store_link_to_the_first_of_their_batch(received: Received) -> None:
    other = BatchRecord(5000, 6000, 1)
    batches = [BATCH, other, BATCH, BATCH]
    assert sender().send([CALL._replace(batch=batch) for batch in batches]) == ""
    first, alone, second, third = (span for span in received.spans if span.kind == "CLIENT")
    assert first.links == alone.links == ()
    assert second.links == third.links == ((first.trace_id, first.span_id),)


@pytest.mark.parametrize(
    ("changes", "status", "attributes"),
    [
        ({"code": None}, "DEADLINE_EXCEEDED", {"error.type": "DEADLINE_EXCEEDED"}),
        ({"code": None, "sent": False}, "UNAVAILABLE", {"error.type": "UNAVAILABLE"}),
        ({"code": Code.OK, "given": OnStoreFailure.ALLOW, "shed": "timeout"}, "OK", {"extauth.code": "OK"}),
    ],
)
def test_a_call_without_the_store_s_answer(
    received: Received, changes: dict[str, Any], status: str, attributes: dict[str, str]
) -> None:
    call = CALL._replace(batch=None, source=Source.FAILURE_POLICY, **changes)
    assert sender().send([call]) == ""
    (span,) = received.spans
    assert span.failed is (call.code is None)
    assert span.attributes["rpc.response.status_code"] == status
    assert span.attributes.items() >= attributes.items()
    assert span.attributes.get("extauth.shed") == (call.shed or None)
    assert span.attributes.get("extauth.on_store_failure") == (call.given and str(call.given))


def test_an_error_of_the_store_is_its_span_s(received: Received) -> None:
    failed = BATCH._replace(error_kind="timeout", error="no reply within 100 ms")
    assert sender().send([CALL._replace(batch=failed)]) == ""
    store, decision = received.spans
    assert (store.failed, store.message) == (True, "no reply within 100 ms")
    assert store.attributes["error.type"] == "timeout"
    assert not decision.failed


@pytest.mark.parametrize(
    ("store", "call"),
    [(None, CALL), (STORE, CALL._replace(sent=False, source=Source.DENIAL_CACHE))],
    ids=["in memory", "not asked"],
)
def test_without_a_store_that_was_asked_there_is_no_span_for_it(
    received: Received, store: str | None, call: CallRecord
) -> None:
    assert sender(store).send([call]) == ""
    assert [span.kind for span in received.spans] == ["SERVER"]


@pytest.mark.parametrize(
    ("url", "attributes"),
    [
        ("redis://127.0.0.1", {"server.address": "127.0.0.1", "server.port": 6379, "db.namespace": "0"}),
        ("rediss://***@[::1]:7000/", {"server.address": "::1", "server.port": 7000, "db.namespace": "0"}),
        ("unix:///run/redis.sock", {"server.address": "/run/redis.sock"}),
    ],
)
def test_the_store_s_address(received: Received, url: str, attributes: dict[str, Any]) -> None:
    assert sender(url).send([CALL]) == ""
    shown = received.spans[0].attributes
    assert {name: value for name, value in shown.items() if name.startswith(("server.", "db.namespace"))} == attributes


def test_the_variables_of_opentelemetry_are_honoured(received: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{received.url}/own/path")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "limits")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=other")
    assert sender().send([CALL]) == ""
    ((path, headers),) = received.requests
    assert (path, headers["x-tenant"]) == ("/own/path", "blue")
    assert (
        received.spans[0].resource.items()
        >= {
            "service.name": "limits",
            "service.version": version("extauth"),
            "service.instance.id": "replica-1",
            "deployment.environment.name": "test",
        }.items()
    )


def test_without_them_the_service_is_extauth(received: Received) -> None:
    assert sender().send([CALL]) == ""
    assert received.spans[0].service == "extauth"


def test_a_receiver_that_refuses_is_reported(received: Received) -> None:
    sending = sender()
    received.status = 401
    assert sending.send([CALL]) == "the receiver answers with HTTP status 401"
    received.status = 200
    assert sending.send([CALL]) == ""


def test_a_receiver_that_is_away_is_reported_without_secrets(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://u:pass@127.0.0.1:{free_port()}/?token=secret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    reason = sender().send([CALL])
    assert reason.startswith("the receiver is not reached: [Errno ")
    assert reason.endswith("] Connection refused")
    assert caplog.records == [], "the exporter's own lines would come with each batch"


def test_a_header_that_is_malformed_is_a_warning_without_its_value(
    received: Received, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "a secret")
    sending = sender()
    (warning,) = sending.warnings
    assert warning.startswith("Header format invalid")
    assert "secret" not in warning + caplog.text
    assert sending.send([CALL]) == ""
    assert logging.getLogger("opentelemetry").handlers[1:] == []


def test_all_calls_of_a_request_are_sent(received: Received) -> None:
    calls = [CALL._replace(parent=PARENT._replace(span_id=f"{number:016x}")) for number in range(1, 257)]
    assert sender().send(calls) == ""
    assert {span.parent_id for span in received.spans if span.kind == "SERVER"} == {c.parent.span_id for c in calls}
    assert len({span.span_id for span in received.spans}) == len(received.spans) == 512
