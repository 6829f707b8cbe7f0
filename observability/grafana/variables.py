"""What a reader of the dashboards can choose."""

from grafana_foundation_sdk.builders.dashboard import ConstantVariable, DatasourceVariable, QueryVariable
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import VariableModel, VariableOption, VariableRefresh, VariableSort

from observability.grafana.panels import PROMETHEUS

PAGE_URL = "http://localhost:6070/"
RUNBOOK_URL = "/d/extauth-runbook"  # runbook.py

_LIMITERS = '{envoy_cluster_name=~".*(extauth|rate.?limit).*"}'
_QUERIES = {
    "cluster": (
        "API cluster",
        "The Envoy clusters whose requests are rate limited.",
        'label_values({__name__=~"envoy_cluster_ratelimit_.+"}, envoy_cluster_name)',
        None,
    ),
    "limiter": (
        "Limiter cluster",
        "The Envoy clusters whose members are replicas of extauth.",
        f"label_values(envoy_cluster_membership_total{_LIMITERS}, envoy_cluster_name)",
        None,
    ),
    "job": (
        "Job",
        "The Prometheus jobs that scrape extauth.",
        "label_values(extauth_build_info, job)",
        None,
    ),
    "domain": (
        "Domain",
        "Of the panels by rule and domain.",
        'label_values({__name__=~"extauth_rule_calls_total|extauth_unmatched_calls_total", job=~"$job"}, domain)',
        ".*",
    ),
    "tier": (
        "Tier",
        "Of the panels that count requests.",
        'label_values(http_requests_total{job=~"$job"}, tier)',
        ".*",
    ),
    "path": (
        "Path",
        "Of the panels that count requests.",
        'label_values(http_requests_total{job=~"$job"}, path)',
        ".*",
    ),
    "rule": (
        "Rule",
        "Of the panels by rule.",
        'label_values(extauth_rule_calls_total{job=~"$job", domain=~"$domain"}, rule)',
        ".*",
    ),
    "replica": (
        "Replica",
        "The instances of extauth.",
        'label_values(extauth_build_info{job=~"$job"}, instance)',
        ".*",
    ),
}


def variables(*names: str) -> list[Builder[VariableModel]]:
    """The variables of these names, after the data source; a later one may depend on an earlier. Then the constants."""
    return [
        DatasourceVariable("datasource").label("Data source").type("prometheus"),
        *(_variable(name, *_QUERIES[name]) for name in names),
        *constants(),
    ]


def constants() -> list[Builder[VariableModel]]:
    """Where the dashboard's links lead, which its settings can change."""
    return [
        _constant("page", "Where the links find the live page of extauth.", PAGE_URL),
        _constant("runbook", "Where the links find the runbook.", RUNBOOK_URL),
    ]


def _constant(name: str, description: str, value: str) -> ConstantVariable:
    return ConstantVariable(name).description(description).value(value)


def _variable(name: str, label: str, description: str, query: str, all_value: str | None) -> QueryVariable:
    """A choice of several values or All, which is every value there is or, where given, the regex `all_value`."""
    variable = (
        QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(PROMETHEUS)
        .query({"query": query, "refId": "StandardVariableQuery"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    return variable if all_value is None else variable.all_value(all_value)
