"""The kinds of panels and variables that the dashboard has, and how its queries choose their series."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)

# Whichever the reader chooses, so that the file can be imported into any Grafana.
PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${datasource}")

# A PromQL expression and the legend of its series.
Query = tuple[str, str]


def extauth(name: str, *matchers: str) -> str:
    """A metric of the chosen replicas. Other services in the same Prometheus export http_requests_total, too."""
    every = ", ".join(('job=~"$job"', *matchers))
    return f"{name}{{{every}}}"


def requests_total(*matchers: str) -> str:
    """http_requests_total of the chosen replicas and tiers."""
    return extauth("http_requests_total", 'tier=~"$tier"', *matchers)


def rule(name: str) -> str:
    """A metric of the chosen rules."""
    return extauth(name, 'domain=~"$domain"', 'rule=~"$rule"')


def envoy(name: str) -> str:
    """A metric of Envoy about the chosen clusters of the API."""
    return f'{name}{{envoy_cluster_name=~"$cluster"}}'


def rate(selector: str) -> str:
    """A counter's rate a second."""
    return f"rate({selector}[$__rate_interval])"


def or_none(expr: str) -> str:
    """0 before a counter's first event, when it has no series yet: a gap would look like a fault."""
    return f"({expr} or vector(0))"


def _targets(queries: Sequence[Query]) -> list[Dataquery]:
    return [
        Dataquery().ref_id(chr(ord("A") + i)).datasource(PROMETHEUS).expr(expr).legend_format(legend).range()
        for i, (expr, legend) in enumerate(queries)
    ]


def lines(
    title: str, description: str, unit: str, *queries: Query, span: int = 12, stacked: bool = False
) -> TimeSeries:
    """Lines over time; stacked where their sum means something."""
    panel = (
        TimeSeries()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .height(8)
        .span(span)
        .line_width(1)
        .fill_opacity(25 if stacked else 8)
        .show_points(VisibilityMode.NEVER)
        .legend(
            VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
            .calcs(["mean", "lastNotNull"])
        )
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    for target in _targets(queries):
        panel.with_target(target)
    return panel.stacking(StackingConfig().mode(StackingMode.NORMAL)) if stacked else panel


def number(title: str, description: str, unit: str, expr: str, *steps: tuple[float | None, str]) -> Stat:
    """One number; `steps` are (from this value on, this colour), the first from None."""
    thresholds = [Threshold(value=value, color=color) for value, color in steps or ((None, "green"),)]
    panel = (
        Stat()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .height(4)
        .span(3)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(thresholds))
    )
    for target in _targets([(expr, "")]):
        panel.with_target(target)
    return panel
