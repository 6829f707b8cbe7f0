"""The text that Prometheus scrapes under envoyproxy/ratelimit's names, and the names in statsd."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from extauth.compat.hits import ReferenceHits, hits_table
from extauth.compat.metrics import ReferenceMetrics
from extauth.compat.names import labels, statsd_name
from extauth.limiter.facts import GroupResult
from extauth.limiter.verdict import Labels
from extauth.rls.encode import encode_request
from extauth.rls.request import Descriptor, Entry
from extauth.rules.model import OnStoreFailure
from extauth.telemetry.gathered import GatheredMetrics, changes_of, samples_of
from extauth.telemetry.masked_names import MaskedNames
from extauth.telemetry.metrics import Metrics
from tests.support.facts import batch, settled
from tests.support.service import decider_of

GATEWAY = """
domain: ns/gateway/http
descriptors:
- key: masked_remote_address
  value: 0.0.0.0/0
  rate_limit: {unit: hour, requests_per_unit: 3}
- key: rule-0-match-0
  value: rule-0-match-0
  descriptors:
  - key: rule-0-match-1
    value: a:b|c
    rate_limit: {unit: hour, requests_per_unit: 9}
    descriptors:
    - {key: deep, value: x, rate_limit: {unit: hour, requests_per_unit: 9}}
    - {key: deep, value: y, rate_limit: {unit: hour, requests_per_unit: 9}}
- {key: api_key, value: a-very-secret-key, rate_limit: {unit: hour, requests_per_unit: 9}}
- key: httproute/ns/shop/rule/0/match/0/*
  value: httproute/ns/shop/rule/0/match/0/*
  descriptors:
  - &rule {key: rule-0-match-0, value: rule-0-match-0, rate_limit: {unit: hour, requests_per_unit: 9}}
- key: httproute/ns/auth-tokens/rule/0/match/0/www_example_com
  value: httproute/ns/auth-tokens/rule/0/match/0/www_example_com
  descriptors:
  - key: rule-0-match-0
    value: rule-0-match-0
    descriptors:
    - {key: masked_remote_address, value: 192.168.0.0/16, rate_limit: {unit: hour, requests_per_unit: 9}}
- key: grpcroute/ns/session.v1/rule/0/match/-1/*
  value: grpcroute/ns/session.v1/rule/0/match/-1/*
  descriptors: [*rule]
- key: password
  value: password
  rate_limit: {unit: hour, requests_per_unit: 9}
"""
OUTER = ("rule-0-match-0", "rule-0-match-0"), ("rule-0-match-1", "a:b|c")


class Counted:
    """The metrics of a process that decides calls by GATEWAY."""

    def __init__(self) -> None:
        masked = MaskedNames()
        self.metrics, self.hits = Metrics((), (), masked=masked), ReferenceHits(0.8, masked)
        self.reference = ReferenceMetrics(self.metrics, self.hits.table)
        self.decider = decider_of(GATEWAY)

    async def call(self, *entries: tuple[str, str], calls: int = 1, hits: int = 1) -> None:
        message = encode_request("ns/gateway/http", [Descriptor(tuple(Entry(*entry) for entry in entries))], hits)
        decided = await self.decider.limiter.decide({self.decider.planner.plan(message): calls})
        fact = batch(*decided.groups, durations_s=[(0.002, calls)])
        self.metrics.batch_decided(fact)
        self.hits.batch_decided(fact)


def scraped(reference: ReferenceMetrics, accept: str = "") -> str:
    kind, pieces = reference.scrape(accept)
    assert kind.startswith("text/plain")
    return b"".join(pieces).decode()


def series(reference: ReferenceMetrics) -> dict[str, float]:
    """Each series of a rule, by its labels, without the beginning of its name."""
    lines = (line for line in scraped(reference).splitlines() if line.startswith("ratelimit_service_rate_limit_"))
    found = (line.removeprefix("ratelimit_service_rate_limit_").rpartition(" ") for line in lines)
    return {name: float(value) for name, _, value in found}


async def test_hits_have_the_names_and_labels_of_the_reference() -> None:
    counted = Counted()
    await counted.call(("masked_remote_address", "0.0.0.0/0"), calls=2, hits=2)
    await counted.call(*OUTER)
    own = '{domain="ns/gateway/http",key1="masked_remote_address_0_0_0_0/0"}'
    two = '{domain="ns/gateway/http",key1="rule-0-match-0_rule-0-match-0",key2="rule-0-match-1_a_b_c"}'
    assert series(counted.reference) == {
        f"total_hits{own}": 4,
        f"within_limit{own}": 2,
        f"over_limit{own}": 1,
        f"near_limit{own}": 1,
        f"total_hits{two}": 1,
        f"within_limit{two}": 1,
    }


async def test_counters_have_their_type_and_no_suffix() -> None:
    counted = Counted()
    await counted.call(*OUTER)
    text = scraped(counted.reference, "application/openmetrics-text;version=1.0.0")
    assert "# TYPE ratelimit_service_rate_limit_total_hits counter\n" in text
    assert "\nratelimit_service_rate_limit_total_hits{" in text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["ratelimit_service_response_time_seconds"].type == "histogram"
    assert {sample.labels["grpc_method"] for sample in families["ratelimit_service_total_requests"].samples} == {
        "ShouldRateLimit"
    }
    assert "process_cpu_seconds" in families
    assert not [name for name in families if name.startswith("extauth_")]


async def test_levels_below_the_second_share_their_series_and_have_names_of_their_own_in_statsd() -> None:
    counted = Counted()
    for value in "xxy":
        await counted.call(*OUTER, ("deep", value))
    two = '{domain="ns/gateway/http",key1="rule-0-match-0_rule-0-match-0",key2="rule-0-match-1_a_b_c"}'
    assert series(counted.reference)[f"total_hits{two}"] == 3
    before = "ratelimit.service.rate_limit.ns/gateway/http.rule-0-match-0_rule-0-match-0.rule-0-match-1_a_b_c"
    stats = dict(each for piece in counted.reference.stats() for each in piece)
    assert stats[f"{before}.deep_x.total_hits"] == 2
    assert stats[f"{before}.deep_y.total_hits"] == 1
    assert stats["ratelimit_server.ShouldRateLimit.total_requests"] == 3
    assert stats["ratelimit.service.config_load_success"] == 1


async def test_secret_values_are_masked() -> None:
    counted = Counted()
    await counted.call(("api_key", "a-very-secret-key"))
    text = scraped(counted.reference) + str(list(counted.reference.stats()))
    assert "api_key_a-***~" in text
    assert "very-secret" not in text


SHOP = "httproute/ns/shop/rule/0/match/0/*"
TOKENS = "httproute/ns/auth-tokens/rule/0/match/0/www_example_com"
SESSION = "grpcroute/ns/session.v1/rule/0/match/-1/*"
IN_ROUTE = "rule-0-match-0_rule-0-match-0"
ROUTES = [
    ([SHOP, "rule-0-match-0"], [f"{SHOP}_{SHOP}", IN_ROUTE]),
    ([TOKENS, "rule-0-match-0", "masked_remote_address=192.168.0.0/16"], [f"{TOKENS}_{TOKENS}", IN_ROUTE]),
    ([SESSION, "rule-0-match-0"], ["grpcroute/ns/session", "v1/rule/0/match/-1/*_grpcroute/ns/session"]),
    (["password"], ["password_password"]),
]


@pytest.mark.parametrize(("route", "names"), ROUTES, ids=lambda each: str(each[0]))
async def test_the_names_of_routes_are_those_of_the_reference(route: list[str], names: list[str]) -> None:
    counted = Counted()
    pairs = (entry.partition("=") for entry in route)
    await counted.call(*((key, value or key) for key, _, value in pairs))
    keys = ",".join(f'key{number}="{name}"' for number, name in enumerate(names, 1))
    shown = f'{{domain="ns/gateway/http",{keys}}}'
    assert series(counted.reference) == {f"total_hits{shown}": 1, f"within_limit{shown}": 1}


def test_errors_and_loads_are_those_of_the_service() -> None:
    metrics = Metrics(["invalid_call", "other"])
    reference = ReferenceMetrics(metrics, hits_table())
    metrics.batch_decided(batch(GroupResult(settled(Labels()).plan, 3, None, OnStoreFailure.ERROR)))
    metrics.guard_tripped("invalid_call")
    metrics.guard_tripped("other")
    for ok in (True, False, True):
        metrics.reloaded(ok=ok)
    text = scraped(reference)
    assert 'ratelimit_service_should_rate_limit_error{err_type="redis_error"} 3.0\n' in text
    assert 'ratelimit_service_should_rate_limit_error{err_type="service_error"} 1.0\n' in text
    assert "ratelimit_service_config_load_success 3.0\n" in text
    assert "ratelimit_service_config_load_error 1.0\n" in text


async def test_several_workers_are_shown_as_one() -> None:
    workers = [Counted(), Counted()]
    parent = GatheredMetrics((), ())
    reference = ReferenceMetrics(parent, hits_table())
    for number, worker in enumerate(workers):
        await worker.call(*OUTER, calls=number + 1)
        for changes in changes_of(worker.metrics):
            parent.add(changes)
        parent.set(number, samples_of(worker.metrics))
    two = '{domain="ns/gateway/http",key1="rule-0-match-0_rule-0-match-0",key2="rule-0-match-1_a_b_c"}'
    assert series(reference) == {f"total_hits{two}": 3, f"within_limit{two}": 3}
    assert 'ratelimit_service_total_requests{grpc_method="ShouldRateLimit"} 3.0\n' in scraped(reference)


async def test_rules_that_are_reloaded_go_on_counting_in_their_series() -> None:
    counted = Counted()
    await counted.call(*OUTER)
    counted.metrics.rules_loaded(4, "", ok=True)
    counted.hits.rules_loaded()
    await counted.call(*OUTER)
    assert set(series(counted.reference).values()) == {2}


@pytest.mark.parametrize(
    ("domain", "rule", "name", "shown"),
    [
        ("d", "k_v", "d.k_v", 'domain="d",key1="k_v"'),
        ("d", "k_1.2.3.4", "d.k_1_2_3_4", 'domain="d",key1="k_1_2_3_4"'),
        ("d", "k_1.2.3", "d.k_1.2.3", 'domain="d",key1="k_1",key2="2"'),
        ("a.b", "k", "a.b.k", 'domain="a",key1="b",key2="k"'),
        ("d", "k_2001:db8::/32", "d.k_2001_db8__/32", 'domain="d",key1="k_2001_db8__/32"'),
        ("d", "k_* (f.yaml:3)", "d.k_*", 'domain="d",key1="k_*"'),
        ("d", "k_* (f.yaml:3):9", "d.k_*", 'domain="d",key1="k_*"'),
        ("d", "k_v (request)", "d.k_v", 'domain="d",key1="k_v"'),
        ("d", "override:k.l", "d.k.l", 'domain="d",key1="k",key2="l"'),
        ("d", 'k_"\\\n', 'd.k_"\\\n', r'domain="d",key1="k_\"\\\n"'),
    ],
)
def test_names(domain: str, rule: str, name: str, shown: str) -> None:
    assert statsd_name(domain, rule, "over_limit") == f"ratelimit.service.rate_limit.{name}.over_limit"
    assert labels(domain, rule) == shown
