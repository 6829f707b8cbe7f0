"""The "Rate Limiting Dashboard": who is admitted, who is denied, and by which rule."""

from collections.abc import Sequence

from observability.grafana.frame import dashboard_json
from observability.grafana.panels import Panel, lines, number
from observability.grafana.rule_panels import rules
from observability.grafana.selectors import (
    counted,
    envoy_rate_from_birth,
    extauth,
    or_none,
    quantile,
    rate,
    rate_from_birth,
    requests_total,
    rule,
    share,
)

TITLE = "Rate Limiting Dashboard"

_ALL = rate_from_birth(requests_total())
_ALLOWED = rate_from_birth(requests_total('status="allowed"'))
_DENIED = rate_from_birth(requests_total('status="denied"'))
_NEAR = rate_from_birth(rule("extauth_rule_near_limit_total"))
_TIER_NEAR = rate_from_birth(extauth("extauth_tier_near_limit_total", 'tier=~"$tier"'))
_UNMATCHED = rate_from_birth(extauth("extauth_unmatched_calls_total", 'domain=~"$domain"'))
_BUCKETS = f"sum by (le) ({rate(extauth('extauth_decision_duration_seconds_bucket'))})"
# envoy_cluster_upstream_rq would hold the 429s that Envoy itself answers for this cluster.
_API_RESPONSES = envoy_rate_from_birth("envoy_cluster_external_upstream_rq")
_FAILURE = "extauth_store_failure_decisions_total"
_ENVOY_OUTCOMES = ("ok", "over_limit", "error", "failure_mode_allowed")


def _envoy_rate(outcome: str) -> str:
    return f"sum({envoy_rate_from_birth(f'envoy_cluster_ratelimit_{outcome}')})"


def _failure_rate(outcome: str) -> str:
    chosen = extauth(_FAILURE, f'outcome="{outcome}"')
    return f"sum({rate(chosen)})"


def _in_this_time(status: str) -> str:
    chosen = requests_total(f'status="{status}"')
    return or_none(f"sum({counted(chosen)})")


def _requests() -> list[Panel]:
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
    ]


def _now() -> list[Panel]:
    return [
        number("Requests", "Decisions a second, over all replicas.", "reqps", or_none(f"sum({_ALL})")),
        number(
            "Allowed in this time",
            "Requests that were admitted, in the whole range of time.",
            "none",
            _in_this_time("allowed"),
        ),
        number(
            "Denied in this time",
            "Requests that were denied, in the whole range of time.",
            "none",
            _in_this_time("denied"),
        ),
        number(
            "Denied", "The share of requests that were denied.", "percentunit", share(f"sum({_DENIED})", f"sum({_ALL})")
        ),
        number(
            "Near a limit",
            "Calls a second that fitted a rule's limits, and left a counter near one of them. A call counts for each "
            "rule that it came near.",
            "reqps",
            or_none(f"sum({_NEAR})"),
        ),
        number(
            "Without a limit",
            "Calls a second to which no rule applied: they are admitted.",
            "reqps",
            or_none(f"sum({_UNMATCHED})"),
            (None, "green"),
            (0.001, "orange"),
        ),
        number(
            "Uncounted",
            "Requests a second that passed uncounted: let through by extauth while Redis failed, or by Envoy while "
            "extauth failed.",
            "reqps",
            f"{or_none(_failure_rate('allow'))} + {or_none(_envoy_rate('failure_mode_allowed'))}",
            (None, "green"),
            (0.001, "red"),
        ),
        number(
            "Refused without a count",
            "Requests a second that were refused, whatever their callers had used: by extauth while Redis failed, or "
            "by Envoy while extauth failed.",
            "reqps",
            f"{or_none(_failure_rate('deny'))} + {or_none(_envoy_rate('error'))}"
            f" - {or_none(_envoy_rate('failure_mode_allowed'))}",
            (None, "green"),
            (0.001, "red"),
        ),
        number(
            "p99 latency",
            "99 of 100 decisions took less.",
            "s",
            quantile(0.99, _BUCKETS),
            (None, "green"),
            (0.05, "red"),
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
            "Rule sets in force",
            "1: all replicas run the same rules. More: they read different files, or some refused an edit.",
            "none",
            f"count(count by (hash) ({extauth('extauth_config_info')}))",
            (None, "green"),
            (2, "red"),
        ),
    ]


def _tiers_and_paths() -> list[Panel]:
    def denied_share(label: str) -> str:
        return f"sum by ({label}) ({_DENIED}) / clamp_min(sum by ({label}) ({_ALL}), 1e-9)"

    return [
        lines(
            "Requests by tier",
            "Requests a second, allowed and denied.",
            "reqps",
            (f"sum by (tier) ({_ALL})", "{{tier}}"),
            span=6,
            stacked=True,
        ),
        lines(
            "Denied share by tier",
            "The share of a tier's requests that were denied.",
            "percentunit",
            (denied_share("tier"), "{{tier}}"),
            span=6,
        ),
        lines(
            "Near limit by tier",
            "The share of a tier's admitted requests that left a counter above EXTAUTH_NEAR_LIMIT_RATIO (0.8) of its "
            "limit: their callers will soon be denied.",
            "percentunit",
            (
                f"sum by (tier) ({_TIER_NEAR}) / clamp_min(sum by (tier) ({_ALLOWED}), 1e-9)",
                "{{tier}}",
            ),
            span=6,
        ),
        lines(
            "API responses by code",
            "What the API behind Envoy answered. Denied requests never reach it. Requests of the addresses in Envoy's "
            "internal_address_config are not among these.",
            "reqps",
            (
                f"sum by (envoy_response_code) ({_API_RESPONSES})",
                "{{envoy_response_code}}",
            ),
            span=6,
            stacked=True,
        ),
        lines(
            "Requests by path",
            "Requests a second, allowed and denied, by the route's path.",
            "reqps",
            (f"sum by (path) ({_ALL})", "{{path}}"),
            stacked=True,
        ),
        lines(
            "Denied share by path",
            "The share of a route's requests that were denied.",
            "percentunit",
            (denied_share("path"), "{{path}}"),
        ),
    ]


def _failure_policy() -> list[Panel]:
    return [
        lines(
            "Decided without Redis",
            "Calls a second that Redis did not count in time, by what they got: counted by the replica alone (local), "
            "let through (allow), refused (deny), or left to Envoy (error).",
            "reqps",
            (f"sum by (outcome) ({rate(extauth(_FAILURE))})", "{{outcome}}"),
            span=8,
            stacked=True,
        ),
        lines(
            "Envoy's view of the limiter",
            "What Envoy's calls to extauth came to. failure_mode_allowed: no answer in time, so the request passed "
            "uncounted.",
            "reqps",
            *((or_none(_envoy_rate(outcome)), outcome) for outcome in _ENVOY_OUTCOMES),
            span=8,
        ),
        lines(
            "Shed calls",
            "Calls a second that got EXTAUTH_ON_STORE_FAILURE because they were not decided in time, by reason.",
            "reqps",
            (f"sum by (reason) ({rate(extauth('extauth_shed_calls_total'))})", "{{reason}}"),
            span=8,
        ),
    ]


def build() -> str:
    """Build the dashboard's JSON."""
    rows: dict[str, Sequence[Panel]] = {
        "Requests": _requests(),
        "Now": _now(),
        "Tiers and paths": _tiers_and_paths(),
        "Rules": rules(_UNMATCHED),
        "Failure policy": _failure_policy(),
    }
    return dashboard_json(
        TITLE,
        "rate-limiting",
        "Who is admitted, who is denied and by which rule, and whether limits hold as written.",
        ("cluster", "job", "domain", "tier", "path", "rule", "replica"),
        rows,
    )
