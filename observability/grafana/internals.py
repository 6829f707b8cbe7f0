"""The dashboard "extauth internals": whether extauth itself is well, and what it is busy with."""

from collections.abc import Sequence

from observability.grafana.frame import dashboard_json
from observability.grafana.panels import Panel, lines, number, states
from observability.grafana.replica_panels import CPU, replicas
from observability.grafana.selectors import envoy_limiter, extauth, or_none, quantile, rate, share

TITLE = "extauth internals"

_SOURCES = "extauth_decisions_total"
_BREAKER = {0: ("closed", "green"), 1: ("half-open", "yellow"), 2: ("open", "red")}


def _buckets(name: str, *labels: str) -> str:
    """The rates of a histogram of extauth, over all replicas or by these labels."""
    return f"sum by ({', '.join((*labels, 'le'))}) ({rate(extauth(f'{name}_bucket'))})"


def _mean(name: str) -> str:
    return f"sum({rate(extauth(f'{name}_sum'))}) / clamp_min(sum({rate(extauth(f'{name}_count'))}), 1e-9)"


def _hits(name: str) -> str:
    """The share of hits of a memory, from its two counters."""
    hits, misses = (f"sum({rate(extauth(f'{name}_{found}_total'))})" for found in ("hits", "misses"))
    return share(hits, f"({hits} + {or_none(misses)})")


_DECISION = _buckets("extauth_decision_duration_seconds")
_STORE = _buckets("extauth_store_duration_seconds")
_BATCH = _buckets("extauth_batch_size")
_WAIT = f"sum by (le) ({rate(envoy_limiter('envoy_cluster_upstream_rq_time_bucket'))})"
_CLOSED = extauth("extauth_store_breaker", 'state="closed"')


def _now() -> list[Panel]:
    return [
        number(
            "p99 latency",
            "99 of 100 decisions took less.",
            "s",
            quantile(0.99, _DECISION),
            (None, "green"),
            (0.05, "red"),
            span=6,
        ),
        number(
            "p99 of Redis",
            "99 of 100 batches that asked Redis took less.",
            "s",
            quantile(0.99, _STORE),
            (None, "green"),
            (0.05, "red"),
            span=6,
        ),
        number(
            "Breakers not closed",
            "extauth replicas that do not ask Redis, or only try whether it answers.",
            "none",
            or_none(f"count({_CLOSED} == 0)"),
            (None, "green"),
            (1, "red"),
            span=6,
        ),
        number(
            "Busiest core",
            "Each replica is one event loop, so 1 is all that it can use.",
            "percentunit",
            f"max({CPU})",
            (None, "green"),
            (0.7, "orange"),
            (0.9, "red"),
            span=6,
        ),
    ]


def _latency() -> list[Panel]:
    return [
        lines(
            "Decision latency",
            "From a call's arrival at extauth to its answer. Every request waits for this. Redis' part of it is that "
            "of a batch of calls.",
            "s",
            (quantile(0.5, _DECISION), "p50"),
            (quantile(0.99, _DECISION), "p99"),
            (quantile(0.99, _STORE), "p99 of Redis"),
            span=8,
        ),
        lines(
            "p99 latency by replica",
            "99 of 100 decisions of a replica took less. One far above the others: see its CPU and its way to Redis.",
            "s",
            (quantile(0.99, _buckets("extauth_decision_duration_seconds", "instance")), "{{instance}}"),
            span=8,
        ),
        lines(
            "Envoy's wait for extauth",
            "How long Envoy waited for the answers of extauth. What this has more than the decision latency is the "
            "network, and Envoy.",
            "ms",
            (quantile(0.5, _WAIT), "p50"),
            (quantile(0.99, _WAIT), "p99"),
            span=8,
        ),
    ]


def _redis() -> list[Panel]:
    half_open, opened = (
        f"max by (instance) ({extauth('extauth_store_breaker', state)})"
        for state in ('state="half-open"', 'state="open"')
    )
    return [
        lines(
            "Redis latency",
            "From asking Redis for a batch of calls to its result or its failure.",
            "s",
            (quantile(0.5, _STORE), "p50"),
            (quantile(0.9, _STORE), "p90"),
            (quantile(0.99, _STORE), "p99"),
            span=6,
        ),
        lines(
            "Redis errors",
            "Batches and probes a second that Redis failed: too slow (timeout), gone (connection), refused (reply).",
            "reqps",
            (f"sum by (kind) ({rate(extauth('extauth_store_errors_total'))})", "{{kind}}"),
            span=6,
        ),
        states(
            "Breaker",
            "Whether a replica asks Redis (closed), does not (open), or tries whether it answers (half-open).",
            (f"{half_open} + 2 * {opened}", "{{instance}}"),
            _BREAKER,
            span=6,
        ),
        lines(
            "Who decided",
            "Calls a second: counted by Redis (store), denied again from memory (denial_cache), asking about nothing "
            "that is counted (no_counter), counted by the replica alone (local), or by EXTAUTH_ON_STORE_FAILURE.",
            "reqps",
            (f"sum by (source) ({rate(extauth(_SOURCES))})", "{{source}}"),
            span=6,
            stacked=True,
        ),
    ]


def _batches() -> list[Panel]:
    return [
        lines(
            "Calls a batch",
            "What arrives while a batch is at Redis is the next one. Larger batches cost less a call.",
            "none",
            (_mean("extauth_batch_size"), "mean"),
            (quantile(0.5, _BATCH), "p50"),
            (quantile(0.99, _BATCH), "p99"),
            span=8,
        ),
        lines(
            "Batches",
            "Batches a second, and those that asked Redis.",
            "ops",
            (f"sum({rate(extauth('extauth_batch_size_count'))})", "batches"),
            (f"sum({rate(extauth('extauth_store_duration_seconds_count'))})", "asked Redis"),
            span=8,
        ),
        lines(
            "Found in memory",
            "The share of calls whose message was known (plans), and of calls that were denied without asking Redis "
            "(denials).",
            "percentunit",
            (_hits("extauth_plan_memo"), "plans"),
            (_hits("extauth_denial_cache"), "denials"),
            span=8,
        ),
    ]


def _guards() -> list[Panel]:
    return [
        lines(
            "Guard trips",
            "What clients of the gRPC port were refused for, a second.",
            "ops",
            (f"sum by (guard) ({rate(extauth('extauth_guard_trips_total'))})", "{{guard}}"),
            span=8,
        ),
        lines(
            "Connections, of their bound",
            "Open connections, as a share of those that a replica accepts. At 1 it refuses further Envoys, too.",
            "percentunit",
            (f"{extauth('extauth_connections')} / {extauth('extauth_max_connections')}", "{{instance}}"),
            span=8,
        ),
        lines(
            "Open files, of their bound",
            "File descriptors of a process, as a share of those that it may have.",
            "percentunit",
            (f"{extauth('process_open_fds')} / {extauth('process_max_fds')}", "{{instance}} {{worker}}"),
            span=8,
        ),
    ]


def _envoy() -> list[Panel]:
    def calls(name: str) -> str:
        return or_none(f"sum({rate(envoy_limiter(f'envoy_cluster_upstream_{name}'))})")

    return [
        lines(
            "Envoy's calls to extauth",
            "Calls a second, health checks among them, and those that had no answer in time, were sent to another "
            "replica, or found no connection.",
            "reqps",
            (calls("rq_total"), "calls"),
            (calls("rq_timeout"), "no answer in time"),
            (calls("rq_retry"), "tried again"),
            (calls("cx_connect_fail"), "no connection"),
            (calls("rq_pending_overflow"), "no room"),
        ),
        lines(
            "Replicas that Envoy asks",
            "Replicas that Envoy knows, those whose health checks pass, and those left out because their calls failed.",
            "none",
            (or_none(f"max({envoy_limiter('envoy_cluster_membership_total')})"), "known"),
            (or_none(f"min({envoy_limiter('envoy_cluster_membership_healthy')})"), "healthy"),
            (or_none(f"max({envoy_limiter('envoy_cluster_outlier_detection_ejections_active')})"), "left out"),
        ),
    ]


def build() -> str:
    """Build the dashboard's JSON."""
    rows: dict[str, Sequence[Panel]] = {
        "Now": _now(),
        "Latency": _latency(),
        "Redis": _redis(),
        "Batches": _batches(),
        "Guards": _guards(),
        "Envoy": _envoy(),
        "Replicas": replicas(),
    }
    return dashboard_json(
        TITLE,
        "extauth-internals",
        "Whether extauth itself is at fault: latency, Redis, batches, guards, Envoy's calls, CPU and memory.",
        ("limiter", "job", "replica"),
        rows,
    )
