"""Every query of the dashboard and of the alerts, asked of a real Prometheus."""

import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest
import yaml

from scripts.stack import Stack
from tests.observability.tools import OBSERVABILITY, dashboard_queries, get, series

# Prometheus scrapes every 5 seconds, and a rate needs two scrapes with traffic between.
pytestmark = pytest.mark.timeout(240)

KEYS = (None, "free-tier-key", "premium-tier-key")
# Counters that come to be with their first event, which a healthy stack never has.
NEVER_SEEN = {"envoy_cluster_ratelimit_error", "envoy_cluster_ratelimit_failure_mode_allowed"}


def send(stack: Stack, key: str | None, count: int = 1) -> None:
    """Requests to the edge, admitted or not."""
    request = urllib.request.Request(f"{stack.url}/", headers={"x-api-key": key} if key else {})
    for _ in range(count):
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                response.read()
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 429:
                    raise


def until_nothing(lacks: Callable[[], object], within_s: float = 90) -> None:
    """Wait until nothing lacks."""
    deadline = time.monotonic() + within_s
    while lacking := lacks():
        if time.monotonic() > deadline:
            pytest.fail(f"after {within_s:.0f} s still without {lacking}")
        time.sleep(0.2)


@pytest.mark.parametrize(("panel", "promql"), dashboard_queries())
def test_prometheus_can_parse_the_panel(prometheus: int, panel: str, promql: str) -> None:
    assert get(prometheus, "query", query=promql)["resultType"] == "vector", panel


def test_every_panel_shows_the_traffic(stack: Stack) -> None:
    """Each of the dashboard's queries returns series while all three tiers are over their limits."""

    def panels_without_data() -> list[str]:
        for key in KEYS:
            send(stack, key, 3)
        return [title for title, promql in dashboard_queries() if not series(stack.ports.prometheus, promql)]

    until_nothing(panels_without_data)


@pytest.mark.parametrize("status", ["allowed", "denied"])
def test_the_panel_tells_tiers_and_paths_apart(stack: Stack, status: str) -> None:
    [promql] = [query for title, query in dashboard_queries() if title.startswith(status.capitalize() + " requests")]
    lacking = {("/", tier) for tier in ("anonymous", "free", "premium")}

    def unseen() -> set[tuple[str, str]]:
        for key in KEYS:
            send(stack, key, 3)
        rows = series(stack.ports.prometheus, promql)
        assert {labels["path"] for labels, _ in rows} <= {"/"}
        lacking.difference_update((labels["path"], labels["tier"]) for labels, value in rows if value > 0)
        return lacking

    until_nothing(unseen)


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
    rules = yaml.safe_load((OBSERVABILITY / "rules/extauth.yml").read_text())
    expressions = " ".join(rule["expr"] for group in rules["groups"] for rule in group["rules"])
    named = set(re.findall(r"\b(?:extauth|envoy|http)_[a-z_]+\b", expressions)) - NEVER_SEEN
    assert named
    send(stack, None)
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
