"""Every query of the dashboard and of the alerts, asked of a real Prometheus."""

import re
import urllib.error
import urllib.request

import pytest

from observability.grafana.queries import offered
from scripts.stack import Stack
from tests.observability.tools import (
    TIERS,
    call_of_no_domain,
    dashboard_queries,
    get,
    panel_queries,
    prometheus_at,
    rules,
    send,
    send_as_all,
    series,
    until_nothing,
)

# Prometheus scrapes every 5 seconds, and a rate needs two scrapes with traffic between.
pytestmark = pytest.mark.timeout(240)

# Counters that come to be with their first event, which a healthy stack never has, and those of redis_exporter.
NEVER_SEEN = {
    "envoy_cluster_ratelimit_error",
    "envoy_cluster_ratelimit_failure_mode_allowed",
    "redis_evicted_keys_total",
    "redis_memory_max_bytes",
    "redis_memory_used_bytes",
}


def test_prometheus_can_parse_every_query(prometheus: int) -> None:
    for panel, promql in dashboard_queries(prometheus):
        assert get(prometheus, "query", query=promql)["resultType"] == "vector", panel


def test_every_query_returns_series_of_the_traffic(stack: Stack) -> None:
    """While all three tiers are over their limits, and somebody asks for a domain that there is not."""
    call_of_no_domain(stack)

    def without_series() -> list[tuple[str, str]]:
        send_as_all(stack)
        queries = dashboard_queries(stack.ports.prometheus)
        return [(title, promql) for title, promql in queries if not series(stack.ports.prometheus, promql)]

    until_nothing(without_series)


@pytest.mark.parametrize("status", ["allowed", "denied"])
def test_the_panel_tells_tiers_and_paths_apart(stack: Stack, status: str) -> None:
    title = f"{status.capitalize()} requests by path and tier"
    lacking = {("/", tier) for tier in TIERS}

    def unseen() -> set[tuple[str, str]]:
        send_as_all(stack)
        [promql] = panel_queries(stack.ports.prometheus, title)
        rows = series(stack.ports.prometheus, promql)
        assert {labels["path"] for labels, _ in rows if labels["tier"] in TIERS} <= {"/"}
        lacking.difference_update((labels["path"], labels["tier"]) for labels, value in rows if value > 0)
        return lacking

    until_nothing(unseen)


def test_the_variables_offer_what_there_is(stack: Stack) -> None:
    call_of_no_domain(stack)

    def lacking() -> list[str]:
        send_as_all(stack)
        found = {name: set(values) for name, values in offered(prometheus_at(stack.ports.prometheus)).items()}
        assert found["job"] <= {"extauth"}
        assert found["cluster"] <= {"echo"}
        wanted = {"job": {"extauth"}, "domain": {"api", "other"}, "tier": TIERS, "cluster": {"echo"}}
        wanted["rule"] = {"masked_remote_address"}
        return [name for name, values in wanted.items() if not values <= found[name]]

    until_nothing(lacking)


def test_a_chosen_tier_a_rule_or_a_job_is_all_that_is_shown(stack: Stack) -> None:
    ask = stack.ports.prometheus

    def shown(title: str, label: str, **choices: str) -> set[str]:
        [promql] = panel_queries(ask, title, **choices)
        return {labels[label] for labels, _ in series(ask, promql)}

    def all_are_shown() -> set[str]:
        send_as_all(stack)
        lacking = TIERS - shown("Denied requests by path and tier", "tier")
        return lacking | ({"masked_remote_address"} - shown("Over limit by rule", "rule"))

    until_nothing(all_are_shown)
    assert shown("Denied requests by path and tier", "tier", tier="(free|premium)") == {"free", "premium"}
    assert shown("Over limit by rule", "rule", rule="(masked_remote_address)") == {"masked_remote_address"}
    assert shown("Over limit by rule", "rule", domain="(elsewhere)") == set()
    assert shown("Denied requests by path and tier", "tier", job="(elsewhere)") == set()


def test_denied_requests_are_no_responses_of_the_api(stack: Stack) -> None:
    def unseen() -> set[str]:
        send_as_all(stack)
        [promql] = panel_queries(stack.ports.prometheus, "API responses by code")
        codes = {labels["envoy_response_code"] for labels, _ in series(stack.ports.prometheus, promql)}
        assert codes <= {"200"}
        return {"200"} - codes

    until_nothing(unseen)
    denied = 'envoy_cluster_upstream_rq{envoy_cluster_name="echo", envoy_response_code="429"} > 0'
    until_nothing(lambda: not series(stack.ports.prometheus, denied))


def test_the_counts_add_up_over_the_replicas(stack: Stack) -> None:
    """What was sent is what http_requests_total says, both replicas together, denied requests too."""
    before = _counted_by_the_replicas(stack)
    send(stack, "premium-tier-key", 40)
    assert _counted_by_the_replicas(stack) == before + 40
    until_nothing(
        lambda: before + 40 - sum(value for _, value in series(stack.ports.prometheus, "http_requests_total"))
    )


def _counted_by_the_replicas(stack: Stack) -> float:
    total = 0.0
    for replica in stack.ports.extauth:
        with urllib.request.urlopen(f"http://127.0.0.1:{replica.admin}/metrics", timeout=5) as response:
            for line in response.read().decode().splitlines():
                if line.startswith("http_requests_total{"):
                    total += float(line.rpartition(" ")[2])
    return total


def test_alerts_speak_of_metrics_that_exist(stack: Stack) -> None:
    expressions = " ".join(rule["expr"] for rule in rules())
    named = set(re.findall(r"\b(?:extauth|envoy|http|process|redis)_[a-z_]+\b", expressions)) - NEVER_SEEN
    assert named
    send(stack, None)
    call_of_no_domain(stack)
    until_nothing(lambda: named - set(get(stack.ports.prometheus, "label/__name__/values")))


def test_all_targets_are_up_and_no_alert_fires(stack: Stack) -> None:
    def down() -> set[tuple[str, int]]:
        up = series(stack.ports.prometheus, "sum by (job) (up)")
        return {("extauth", 2), ("envoy", 1), ("prometheus", 1)} - {(row["job"], int(value)) for row, value in up}

    until_nothing(down)
    assert series(stack.ports.prometheus, 'ALERTS{alertstate="firing"}') == []


def test_no_dns_is_asked_for_what_runs_here(stack: Stack) -> None:
    def not_loaded() -> set[str]:
        metrics = set(get(stack.ports.prometheus, "label/__name__/values"))
        return {"prometheus_sd_dns_lookups_total", "prometheus_build_info"} - metrics

    until_nothing(not_loaded)
    assert [value for _, value in series(stack.ports.prometheus, "prometheus_sd_dns_lookups_total")] == [0]
    assert "dns_sd_configs" not in get(stack.ports.prometheus, "status/config")["yaml"]
