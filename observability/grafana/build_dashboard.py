"""Writes dashboards/rate-limiting.json: `python observability/grafana/build_dashboard.py`."""

import json
from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DataSourceRef, Threshold, ThresholdsMode

TARGET = Path(__file__).parent / "dashboards" / "rate-limiting.json"

_PROMETHEUS = DataSourceRef(type_val="prometheus", uid="prometheus")

# A PromQL expression and the legend of its series.
Query = tuple[str, str]


def _rate(selector: str) -> str:
    return f"rate({selector}[$__rate_interval])"


def _or_none(expr: str) -> str:
    """0 before a counter's first event, when it has no series yet: a gap would look like a fault."""
    return f"({expr} or vector(0))"


def _targets(queries: Sequence[Query]) -> list[Dataquery]:
    return [
        Dataquery().ref_id(chr(ord("A") + i)).datasource(_PROMETHEUS).expr(expr).legend_format(legend).range()
        for i, (expr, legend) in enumerate(queries)
    ]


def _lines(
    title: str, description: str, unit: str, *queries: Query, span: int = 12, stacked: bool = False
) -> TimeSeries:
    """Lines over time; stacked where their sum means something."""
    panel = (
        TimeSeries()
        .title(title)
        .description(description)
        .datasource(_PROMETHEUS)
        .unit(unit)
        .min(0)
        .height(8)
        .span(span)
        .line_width(1)
        .fill_opacity(25 if stacked else 8)
        .show_points(VisibilityMode.NEVER)
        .legend(
            VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
            .calcs(["mean", "lastNotNull"])
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    for target in _targets(queries):
        panel.with_target(target)
    return panel.stacking(StackingConfig().mode(StackingMode.NORMAL)) if stacked else panel


def _number(title: str, description: str, unit: str, expr: str, *steps: tuple[float | None, str]) -> Stat:
    """One number; `steps` are (from this value on, this colour), the first from None."""
    thresholds = [Threshold(value=value, color=color) for value, color in steps or ((None, "green"),)]
    panel = (
        Stat()
        .title(title)
        .description(description)
        .datasource(_PROMETHEUS)
        .unit(unit)
        .height(4)
        .span(4)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(thresholds))
    )
    for target in _targets([(expr, "")]):
        panel.with_target(target)
    return panel


_ALL = _rate("http_requests_total")
_ALLOWED = _rate('http_requests_total{status="allowed"}')
_DENIED = _rate('http_requests_total{status="denied"}')
_BUCKETS = "sum by (le) (" + _rate("extauth_decision_duration_seconds_bucket") + ")"
_API = _rate('envoy_cluster_upstream_rq{envoy_cluster_name="echo"}')
_STORE_FAIL_OPEN = _rate('extauth_store_failure_decisions_total{outcome="allow"}')
_ENVOY_FAIL_OPEN = _rate("envoy_cluster_ratelimit_failure_mode_allowed")


def _now() -> list[Stat]:
    return [
        _number("Requests", "Decisions a second, over all replicas.", "reqps", f"sum({_ALL})"),
        _number(
            "Denied",
            "The share of requests that were denied.",
            "percentunit",
            f"{_or_none(f'sum({_DENIED})')} / clamp_min(sum({_ALL}), 1e-9)",
        ),
        _number(
            "Replicas up",
            "extauth replicas that Prometheus reaches.",
            "none",
            _or_none('sum(up{job="extauth"})'),
            (None, "red"),
            (1, "green"),
        ),
        _number(
            "Replicas without a store",
            "extauth replicas that do not reach Redis. They answer by EXTAUTH_ON_STORE_FAILURE.",
            "none",
            _or_none("count(extauth_store_up == 0)"),
            (None, "green"),
            (1, "red"),
        ),
        _number(
            "Uncounted",
            "Requests a second that passed uncounted: let through by extauth while Redis failed, or by Envoy while "
            "extauth failed.",
            "reqps",
            f"{_or_none(f'sum({_STORE_FAIL_OPEN})')} + {_or_none(f'sum({_ENVOY_FAIL_OPEN})')}",
            (None, "green"),
            (0.001, "red"),
        ),
        _number(
            "Rejected edits, last hour",
            "Edits of the rules that a replica refused, keeping the old ones. Its log names file, line and column.",
            "none",
            _or_none('sum(increase(extauth_config_reloads_total{outcome="error"}[1h]))'),
            (None, "green"),
            (0.5, "red"),
        ),
    ]


def _requests() -> list[TimeSeries]:
    return [
        _lines(
            "Allowed requests by path and tier",
            "Admitted requests a second. The path is the route's. Tier none: no tier's limit applied.",
            "reqps",
            (f"sum by (path, tier) ({_ALLOWED})", "{{path}} · {{tier}}"),
            stacked=True,
        ),
        _lines(
            "Denied requests by path and tier",
            "Requests answered 429, a second.",
            "reqps",
            (f"sum by (path, tier) ({_DENIED})", "{{path}} · {{tier}}"),
            stacked=True,
        ),
        _lines(
            "Denial ratio by tier",
            "The share of a tier's requests that were denied.",
            "percentunit",
            # A tier without a denial has no denied series yet: its share is 0, not unknown.
            (
                f"(sum by (tier) ({_DENIED}) or 0 * sum by (tier) ({_ALL})) / sum by (tier) ({_ALL})",
                "{{tier}}",
            ),
        ),
        _lines(
            "API responses by code",
            "What the API behind Envoy answered. Denied requests never reach it.",
            "reqps",
            (
                f"sum by (envoy_response_code) ({_API})",
                "{{envoy_response_code}}",
            ),
            stacked=True,
        ),
    ]


def _limiter() -> list[TimeSeries]:
    outcomes = ("ok", "over_limit", "error", "failure_mode_allowed")
    return [
        _lines(
            "Decision latency",
            "From a call's arrival at extauth to its answer. Every request waits for this.",
            "s",
            (f"histogram_quantile(0.5, {_BUCKETS})", "p50"),
            (f"histogram_quantile(0.99, {_BUCKETS})", "p99"),
        ),
        _lines(
            "Envoy's view of the limiter",
            "What Envoy's calls to extauth came to. failure_mode_allowed: no answer in time, so the request passed "
            "uncounted.",
            "reqps",
            *((_or_none(f"sum({_rate(f'envoy_cluster_ratelimit_{outcome}')})"), outcome) for outcome in outcomes),
        ),
        _lines(
            "Store failures",
            "Errors at Redis by kind, and what the calls that met one were answered.",
            "reqps",
            (f"sum by (kind) ({_rate('extauth_store_errors_total')})", "error {{kind}}"),
            (f"sum by (outcome) ({_rate('extauth_store_failure_decisions_total')})", "decided {{outcome}}"),
            span=8,
        ),
        _lines(
            "Rule reloads",
            "Edits taken up (ok) and refused (error), in five minutes.",
            "none",
            ("sum by (outcome) (increase(extauth_config_reloads_total[5m]))", "{{outcome}}"),
            span=8,
        ),
        _lines(
            "CPU of the replicas",
            "Cores that each extauth uses. Each is one event loop: near 1, it is time for another replica.",
            "none",
            (_rate('process_cpu_seconds_total{job="extauth"}'), "{{instance}}"),
            span=8,
        ),
    ]


def build() -> str:
    """Build the dashboard's JSON, ending in a newline."""
    builder = (
        Dashboard("Rate Limiting Dashboard")
        .uid("rate-limiting")
        .description("Who is admitted, who is denied, and whether the limiter itself is well.")
        .tags(["extauth", "envoy"])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .annotations([])
        .variables([])
    )
    for title, panels in (("Now", _now()), ("Requests", _requests()), ("The limiter", _limiter())):
        builder.with_row(Row(title))
        for panel in panels:
            builder.with_panel(panel)
    dashboard = builder.build()
    # A link to a panel (?viewPanel=7) names it by its id.
    for number, placed in enumerate(dashboard.panels or [], start=1):
        placed.id_val = number
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(build(), encoding="utf-8")
