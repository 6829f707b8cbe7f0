"""What the dashboards have in common: links, annotations, and their JSON."""

import json
from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink, Row
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLinkType,
)
from grafana_foundation_sdk.models.dashboard import DashboardLink as Link

from observability.grafana.panels import PROMETHEUS, Panel
from observability.grafana.selectors import extauth
from observability.grafana.variables import variables

TAG = "extauth"
RUNBOOK_LINK = ("Runbook", "${runbook}")
PAGE_LINK = ("Live page", "${page}")


class _PrometheusAnnotation(AnnotationQuery):
    """An annotation whose events Prometheus finds: regions of time in which a series is over 0.

    With `at_value`, the series' values are the times of single events instead, in ms.
    """

    def __init__(self, name: str, color: str, expr: str, text: str, *, at_value: bool = False) -> None:
        super().__init__(name=name, datasource=PROMETHEUS, icon_color=color, expr=expr)
        self._text = text
        self._at_value = at_value

    def to_json(self) -> dict[str, object]:
        """With the data source's own fields, which the SDK does not know."""
        return super().to_json() | {
            "step": "5s",
            "tagKeys": "instance",
            "titleFormat": self.name,
            "textFormat": self._text,
            "useValueForTime": self._at_value,
        }


class _Built(Builder[AnnotationQuery]):
    def __init__(self, annotation: AnnotationQuery) -> None:
        self._annotation = annotation

    def build(self) -> AnnotationQuery:
        return self._annotation


def _annotations() -> list[Builder[AnnotationQuery]]:
    loaded = extauth("extauth_config_last_reload_success_timestamp_seconds")
    successful = extauth("extauth_config_last_reload_successful")
    closed = extauth("extauth_store_breaker", 'state="closed"')
    every = [
        _PrometheusAnnotation(
            "Rules in force", "blue", f"1000 * {loaded}", "{{instance}} put new rules in force.", at_value=True
        ),
        _PrometheusAnnotation(
            "Edit refused",
            "orange",
            f"1 - {successful}",
            "{{instance}} keeps older rules: a config file has a problem.",
        ),
        _PrometheusAnnotation(
            "Breaker open", "red", f"1 - {closed}", "{{instance}} does not ask Redis, or only tries whether it answers."
        ),
    ]
    return [_Built(annotation) for annotation in every]


def links() -> list[Builder[Link]]:
    """To the live page, the runbook and the other dashboards."""

    def external(title: str, url: str, icon: str) -> DashboardLink:
        return DashboardLink(title).type(DashboardLinkType.LINK).url(url).icon(icon).target_blank(target_blank=True)

    others = (
        DashboardLink("extauth")
        .type(DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .keep_time(keep_time=True)
        .include_vars(include_vars=True)
    )
    return [external(*PAGE_LINK, "external link"), external(*RUNBOOK_LINK, "doc"), others]


def dashboard_json(
    title: str, uid: str, description: str, chosen: Sequence[str], rows: Mapping[str, Sequence[Panel]]
) -> str:
    """Build a dashboard's JSON, ending in a newline; `chosen` are the names of its variables."""
    builder = (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG, "envoy"])
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("5s")
        .time("now-15m", "now")
        .timezone("browser")
        .annotations(_annotations())
        .links(links())
    )
    for choice in variables(*chosen):
        builder.with_variable(choice)
    for row, panels in rows.items():
        builder.with_row(Row(row))
        for panel in panels:
            builder.with_panel(panel)
    return to_json(builder)


def to_json(builder: Dashboard) -> str:
    """The JSON of a dashboard, ending in a newline."""
    dashboard = builder.build()
    # A link to a panel (?viewPanel=7) names it by its id.
    for panel_id, placed in enumerate(dashboard.panels or [], start=1):
        placed.id_val = panel_id
    return json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
