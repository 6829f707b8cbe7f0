"""Every panel of both dashboards shows what was sent: counters to the unit, rates within 5 %, zero where zero."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest

from observability.grafana.queries import RATE_INTERVAL_S, annotations, choose_all, interpolate, legend, panels
from scripts.stack import Ports, Stack
from tests.observability.expected import ASKED, BETWEEN, COUNTED, DECIDED, INTERNALS, LIMITING, REPLICAS, ZERO, Key
from tests.observability.tools import ROOT, get, program, prometheus_at, series, until_nothing
from tests.observability.traffic import KEYLESS, RULES, SETTINGS, STEADY, Traffic

pytestmark = pytest.mark.timeout(300)

TARGETS = REPLICAS + 2  # Envoy, and Prometheus itself
QUERIES = {(panel.dashboard, panel.title, query.legend): query.expr for panel in panels() for query in panel.queries}
# What selectors.rate and selectors.rate_from_birth make of a counter.
_RATE = re.compile(r"rate\((\w+{[^}]*})\[\w+\]\)")
_RATE_FROM_BIRTH = re.compile(r"\(\((\w+{[^}]*}) unless \1 .*? or rate\(\1\[\w+\]\)\)")


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with rules whose answers are known."""
    program("prometheus")
    folder = tmp_path_factory.mktemp("fed")
    (folder / "rules").mkdir()
    (folder / "rules/api.yaml").write_text(RULES)
    env = {"EXTAUTH_CONFIG": str(folder / "rules"), **SETTINGS}
    stack = Stack(ROOT, folder / "run", ports=Ports.free(), env=env, ratelimit_timeout_s=5)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


class Shown:
    """What the dashboards show at one instant, with All chosen where `choices` have nothing else."""

    def __init__(self, port: int, *, totals: bool, **choices: str) -> None:
        self._port = port
        self.at = float(get(port, "query", query="time()")["result"][0])
        self._chosen = choose_all(prometheus_at(port)) | choices
        self._totals = totals

    def values(self, key: Key) -> dict[str, float]:
        """By the series' name in the legend, the hash of a masked value left out; `totals` are counters, not rates."""
        promql = interpolate(QUERIES[key], self._chosen)
        if self._totals:
            promql = _RATE.sub(r"\1", _RATE_FROM_BIRTH.sub(r"\1", promql))
        rows = get(self._port, "query", query=promql, time=str(self.at))["result"]
        shown = {re.sub(r"\*.*", "", legend(key[2], row["metric"])): float(row["value"][1]) for row in rows}
        assert len(shown) == len(rows), f"series of one name: {rows}"
        return shown

    def marked(self, annotation: str) -> list[float]:
        """The values of an annotation's series."""
        promql = interpolate(dict(annotations())[annotation], self._chosen)
        return [value for _, value in series(self._port, promql)]

    def covered(self, key: Key) -> tuple[float, float]:
        """The Unix times of the first and the last scrape that count for the rates of a query."""
        job = "envoy" if "envoy_" in QUERIES[key] else "extauth"
        rows = get(self._port, "query", query=f'up{{job="{job}"}}[{RATE_INTERVAL_S}s]', time=str(self.at))["result"]
        times = [[at for at, _ in row["values"]] for row in rows]
        return sum(each[0] for each in times) / len(times), sum(each[-1] for each in times) / len(times)


def scraped(port: int, since: float) -> bool:
    """Whether Prometheus has seen all targets since a Unix time."""
    return len(series(port, f"timestamp(up) > {since}")) == TARGETS


def test_each_query_has_an_expectation() -> None:
    expected = [*COUNTED, *ZERO, *BETWEEN, DECIDED, ASKED]
    assert len(expected) == len(set(expected))
    assert set(expected) == QUERIES.keys()
    assert len(QUERIES) == sum(len(panel.queries) for panel in panels())


def test_panels_show_what_was_sent(fed: Stack) -> None:
    ask = fed.ports.prometheus
    until_nothing(lambda: TARGETS - len(series(ask, f"up offset {RATE_INTERVAL_S}s")))
    before = Shown(ask, totals=True, cluster="echo")  # which is offered once it was asked about
    probes = {key: before.values(key) for key, each in COUNTED.items() if "envoy_" in QUERIES[key] and not each.share}
    with closing(Traffic(fed.ports.edge)) as traffic:
        _check_traffic(ask, traffic, probes)


def _check_traffic(ask: int, traffic: Traffic, probes: Mapping[Key, Mapping[str, float]]) -> None:
    for _ in range(12):
        traffic.send()
    _check_what_came_before_the_first_scrape(ask, traffic)

    def differing() -> dict[Key, object]:
        shown = Shown(ask, totals=False)
        found: dict[Key, object] = {}
        for key, counted in COUNTED.items():
            first, last = (0.0, shown.at) if counted.whole else shown.covered(key)
            expected = counted.expected(traffic.within(first, last), 1 if counted.whole else last - first)
            if shown.values(key) != pytest.approx(expected, rel=0.05):
                found[key] = shown.values(key), expected
        for key in ZERO:
            if (values := shown.values(key)) != dict.fromkeys(values, 0) or not values:
                found[key] = values
        for key, (least, most, number) in BETWEEN.items():
            values = shown.values(key)
            if len(values) != number or not all(least <= value <= most for value in values.values()):
                found[key] = values
        return found

    with traffic.flowing():
        began = time.time()
        until_nothing(lambda: time.time() < began + RATE_INTERVAL_S)
        until_nothing(differing)
    ended = time.time()
    until_nothing(lambda: not scraped(ask, ended))
    totals = Shown(ask, totals=True)
    assert traffic.wrong == []
    wrong: dict[Key, object] = {key: values for key in ZERO if set((values := totals.values(key)).values()) != {0}}
    for key, counted in COUNTED.items():
        before = probes.get(key, {})
        found = {name: value - before.get(name, 0) for name, value in totals.values(key).items()}
        if found != pytest.approx(expected := counted.expected(traffic.events), rel=1e-12):
            wrong[key] = found, expected
    assert wrong == {}
    _check_who_decided(totals, traffic)


def _check_what_came_before_the_first_scrape(ask: int, traffic: Traffic) -> None:
    """Series that came to be with a burst show all of it, though Prometheus knows no increase of theirs."""
    burst = time.time()
    until_nothing(lambda: not scraped(ask, burst))
    shown = Shown(ask, totals=False)
    newborn = {key: counted for key, counted in COUNTED.items() if " unless " in QUERIES[key]}
    for key, counted in newborn.items():
        if "_external_upstream_rq" not in QUERIES[key]:  # there are probes among these
            expected = counted.expected(traffic.events, 1 if counted.whole else RATE_INTERVAL_S)
            assert shown.values(key) == pytest.approx(expected, rel=1e-12), key
    assert len(newborn) > len(COUNTED) / 2


def _check_who_decided(totals: Shown, traffic: Traffic) -> None:
    decided = totals.values(DECIDED)
    assert decided.keys() == {"store", "denial_cache", "no_counter", "local", "failure_policy"}
    matched = sum(event.caller.key is not None for event in traffic.events)
    assert decided["no_counter"] == len(traffic.events) - matched
    assert decided["store"] + decided["denial_cache"] == matched
    assert decided["local"] == decided["failure_policy"] == 0
    assert totals.values(ASKED) == {"asked Redis": decided["store"]}


def test_a_redis_that_is_away_and_edits_are_shown_and_marked(fed: Stack) -> None:
    ask = fed.ports.prometheus
    until_nothing(lambda: TARGETS - len(series(ask, "up")))
    before = Shown(ask, totals=True)
    fed.stop("redis")
    with closing(Traffic(fed.ports.edge)) as traffic:
        for _ in range(20):
            traffic.send([STEADY, KEYLESS])
    assert traffic.wrong == []
    sent = time.time()
    until_nothing(lambda: not scraped(ask, sent))

    shown = Shown(ask, totals=True)
    local = dict.fromkeys(("allow", "deny", "error"), 0.0) | {"local": 20.0}
    assert _grown(shown, before, (LIMITING, "Decided without Redis", "{{outcome}}")) == local
    sources = _grown(shown, before, DECIDED)
    assert sources == {"store": 0, "denial_cache": 0, "no_counter": 20, "local": 20, "failure_policy": 0}
    assert shown.values((LIMITING, "Without a store", "")) == {"": REPLICAS}
    assert shown.values((INTERNALS, "Breakers not closed", "")) == {"": REPLICAS}
    assert set(shown.values((INTERNALS, "Breaker", "{{instance}}")).values()) <= {1, 2}
    assert shown.values((INTERNALS, "Redis errors", "{{kind}}"))["connection"] > 0
    assert shown.marked("Breaker open") == [1.0] * REPLICAS

    fed.start("redis")
    until_nothing(lambda: Shown(ask, totals=True).marked("Breaker open") != [0.0] * REPLICAS)

    rules = fed.state.parent / "rules/api.yaml"
    rules.write_text("domain: [")
    until_nothing(lambda: Shown(ask, totals=True).marked("Edit refused") != [1.0] * REPLICAS)
    edited = time.time()
    assert max(Shown(ask, totals=True).marked("Rules in force")) < 1000 * edited
    rules.write_text(RULES)
    until_nothing(lambda: Shown(ask, totals=True).marked("Edit refused") != [0.0] * REPLICAS)
    assert min(Shown(ask, totals=True).marked("Rules in force")) > 1000 * edited


def _grown(after: Shown, before: Shown, key: Key) -> dict[str, float]:
    return {name: value - before.values(key)[name] for name, value in after.values(key).items()}
