"""Whether traces are sent, by the variables that OpenTelemetry has for that."""

from collections.abc import Mapping

from extauth.telemetry import events
from extauth.telemetry.tracing import QueueLimits, Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"


def open_tracing(environ: Mapping[str, str], *, replica: str, store: str | None) -> Tracing | None:
    """What sends the spans of this replica; None where the environment names no receiver, or one that is unsupported.

    `store` is the URL of Redis without secrets, None without a Redis. A mistake here is logged, and stops nothing:
    platforms set these variables for all that they run.
    """
    if not wanted(environ):
        return None
    name, protocol = next(((name, environ[name]) for name in _PROTOCOLS if environ.get(name)), ("", _PROTOCOL))
    if protocol.strip().lower() != _PROTOCOL:
        events.tracing_off(f"{name}={protocol} is not supported", f"set {name}={_PROTOCOL}, and an endpoint for it")
        return None
    try:
        from extauth.telemetry.otlp import OtlpReceiver  # noqa: PLC0415 - an extra, and 15 MB

        receiver = OtlpReceiver(replica=replica, store=store)
    except ImportError as error:
        events.tracing_off(str(error), "install extauth[tracing], or set OTEL_TRACES_EXPORTER=none")
        return None
    except Exception as error:  # noqa: BLE001 - whatever the SDK does not like about its variables
        events.tracing_off(
            f"{type(error).__name__}: {error}", "mend the OTEL_* variable, or set OTEL_SDK_DISABLED=true"
        )
        return None
    for warning in receiver.warnings:
        events.tracing_variable(warning)
    return Tracing(receiver, events.traces, queue_limits(environ))


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether traces are to be sent: an endpoint is set or `otlp` is named, and nothing switches it off."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if exporters := environ.get("OTEL_TRACES_EXPORTER"):
        return "otlp" in [name.strip() for name in exporters.split(",")]
    return any(environ.get(name) for name in _ENDPOINTS)


def queue_limits(environ: Mapping[str, str]) -> QueueLimits:
    """The limits that the variables OTEL_BSP_* set for spans, of which a call has two; what is no number is ignored."""
    spans, batch = (
        _number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 2048),
        _number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512),
    )
    calls = max(spans // 2, 1)
    delay_ms = _number(environ, "OTEL_BSP_SCHEDULE_DELAY", 5000)
    return QueueLimits(max_calls=calls, max_batch=min(max(batch // 2, 1), calls), delay_s=delay_ms / 1000)


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name, "").strip()
    return int(value) if value.isascii() and value.isdigit() and 0 < int(value) <= 10_000_000 else default
