"""Writes docs/metrics.md from the catalogue of metrics: `python -m scripts.metrics_page`."""

from pathlib import Path

from extauth.telemetry import catalogue
from extauth.telemetry.catalogue import Kind, Metric

PAGE = Path(__file__).parents[1] / "docs/metrics.md"

# Of prometheus-client, as it is on Linux.
PROCESS = (
    Metric(
        "process_cpu_seconds",
        Kind.COUNTER,
        "CPU time of the process.",
        "Its rate is the share of a core that is used. A process uses one core at most: above 0.9, add workers or "
        "replicas.",
    ),
    Metric(
        "process_resident_memory_bytes",
        Kind.GAUGE,
        "Memory of the process.",
        "Compare it with the container's limit. What callers can fill is bounded, see "
        "[architecture](architecture.md#memory-that-callers-can-fill).",
    ),
    Metric("process_virtual_memory_bytes", Kind.GAUGE, "Address space of the process.", "Nothing to watch."),
    Metric("process_open_fds", Kind.GAUGE, "Open files and sockets.", "Compare it with `process_max_fds`."),
    Metric("process_max_fds", Kind.GAUGE, "How many files and sockets may be open.", "It bounds the connections, too."),
    Metric(
        "process_start_time_seconds",
        Kind.GAUGE,
        "When the process began, in seconds since the epoch.",
        "A change shows a restart.",
    ),
)

GROUPS: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    (
        "Requests and rules",
        (
            catalogue.REQUESTS,
            catalogue.RULE_CALLS,
            catalogue.RULE_OVER_LIMIT,
            catalogue.RULE_NEAR_LIMIT,
            catalogue.TIER_NEAR_LIMIT,
            catalogue.RULE_SHADOW_DENIED,
            catalogue.UNMATCHED_CALLS,
        ),
    ),
    (
        "Decisions",
        (
            catalogue.DECISIONS,
            catalogue.DECISION_DURATION,
            catalogue.BATCH_SIZE,
            catalogue.SHED_CALLS,
            catalogue.DENIAL_CACHE_HITS,
            catalogue.DENIAL_CACHE_MISSES,
            catalogue.PLAN_MEMO_HITS,
            catalogue.PLAN_MEMO_MISSES,
        ),
    ),
    (
        "Redis",
        (
            catalogue.STORE_UP,
            catalogue.STORE_BREAKER,
            catalogue.STORE_DURATION,
            catalogue.STORE_ERRORS,
            catalogue.STORE_FAILURE_DECISIONS,
            catalogue.REPLICAS,
            catalogue.CUT_OFF,
            catalogue.LOCAL_SHARE,
        ),
    ),
    ("Clients of the gRPC port", (catalogue.CONNECTIONS, catalogue.MAX_CONNECTIONS, catalogue.GUARD_TRIPS)),
    (
        "Configuration",
        (
            catalogue.RULES,
            catalogue.CONFIG_INFO,
            catalogue.CONFIG_RELOADS,
            catalogue.CONFIG_RELOAD_SUCCESSFUL,
            catalogue.CONFIG_RELOAD_TIME,
            catalogue.BUILD_INFO,
        ),
    ),
    ("Process", PROCESS),
)

_HEAD = """\
# Metrics

All metrics of extauth, as `/metrics` at `EXTAUTH_ADMIN_LISTEN` serves them: in OpenMetrics if the scraper's Accept
prefers it, as Prometheus' does, else in Prometheus' text format; compressed with gzip if its Accept-Encoding allows it.
A histogram has the series `…_bucket`, `…_count` and `…_sum`.

With several [workers](operations.md#workers), the column `workers` says how their values become one: the `sum`, the
`largest` or the `smallest`, each for series of the same labels; `same` is the parent's own, which holds for all.
`process_*` are of each process: they have one more label then, `worker`, which is `parent`, `0`, `1` and so on.

Requests can add a bounded number of series only, or with several workers that number for each; names from the
config files always have their own. After a reload, series of rules that are gone stay for a while, so that no counter
falls while it is still read.

[observability.md](observability.md) describes the dashboards and alerts that are built on these metrics, and
[runbook.md](runbook.md) what to do when an alert fires. This page is written by `python -m scripts.metrics_page`, from
[catalogue.py](../extauth/telemetry/catalogue.py).
"""


def page() -> str:
    """The text of docs/metrics.md."""
    return _HEAD + "".join(_group(title, metrics) for title, metrics in GROUPS)


def _group(title: str, metrics: tuple[Metric, ...]) -> str:
    rows = "".join(map(_row, metrics))
    head = "| metric | type | workers | what it says | what to do with it |\n|---|---|---|---|---|\n"
    return f"\n## {title}\n\n{head}{rows}"


def _row(metric: Metric) -> str:
    labels = f"{{{','.join(metric.labels)}}}" if metric.labels else ""
    across = "each" if metric in PROCESS else str(metric.across)
    cells = (f"`{metric.series}{labels}`", str(metric.kind), across, metric.meaning, metric.use)
    return f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
