"""The text of a scrape, in Prometheus' own format and in OpenMetrics."""

import gc
import time
from collections.abc import Callable, Iterable

import pytest
from prometheus_client import openmetrics, parser
from prometheus_client.core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from extauth.admin.encoding import compress
from extauth.admin.messages import in_blocks
from extauth.admin.routes import Answer, Request
from extauth.limiter.algorithms import WindowUsage
from extauth.limiter.counters import LimitCheck, TakeResult
from extauth.limiter.facts import GroupResult
from extauth.limiter.plan import Plan, PlanTemplate, Tally
from extauth.limiter.verdict import Labels
from extauth.rules.model import Limit, Unit
from extauth.rules.rule_names import RuleName
from extauth.telemetry.exposition import OPENMETRICS_TYPE, TEXT_TYPE
from extauth.telemetry.metrics import Metrics
from tests.support.facts import batch
from tests.support.service import planner_of

HOSTILE = 'a"b\\c\nd{}# EOF'


def metrics_of(rules: int) -> Metrics:
    """Metrics in which each of so many rules has had a call."""
    metrics = Metrics(guards=["streams"], shed_reasons=["timeout"])
    metrics.rules_loaded(rules, "abc", ok=True)
    metrics.watch_connections(lambda: 3, 1024)
    planner = planner_of("")
    planner.hits, planner.misses = 5, 2
    metrics.watch_plan_memo(planner)
    template = PlanTemplate((LimitCheck(Limit(9, Unit.DAY), 1),), ((0,),), None, Labels(HOSTILE, HOSTILE))
    taken = TakeResult(2, (WindowUsage(0, 0),))
    for i in range(rules):
        plan = Plan((b"%d" % i,), template, Tally((RuleName("d", f"{HOSTILE}{i}"),)))
        metrics.batch_decided(batch(GroupResult(plan, 3, taken), durations_s=[(0.1, 3)]))
    return metrics


def samples(text: bytes, parse: Callable[[str], Iterable[Family]]) -> set[tuple[str, str, tuple[str, ...], float]]:
    return {
        (sample.name, family.type, tuple(sorted(sample.labels.values())), sample.value)
        for family in parse(text.decode())
        for sample in family.samples
        if not family.name.startswith("process_")
    }


def test_openmetrics_has_the_same_samples_as_text() -> None:
    metrics = metrics_of(300)
    text = b"".join(metrics.render())
    as_openmetrics = b"".join(metrics.render(as_openmetrics=True))
    assert as_openmetrics.count(b"# EOF\n") == 1
    assert as_openmetrics.endswith(b"\n# EOF\n")
    found = samples(as_openmetrics, parse_openmetrics)
    assert found == samples(text, parser.text_string_to_metric_families)
    assert ("extauth_rule_calls_total", "counter", (f"{HOSTILE}7", "d"), 3.0) in found


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT_TYPE),
        ("*/*", TEXT_TYPE),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT_TYPE),
        ("text/plain;version=0.0.4;q=0.5", TEXT_TYPE),
        (PROMETHEUS, OPENMETRICS_TYPE),
        ("application/openmetrics-text", OPENMETRICS_TYPE),
        ('Application/OpenMetrics-Text; Version="1.0.0"; charset=utf-8', OPENMETRICS_TYPE),
        ("application/openmetrics-text;version=0.0.1, text/plain;q=0.5", OPENMETRICS_TYPE),
        ("application/openmetrics-text, text/plain", OPENMETRICS_TYPE),
        ("application/openmetrics-text;q=0.5, text/plain", TEXT_TYPE),
        ("application/openmetrics-text;q=0, */*;q=0", TEXT_TYPE),
        ("application/openmetrics-text;q=high", TEXT_TYPE),
        ("application/openmetrics-text;version=2.0.0", TEXT_TYPE),
        (",;=,/", TEXT_TYPE),
    ],
)
def test_the_format_is_chosen_by_accept(accept: str, content_type: str) -> None:
    chosen, pieces = metrics_of(1).scrape(accept)
    assert chosen == content_type
    assert b"".join(pieces).endswith(b"# EOF\n") is (content_type == OPENMETRICS_TYPE)
    assert openmetrics.exposition.CONTENT_TYPE_LATEST == OPENMETRICS_TYPE, "what prometheus-client's parser reads"


@pytest.mark.parametrize("accept_encoding", ["identity", "gzip"])
@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_no_step_of_a_scrape_of_20_000_series_takes_5_ms(accept: str, accept_encoding: str) -> None:
    def longest_ns() -> int:
        metrics, took = metrics_of(7000), []
        request = Request(method="GET", path="/metrics", accept=accept, accept_encoding=accept_encoding)
        content_type, pieces = metrics.scrape(request.accept)
        answer = compress(Answer(pieces, content_type), request)
        assert not isinstance(answer.body, bytes)
        blocks = in_blocks(iter(answer.body), time.thread_time)  # type: ignore[arg-type]
        while True:
            began = time.thread_time_ns()
            block = next(blocks, None)
            took.append(time.thread_time_ns() - began)
            if block is None:
                break
        assert sum(piece.count(b"\n") for piece in metrics.render()) > 20_000
        return max(took)

    gc.collect()
    gc.freeze()  # a collection of what other tests have left is no part of it
    try:
        assert min(longest_ns() for _ in range(3)) < 5_000_000
    finally:
        gc.unfreeze()
