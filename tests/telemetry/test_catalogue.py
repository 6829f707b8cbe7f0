"""Every metric is described, and docs/metrics.md prints the descriptions."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from extauth.counters.breaker import BreakerState
from extauth.errors import StoreError
from extauth.limiter.counters import LimitCheck, Mode, Source, TakeResult
from extauth.limiter.facts import GroupResult
from extauth.limiter.plan import Plan, PlanTemplate, Tally
from extauth.limiter.verdict import Labels
from extauth.rules.model import Limit, Unit
from extauth.rules.rule_names import RuleName
from extauth.telemetry import catalogue
from extauth.telemetry.catalogue import Metric
from extauth.telemetry.metrics import Metrics
from scripts.metrics_page import GROUPS, PAGE, PROCESS, page
from tests.support.facts import batch
from tests.support.service import planner_of

DESCRIBED = {metric.name: metric for metric in vars(catalogue).values() if isinstance(metric, Metric)}


def everything() -> Metrics:
    """Metrics in which each metric has a series."""
    metrics = Metrics(guards=["streams"], shed_reasons=["timeout"])
    metrics.watch_connections(lambda: 3, 1024)
    metrics.watch_replicas(lambda: 2, lambda: False, lambda: 1.0)
    planner = planner_of("")
    planner.hits, planner.misses = 5, 2
    metrics.watch_plan_memo(planner)
    metrics.rules_loaded(1, "abc", ok=True)
    metrics.breaker_changed(BreakerState.CLOSED)
    metrics.store_failed(StoreError("timeout", ""))
    check = LimitCheck(Limit(1, Unit.DAY), 1, Mode.SHADOW)
    shadowed = PlanTemplate((check,), ((0,),), None, Labels())
    level = check.algorithm.read(0, 0)
    unmatched = PlanTemplate((), ((),), None, Labels(), "d", matched=False)
    metrics.batch_decided(
        batch(
            GroupResult(Plan((b"k",), shadowed, Tally((RuleName("d", "r"),), (0,))), 2, TakeResult(2, (level,))),
            GroupResult(Plan((), unmatched), 1, TakeResult(1, (), Source.NO_COUNTER)),
            durations_s=[(0.1, 3)],
        )
    )
    return metrics


def test_every_metric_is_as_it_is_described() -> None:
    found = {}
    for family in text_string_to_metric_families(b"".join(everything().render()).decode()):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[family.name] = (family.type, family.documentation, labels)
    ours = {name: told for name, told in found.items() if not name.startswith("process_")}
    assert ours == {
        metric.name: (str(metric.kind), metric.meaning, set(metric.labels)) for metric in DESCRIBED.values()
    }
    process = {name: told[0] for name, told in found.items() if name.startswith("process_")}
    assert process == {metric.name: str(metric.kind) for metric in PROCESS}


def test_the_page_prints_each_metric_once() -> None:
    printed = [metric.name for _, metrics in GROUPS for metric in metrics]
    assert sorted(printed) == sorted([*DESCRIBED, *(metric.name for metric in PROCESS)])
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m scripts.metrics_page"


@pytest.mark.parametrize("metric", [*DESCRIBED.values(), *PROCESS], ids=lambda metric: metric.name)
def test_a_description_is_of_whole_sentences_and_fits_a_table(metric: Metric) -> None:
    for text in (metric.meaning, metric.use):
        assert text.endswith(".")
        assert text[0].isupper() or text[0] in "`01"
        assert not set(text) & set('|\n\\"')
    assert not metric.name.endswith("_total")
