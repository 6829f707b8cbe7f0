"""The dashboard's queries as Grafana sends them, for those who have no Grafana: tests, and the README's pictures."""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARD = Path(__file__).parent / "dashboards" / "rate-limiting.json"
# Grafana's least $__rate_interval: four times the scrape interval of prometheus.yml.
RATE_INTERVAL_S = 20

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query of a panel: its PromQL and the template of its series' names, both with Grafana's variables."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What a panel shows, and how; `unit` is Grafana's name of it."""

    title: str
    unit: str
    stacked: bool
    queries: Sequence[Query]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """The HTTP API of the Prometheus at `url`."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - as Prometheus says
        """The `data` of an answer; raises HTTPError where it refuses."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=5) as response:
            return json.load(response)["data"]

    def label_values(self, label: str, selector: str) -> list[str]:
        """The values of a label among the series that the selector finds."""
        values: list[str] = self.get(f"label/{label}/values", **{"match[]": selector})
        return values


def dashboard() -> dict[str, Any]:
    """The dashboard as it is shipped."""
    content: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return content


def panels() -> list[Panel]:
    """The panels that have queries, in order."""
    return [
        Panel(
            title=panel["title"],
            unit=panel["fieldConfig"]["defaults"]["unit"],
            stacked=panel["fieldConfig"]["defaults"].get("custom", {}).get("stacking", {}).get("mode") == "normal",
            queries=[Query(expr=target["expr"], legend=target["legendFormat"]) for target in panel["targets"]],
        )
        for panel in dashboard()["panels"]
        if panel["type"] != "row"
    ]


def offered(prometheus: Prometheus) -> dict[str, list[str]]:
    """The values that each variable offers, where the reader chose All for those before it."""
    values: dict[str, list[str]] = {}
    for name, variable in _variables().items():
        query = interpolate(variable["query"]["query"], _all(values))
        called = _LABEL_VALUES.fullmatch(query)
        if called is None:
            msg = f"variable {name}: {query} is no label_values(SELECTOR, LABEL)"
            raise ValueError(msg)
        values[name] = prometheus.label_values(called[2], called[1])
    return values


def choose_all(prometheus: Prometheus) -> dict[str, str]:
    """What stands in a query for each variable where the reader chose All."""
    return {"__rate_interval": f"{RATE_INTERVAL_S}s", **_all(offered(prometheus))}


def _variables() -> dict[str, dict[str, Any]]:
    listed = dashboard()["templating"]["list"]
    return {variable["name"]: variable for variable in listed if variable["type"] == "query"}


def _all(values: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {
        name: variable.get("allValue") or f"({'|'.join(map(_escaped, values[name]))})"
        for name, variable in _variables().items()
        if name in values
    }


def interpolate(text: str, chosen: Mapping[str, str]) -> str:
    """The text with each variable's choice in its place; raises KeyError for a variable that there is not."""
    return _VARIABLE.sub(lambda match: chosen[match[1] or match[2]], text)


def _escaped(value: str) -> str:
    """For a regular expression within a PromQL string."""
    return re.sub(r"([\\^$*+?.()|\[\]{}])", r"\\\\\1", value)
