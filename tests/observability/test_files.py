"""What observability/ ships agrees with itself."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauth.telemetry import catalogue
from extauth.telemetry.catalogue import Metric
from observability.grafana import build
from observability.grafana.queries import DASHBOARDS, annotations, dashboard, panels
from tests.observability.tools import OBSERVABILITY, ROOT, program, rules

_ALERT_NAME = re.compile(r'alertname="(\w+)"')
ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
TESTS = sorted((OBSERVABILITY / "tests").glob("*.yml"))


def promtool(*arguments: str) -> None:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", build.BUILT, ids=lambda file: file.stem)
def test_a_dashboard_is_what_its_script_writes(file: Path) -> None:
    assert file.read_text() == build.BUILT[file](), "run: python -m observability.grafana.build"
    assert file in (OBSERVABILITY / "grafana/dashboards").iterdir()


def test_the_runbook_is_where_the_links_lead() -> None:
    for title in DASHBOARDS:
        constants = {each["name"]: each["query"] for each in dashboard(title)["templating"]["list"]}
        [runbook] = [
            content
            for file in build.BUILT
            if f"/d/{(content := json.loads(file.read_text()))['uid']}" == constants["runbook"]
        ]
        texts = {panel["title"]: panel["options"]["content"] for panel in runbook["panels"] if panel["type"] == "text"}
        assert texts.keys() >= ALERTS.keys()
        assert all("**Do:**" in texts[alert] and "](" not in texts[alert] for alert in ALERTS)


def test_allowed_and_denied_requests_by_path_and_tier_come_first() -> None:
    for status, panel in zip(("allowed", "denied"), panels(), strict=False):
        assert panel.title == f"{status.capitalize()} requests by path and tier"
        [query] = panel.queries
        assert f'status="{status}"' in query.expr
        assert "by (path, tier)" in query.expr


@pytest.mark.parametrize("title", DASHBOARDS)
def test_a_dashboard_can_be_imported_and_edited(title: str) -> None:
    """It names no data source of ours: whoever imports it chooses one."""
    content = dashboard(title)
    assert content["editable"] is True
    assert set(_datasources(content)) == {"${datasource}"}
    [first, *others] = content["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    choices = [variable for variable in others if variable["type"] == "query"]
    assert {"job", "replica"} <= {variable["name"] for variable in choices}
    assert all(variable["multi"] and variable["includeAll"] for variable in choices)


def test_what_a_reader_can_choose() -> None:
    offered = [variable["name"] for variable in dashboard("Rate Limiting Dashboard")["templating"]["list"]]
    assert {"datasource", "cluster", "job", "domain", "tier", "path", "rule", "replica"} <= set(offered)


@pytest.mark.parametrize("title", DASHBOARDS)
def test_a_dashboard_uses_each_variable_that_it_offers_and_no_other(title: str) -> None:
    content = dashboard(title)
    offered = {variable["name"] for variable in content["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]+)\b", json.dumps(content)))
    assert used - {"range"} == offered


@pytest.mark.parametrize("title", DASHBOARDS)
def test_a_dashboard_leads_to_the_live_page_the_runbook_and_the_other_dashboard(title: str) -> None:
    content = dashboard(title)
    page, runbook, others = content["links"]
    assert [page["url"], runbook["url"]] == ["${page}", "${runbook}"]
    assert (others["type"], others["tags"], others["keepTime"], others["includeVars"]) == (
        ("dashboards", ["extauth"], True, True)
    )
    assert "extauth" in content["tags"]


@pytest.mark.parametrize("title", DASHBOARDS)
def test_reloads_refused_edits_and_the_breaker_are_marked(title: str) -> None:
    shown = {annotation["name"] for annotation in dashboard(title)["annotations"]["list"]}
    assert shown == {"Rules in force", "Edit refused", "Breaker open"}


def _datasources(part: object) -> list[str]:
    """The uid of every reference to a data source, however deep."""
    if isinstance(part, list):
        return [uid for inner in part for uid in _datasources(inner)]
    if isinstance(part, dict):
        here = [part["datasource"]["uid"]] if "datasource" in part else []
        return here + [uid for inner in part.values() for uid in _datasources(inner)]
    return []


@pytest.mark.parametrize("title", DASHBOARDS)
def test_each_panel_has_an_id_of_its_own(title: str) -> None:
    placed = dashboard(title)["panels"]
    assert len({panel["id"] for panel in placed}) == len(placed)


def test_each_metric_of_extauth_is_shown() -> None:
    asked = [query.expr for panel in panels() for query in panel.queries] + [expr for _, expr in annotations()]
    shown = " ".join(asked)
    # That of the build is what the variables ask about.
    every = {each.series for each in vars(catalogue).values() if isinstance(each, Metric)} - {"extauth_build_info"}
    assert {series for series in every if not re.search(rf"\b{series}(_bucket)?\b", shown)} == set()


@pytest.mark.parametrize("metric", ["http_requests_total", "process_cpu_seconds_total", "up"])
def test_metrics_that_others_export_too_are_asked_for_by_job(metric: str) -> None:
    selectors = [
        selector
        for expr in [*_dashboard_expressions(), *(rule["expr"] for rule in rules())]
        for selector in re.findall(rf"\b{metric}\b(?:{{[^}}]*}})?", expr)
    ]
    assert len(selectors) > 1
    assert [selector for selector in selectors if "job=" not in selector] == []


def _dashboard_expressions() -> list[str]:
    asked = [
        variable["query"]["query"]
        for title in DASHBOARDS
        for variable in dashboard(title)["templating"]["list"]
        if variable["type"] == "query"
    ]
    return asked + [query.expr for panel in panels() for query in panel.queries]


def test_grafana_reckons_with_the_scrape_interval() -> None:
    scraped = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())["global"]["scrape_interval"]
    provisioned = yaml.safe_load((OBSERVABILITY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert provisioned["datasources"][0]["jsonData"]["timeInterval"] == scraped


def test_prometheus_accepts_its_configuration() -> None:
    promtool("check", "config", str(OBSERVABILITY / "prometheus.yml"))


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_alerts_fire_when_they_should(file: Path) -> None:
    promtool("test", "rules", str(file))


def _firing(scenario: dict[str, Any]) -> list[set[str]]:
    """The alerts that fire in a scenario of promtool's, by each expectation of all that do."""
    by_query = [
        {alert for sample in expected.get("exp_samples", []) for alert in _ALERT_NAME.findall(sample["labels"])}
        for expected in scenario.get("promql_expr_test", [])
        if expected["expr"].startswith("sum without")
    ]
    by_name = [{expected["alertname"]} for expected in scenario.get("alert_rule_test", []) if expected["exp_alerts"]]
    return by_query + by_name


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_scenario_in_which_it_is_silent_and_then_fires(alert: str) -> None:
    scenarios = [_firing(scenario) for file in TESTS for scenario in yaml.safe_load(file.read_text())["tests"]]
    assert any({alert in firing for firing in scenario} == {False, True} for scenario in scenarios)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_says_what_happens_and_what_to_do(alert: str) -> None:
    annotations = ALERTS[alert]["annotations"]
    assert annotations.keys() == {"summary", "runbook_url", "description"}
    assert len(annotations["description"].split(". ")) >= 2
    assert annotations["description"].endswith(".")
    assert ALERTS[alert]["labels"]["severity"] in {"critical", "warning"}
    assert f"`{alert}`" in (ROOT / "docs/observability.md").read_text()
