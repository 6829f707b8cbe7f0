"""What observability/ ships agrees with itself."""

import json
import subprocess
from typing import Any

import pytest
import yaml

from observability.grafana import build_dashboard
from tests.observability.tools import DASHBOARD, OBSERVABILITY, program


def promtool(*arguments: str) -> None:
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_what_its_script_writes() -> None:
    assert DASHBOARD.read_text() == build_dashboard.build(), "run: python observability/grafana/build_dashboard.py"


def test_the_dashboard_has_allowed_and_denied_requests_by_path_and_tier() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["title"] == "Rate Limiting Dashboard"
    expressions = {
        panel["title"]: [target["expr"] for target in panel.get("targets", [])] for panel in dashboard["panels"]
    }
    for status in ("allowed", "denied"):
        [expression] = expressions[f"{status.capitalize()} requests by path and tier"]
        assert f'http_requests_total{{status="{status}"}}' in expression
        assert "by (path, tier)" in expression


def test_every_panel_asks_the_provisioned_datasource_and_has_an_id_of_its_own() -> None:
    provisioned: dict[str, Any] = yaml.safe_load(
        (OBSERVABILITY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    [datasource] = provisioned["datasources"]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"}
    assert asked == {datasource["uid"]}
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_grafana_reckons_with_the_scrape_interval() -> None:
    scraped = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text())["global"]["scrape_interval"]
    provisioned = yaml.safe_load((OBSERVABILITY / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert provisioned["datasources"][0]["jsonData"]["timeInterval"] == scraped


def test_prometheus_accepts_its_configuration() -> None:
    promtool("check", "config", str(OBSERVABILITY / "prometheus.yml"))


@pytest.mark.parametrize("file", sorted((OBSERVABILITY / "tests").glob("*.yml")), ids=lambda file: file.stem)
def test_alerts_fire_when_they_should(file: object) -> None:
    promtool("test", "rules", str(file))
