"""Whether traces are sent is said by the variables OTEL_*."""

import sys

import pytest
import structlog.testing

from extauth.telemetry.open_tracing import open_tracing, queue_limits, wanted
from extauth.telemetry.tracing import QueueLimits

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "extauth"}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4318/v1/metrics"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "true"}, False),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "false"}, True),
    ],
)
def test_traces_are_sent_where_the_variables_name_a_receiver(environ: dict[str, str], expected: bool) -> None:
    assert wanted(environ) is expected
    if not expected:
        assert open_tracing(environ, replica="r", store=None) is None


@pytest.mark.parametrize(
    ("environ", "limits"),
    [
        ({}, QueueLimits(max_calls=1024, max_batch=256, delay_s=5)),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, QueueLimits(max_calls=50, max_batch=50, delay_s=5)),
        (
            {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1", "OTEL_BSP_SCHEDULE_DELAY": "250"},
            QueueLimits(max_calls=1024, max_batch=1, delay_s=0.25),
        ),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "many", "OTEL_BSP_SCHEDULE_DELAY": "-1"}, QueueLimits()),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "0", "OTEL_BSP_SCHEDULE_DELAY": " "}, QueueLimits()),
    ],
)
def test_the_queue_has_the_size_that_is_set_for_spans(environ: dict[str, str], limits: QueueLimits) -> None:
    assert queue_limits(environ) == limits


@pytest.mark.parametrize("name", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
def test_another_protocol_is_a_warning(name: str) -> None:
    with structlog.testing.capture_logs() as lines:
        assert open_tracing(ENDPOINT | {name: "grpc"}, replica="r", store=None) is None
    assert lines == [
        {
            "event": "tracing_off",
            "log_level": "warning",
            "reason": f"{name}=grpc is not supported",
            "fix": f"set {name}=http/protobuf, and an endpoint for it",
        }
    ]


def test_without_the_extra_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "extauth.telemetry.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "requests", None)
    with structlog.testing.capture_logs() as lines:
        assert open_tracing(ENDPOINT, replica="r", store=None) is None
    assert [line["event"] for line in lines] == ["tracing_off"]
    assert "extauth[tracing]" in lines[0]["fix"]


def test_a_variable_that_the_sdk_refuses_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1")  # which it reads when it is made
    with structlog.testing.capture_logs() as lines:
        assert open_tracing(ENDPOINT, replica="r", store=None) is None
    assert [line["event"] for line in lines] == ["tracing_off"]


def test_what_the_sdk_ignores_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "a secret")
    with structlog.testing.capture_logs() as lines:
        assert open_tracing(ENDPOINT, replica="r", store=None) is not None
    assert [line["event"] for line in lines] == ["tracing_variable"]
    assert "secret" not in str(lines)
