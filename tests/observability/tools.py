"""A real Prometheus and its promtool, and how to ask it."""

import json
import os
import shutil
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OBSERVABILITY = ROOT / "observability"
DASHBOARD = OBSERVABILITY / "grafana/dashboards/rate-limiting.json"


def program(name: str) -> str:
    """The path of a program of the prometheus package."""
    if path := shutil.which(name):
        return path
    reason = f"no {name} on PATH (Debian: apt install prometheus; macOS: brew install prometheus)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def dashboard_queries() -> list[tuple[str, str]]:
    """(panel's title, PromQL) of every query of the dashboard, for a rate over 15 seconds."""
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", "15s"))
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", [])
    ]


def get(port: int, path: str, **parameters: str) -> Any:  # noqa: ANN401 - as Prometheus says
    """The `data` of an answer of Prometheus's HTTP API; raises HTTPError where it refuses."""
    url = f"http://127.0.0.1:{port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=5) as response:
        return json.load(response)["data"]


def series(port: int, promql: str) -> list[tuple[dict[str, str], float]]:
    """(labels, value) of each series that the query returns now."""
    return [(row["metric"], float(row["value"][1])) for row in get(port, "query", query=promql)["result"]]
