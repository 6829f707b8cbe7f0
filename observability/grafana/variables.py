"""What a reader of the dashboard can choose."""

from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import VariableModel, VariableOption, VariableRefresh, VariableSort

from observability.grafana.panels import PROMETHEUS


def variables() -> list[Builder[VariableModel]]:
    """The dashboard's variables; a later one may depend on an earlier."""
    return [
        DatasourceVariable("datasource").label("Data source").type("prometheus"),
        _variable(
            "job",
            "Job",
            "The Prometheus jobs that scrape extauth.",
            "label_values(extauth_build_info, job)",
        ),
        _variable(
            "domain",
            "Domain",
            "Of the panels by rule and domain.",
            'label_values({__name__=~"extauth_rule_calls_total|extauth_unmatched_calls_total", job=~"$job"}, domain)',
            ".*",
        ),
        _variable(
            "tier",
            "Tier",
            "Of the panels that count requests.",
            'label_values(http_requests_total{job=~"$job"}, tier)',
            ".*",
        ),
        _variable(
            "rule",
            "Rule",
            "Of the panels by rule.",
            'label_values(extauth_rule_calls_total{job=~"$job", domain=~"$domain"}, rule)',
            ".*",
        ),
        _variable(
            "cluster",
            "API cluster",
            "The Envoy clusters whose requests are rate limited.",
            'label_values({__name__=~"envoy_cluster_ratelimit_.+"}, envoy_cluster_name)',
        ),
    ]


def _variable(name: str, label: str, description: str, query: str, all_value: str | None = None) -> QueryVariable:
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
