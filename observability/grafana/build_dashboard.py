"""Writes dashboards/rate-limiting.json: `python -m observability.grafana.build_dashboard`."""

import json
from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

from observability.grafana.panels import (
    envoy,
    extauth,
    lines,
    number,
    or_none,
    rate,
    requests_total,
    rule,
)
from observability.grafana.variables import variables

TARGET = Path(__file__).parent / "dashboards" / "rate-limiting.json"

_ALL = rate(requests_total())
_ALLOWED = rate(requests_total('status="allowed"'))
_DENIED = rate(requests_total('status="denied"'))
_RULE_CALLS = f"sum by (domain, rule) ({rate(rule('extauth_rule_calls_total'))})"
_RULE_OVER = f"sum by (domain, rule) ({rate(rule('extauth_rule_over_limit_total'))})"
_UNMATCHED = rate(extauth("extauth_unmatched_calls_total", 'domain=~"$domain"'))
_BUCKETS = f"sum by (le) ({rate(extauth('extauth_decision_duration_seconds_bucket'))})"
_STORE_BUCKETS = f"sum by (le) ({rate(extauth('extauth_store_duration_seconds_bucket'))})"
_STORE_FAIL_OPEN = rate(extauth("extauth_store_failure_decisions_total", 'outcome="allow"'))
_STORE_FAIL_CLOSED = rate(extauth("extauth_store_failure_decisions_total", 'outcome="deny"'))
_ENVOY_ERROR = rate(envoy("envoy_cluster_ratelimit_error"))
_ENVOY_FAIL_OPEN = rate(envoy("envoy_cluster_ratelimit_failure_mode_allowed"))
# A config may have thousands of rules; a browser draws tens.
_MAX_RULES = 20


def _now() -> list[Stat]:
    return [
        number("Requests", "Decisions a second, over all replicas.", "reqps", f"sum({_ALL})"),
        number(
            "Denied",
            "The share of requests that were denied.",
            "percentunit",
            f"{or_none(f'sum({_DENIED})')} / clamp_min(sum({_ALL}), 1e-9)",
        ),
        number(
            "Replicas up",
            "extauth replicas that Prometheus reaches.",
            "none",
            or_none(f"sum({extauth('up')})"),
            (None, "red"),
            (1, "green"),
        ),
        number(
            "Without a store",
            "extauth replicas that do not reach Redis. They answer by EXTAUTH_ON_STORE_FAILURE.",
            "none",
            or_none(f"count({extauth('extauth_store_up')} == 0)"),
            (None, "green"),
            (1, "red"),
        ),
        number(
            "Uncounted",
            "Requests a second that passed uncounted: let through by extauth while Redis failed, or by Envoy while "
            "extauth failed.",
            "reqps",
            f"{or_none(f'sum({_STORE_FAIL_OPEN})')} + {or_none(f'sum({_ENVOY_FAIL_OPEN})')}",
            (None, "green"),
            (0.001, "red"),
        ),
        number(
            "Refused uncounted",
            "Requests a second that were refused uncounted: by extauth while Redis failed, or by Envoy while extauth "
            "failed.",
            "reqps",
            f"{or_none(f'sum({_STORE_FAIL_CLOSED})')} + "
            f"clamp_min({or_none(f'sum({_ENVOY_ERROR})')} - {or_none(f'sum({_ENVOY_FAIL_OPEN})')}, 0)",
            (None, "green"),
            (0.001, "red"),
        ),
        number(
            "On old rules",
            "extauth replicas whose files hold an edit that they refused, so that older rules are in force. Their logs "
            "name file, line and column.",
            "none",
            or_none(f"count({extauth('extauth_config_last_reload_successful')} == 0)"),
            (None, "green"),
            (1, "red"),
        ),
        number(
            "Rule sets in force",
            "1: all replicas run the same rules. More: they read different files, or some refused an edit.",
            "none",
            f"count(count by (hash) ({extauth('extauth_config_info')}))",
            (None, "green"),
            (2, "red"),
        ),
    ]


def _requests() -> list[TimeSeries]:
    return [
        lines(
            "Allowed requests by path and tier",
            "Admitted requests a second. The path is the route's. Tier none: no tier's limit applied.",
            "reqps",
            (f"sum by (path, tier) ({_ALLOWED})", "{{path}} · {{tier}}"),
            stacked=True,
        ),
        lines(
            "Denied requests by path and tier",
            "Requests answered 429, a second.",
            "reqps",
            (f"sum by (path, tier) ({_DENIED})", "{{path}} · {{tier}}"),
            stacked=True,
        ),
        lines(
            "Denial ratio by tier",
            "The share of a tier's requests that were denied.",
            "percentunit",
            # A tier without a denial has no denied series yet: its share is 0, not unknown.
            (
                f"(sum by (tier) ({_DENIED}) or 0 * sum by (tier) ({_ALL})) / sum by (tier) ({_ALL})",
                "{{tier}}",
            ),
        ),
        lines(
            "API responses by code",
            "What the API behind Envoy answered. Denied requests never reach it. Requests of the addresses in Envoy's "
            "internal_address_config are not among these.",
            "reqps",
            # envoy_cluster_upstream_rq would hold the 429s that Envoy itself answers for this cluster.
            (
                f"sum by (envoy_response_code) ({rate(envoy('envoy_cluster_external_upstream_rq'))})",
                "{{envoy_response_code}}",
            ),
            stacked=True,
        ),
    ]


def _rules() -> list[TimeSeries]:
    legend = "{{domain}} · {{rule}}"
    return [
        lines(
            "Calls by rule",
            f"Calls a second that a rule's limits were asked about; the {_MAX_RULES} largest.",
            "reqps",
            (f"topk({_MAX_RULES}, {_RULE_CALLS})", legend),
        ),
        lines(
            "Over limit by rule",
            f"Calls a second that a rule's limits had no room for, denied or not; the {_MAX_RULES} largest.",
            "reqps",
            (f"topk({_MAX_RULES}, {_RULE_OVER})", legend),
        ),
        lines(
            "Share over limit by rule",
            f"The share of a rule's calls that its limits had no room for; the {_MAX_RULES} largest.",
            "percentunit",
            (f"topk({_MAX_RULES}, {_RULE_OVER} / ({_RULE_CALLS} > 0))", legend),
        ),
        lines(
            "Calls that no rule matched",
            "They are admitted and limited by nothing. Domain other: no config file "
            "defines the domain that Envoy named.",
            "reqps",
            (
                f'sum by (domain) ({_UNMATCHED}) or label_replace(vector(0), "domain", "none", "", "")',
                "{{domain}}",
            ),
        ),
    ]


def _limiter() -> list[TimeSeries]:
    outcomes = ("ok", "over_limit", "error", "failure_mode_allowed")
    return [
        lines(
            "Decision latency",
            "From a call's arrival at extauth to its answer. Every request waits for this. Redis' part of it is that "
            "of a batch of calls.",
            "s",
            (f"histogram_quantile(0.5, {_BUCKETS})", "p50"),
            (f"histogram_quantile(0.99, {_BUCKETS})", "p99"),
            (f"histogram_quantile(0.99, {_STORE_BUCKETS})", "p99 of Redis"),
        ),
        lines(
            "Envoy's view of the limiter",
            "What Envoy's calls to extauth came to. failure_mode_allowed: no answer in time, so the request passed "
            "uncounted.",
            "reqps",
            *((or_none(f"sum({rate(envoy(f'envoy_cluster_ratelimit_{outcome}'))})"), outcome) for outcome in outcomes),
        ),
        lines(
            "Store failures",
            "Errors at Redis by kind, and what the calls that met one were answered.",
            "reqps",
            (f"sum by (kind) ({rate(extauth('extauth_store_errors_total'))})", "error {{kind}}"),
            (f"sum by (outcome) ({rate(extauth('extauth_store_failure_decisions_total'))})", "decided {{outcome}}"),
            span=8,
        ),
        lines(
            "Guard trips and shed calls",
            "What clients of the gRPC port were refused for, and the calls that got EXTAUTH_ON_STORE_FAILURE because "
            "they were not decided in time.",
            "reqps",
            (f"sum by (guard) ({rate(extauth('extauth_guard_trips_total'))})", "guard {{guard}}"),
            (f"sum by (reason) ({rate(extauth('extauth_shed_calls_total'))})", "shed {{reason}}"),
            span=8,
        ),
        lines(
            "CPU of the replicas",
            "Cores that each extauth uses. Each is one event loop: near 1, it is time for another replica.",
            "none",
            (rate(extauth("process_cpu_seconds_total")), "{{instance}}"),
            span=8,
        ),
        lines(
            "Rule reloads",
            "Edits taken up (ok) and refused (error), in five minutes.",
            "none",
            (f"sum by (outcome) (increase({extauth('extauth_config_reloads_total')}[5m]))", "{{outcome}}"),
            span=6,
        ),
        lines(
            "Age of the rules",
            "Time since all that a replica's files hold was last put in force.",
            "s",
            (f"time() - {extauth('extauth_config_last_reload_success_timestamp_seconds')}", "{{instance}}"),
            span=6,
        ),
        lines(
            "Memory of the replicas",
            "Resident memory of each extauth.",
            "bytes",
            (extauth("process_resident_memory_bytes"), "{{instance}}"),
            span=6,
        ),
        lines(
            "Connections, of their bound",
            "Open connections, as a share of those that a replica accepts. At 1 it refuses further Envoys, too.",
            "percentunit",
            (f"{extauth('extauth_connections')} / {extauth('extauth_max_connections')}", "{{instance}}"),
            span=6,
        ),
    ]


def build() -> str:
    """Build the dashboard's JSON, ending in a newline."""
    builder = (
        Dashboard("Rate Limiting Dashboard")
        .uid("rate-limiting")
        .description("Who is admitted, who is denied, and whether the limiter itself is well.")
        .tags(["extauth", "envoy"])
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .annotations([])
    )
    for choice in variables():
        builder.with_variable(choice)
    rows: dict[str, Sequence[Stat] | Sequence[TimeSeries]] = {
        "Now": _now(),
        "Requests": _requests(),
        "Rules": _rules(),
        "The limiter": _limiter(),
    }
    for title, panels in rows.items():
        builder.with_row(Row(title))
        for panel in panels:
            builder.with_panel(panel)
    dashboard = builder.build()
    # A link to a panel (?viewPanel=7) names it by its id.
    for panel_id, placed in enumerate(dashboard.panels or [], start=1):
        placed.id_val = panel_id
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(build(), encoding="utf-8")
