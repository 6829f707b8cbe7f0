"""A real Prometheus and its promtool, and how to ask it."""

import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from observability.grafana.queries import Prometheus, choose_all, interpolate, panels
from scripts.stack import Stack
from tests.support.programs import missing
from tests.support.wait import until

ROOT = Path(__file__).resolve().parents[2]
OBSERVABILITY = ROOT / "observability"
RULES = sorted((OBSERVABILITY / "rules").glob("*.yml"))
KEYS = {None: "anonymous", "free-tier-key": "free", "premium-tier-key": "premium"}
TIERS = set(KEYS.values())


def rules() -> list[dict[str, Any]]:
    """Every rule of Prometheus that is shipped, those that record among them."""
    return [rule for file in RULES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def program(name: str) -> str:
    """The path of a program of the prometheus package."""
    source = "Debian: apt install prometheus; macOS: brew install prometheus"
    return shutil.which(name) or missing(f"no {name} on PATH ({source})")


def get(port: int, path: str, **parameters: str) -> Any:  # noqa: ANN401 - as Prometheus says
    """The `data` of an answer of Prometheus's HTTP API; raises HTTPError where it refuses."""
    return prometheus_at(port).get(path, **parameters)


def series(port: int, promql: str) -> list[tuple[dict[str, str], float]]:
    """(labels, value) of each series that the query returns now."""
    return [(row["metric"], float(row["value"][1])) for row in get(port, "query", query=promql)["result"]]


def prometheus_at(port: int) -> Prometheus:
    """The Prometheus that listens on a port of loopback."""
    return Prometheus(url=f"http://127.0.0.1:{port}")


def dashboard_queries(port: int, **choices: str) -> list[tuple[str, str]]:
    """(panel's title, PromQL) of every query of the dashboard, with All or what is chosen for each variable."""
    chosen = {**choose_all(prometheus_at(port)), **choices}
    return [(panel.title, interpolate(query.expr, chosen)) for panel in panels() for query in panel.queries]


def panel_queries(port: int, title: str, **choices: str) -> list[str]:
    """The queries of the panel of that title."""
    return [promql for panel, promql in dashboard_queries(port, **choices) if panel == title]


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


def send_as_all(stack: Stack) -> None:
    """A few requests of each tier."""
    for key in KEYS:
        send(stack, key, 3)


def until_nothing(lacks: Callable[[], object], within_s: float = 90) -> None:
    """Wait until nothing lacks."""
    until(lambda: not lacks(), lambda: f"still without {lacks()}", within_s=within_s, every_s=0.2)


def call_of_no_domain(stack: Stack) -> None:
    """A call for a domain that no file defines, past Envoy."""
    address = f"127.0.0.1:{stack.ports.extauth[0].grpc}"
    command = [sys.executable, "-P", "-m", "extauth", "check", "--address", address, "elsewhere", "key=value"]
    subprocess.run(command, capture_output=True, check=True)
