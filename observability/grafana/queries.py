"""The dashboards' queries as Grafana sends them, for those who have no Grafana: tests, and the README's pictures."""

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "dashboards"
# By title.
DASHBOARDS = {
    "Rate Limiting Dashboard": _FOLDER / "rate-limiting.json",
    "extauth internals": _FOLDER / "extauth-internals.json",
}
# Grafana's least $__rate_interval: four times the scrape interval of prometheus.yml.
RATE_INTERVAL_S = 20
RANGE_S = 900

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

    dashboard: str
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


def dashboard(title: str) -> dict[str, Any]:
    """A dashboard as it is shipped."""
    content: dict[str, Any] = json.loads(DASHBOARDS[title].read_text(encoding="utf-8"))
    return content


def panels() -> list[Panel]:
    """The panels of all dashboards that have queries, in order."""
    return [
        Panel(
            dashboard=title,
            title=panel["title"],
            unit=panel["fieldConfig"]["defaults"]["unit"],
            stacked=panel["fieldConfig"]["defaults"].get("custom", {}).get("stacking", {}).get("mode") == "normal",
            queries=[Query(expr=target["expr"], legend=target["legendFormat"]) for target in panel["targets"]],
        )
        for title in DASHBOARDS
        for panel in dashboard(title)["panels"]
        if panel["type"] != "row"
    ]


def annotations() -> list[tuple[str, str]]:
    """The name and the PromQL of each annotation of the dashboards, which share them."""
    every = {
        (annotation["name"], annotation["expr"])
        for title in DASHBOARDS
        for annotation in dashboard(title)["annotations"]["list"]
    }
    return sorted(every)


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
    times = {
        "__rate_interval": f"{RATE_INTERVAL_S}s",
        "__rate_interval_ms": str(1000 * RATE_INTERVAL_S),
        "__range": f"{RANGE_S}s",
        "__range_s": str(RANGE_S),
    }
    return times | _all(offered(prometheus))


def _variables() -> dict[str, dict[str, Any]]:
    """The variables that ask Prometheus, of all dashboards; those of one name are the same."""
    listed = [variable for title in DASHBOARDS for variable in dashboard(title)["templating"]["list"]]
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


def legend(template: str, labels: Mapping[str, str]) -> str:
    """The name of a series, from the template of its query."""
    return re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), template)


def _escaped(value: str) -> str:
    """For a regular expression within a PromQL string."""
    return re.sub(r"([\\^$*+?.()|\[\]{}])", r"\\\\\1", value)
