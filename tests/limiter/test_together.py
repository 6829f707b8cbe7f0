"""`together: true`: all counters of a request lie on one shard, that of its first descriptor."""

from collections.abc import Sequence

import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import RateLimitDescriptor
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest
from hypothesis import given
from hypothesis import strategies as st

from extauth.explain.preview import plan_request
from extauth.explain.request import read_descriptor
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counter_names import ShardOf
from extauth.limiter.planner import Planner
from tests.limiter.service import descriptor
from tests.support.service import planner_of

RULES = """
labels: [path]
descriptors:
  - {key: caller, rate_limits: [{unit: minute, requests_per_unit: 5}, {unit: hour, requests_per_unit: 9}]}
  - {key: address, rate_limit: {unit: minute, requests_per_unit: 5}}
  - {key: route, rate_limit: {unit: minute, requests_per_unit: 50}}
  - {key: file, value: "*.png", share_threshold: true, rate_limit: {unit: minute, requests_per_unit: 5}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: outer, descriptors: [{key: inner, rate_limit: {unit: minute, requests_per_unit: 5}}]}
"""
SHARDS = 64
OPTIONS = LimiterOptions(shards=SHARDS)
shard_of = ShardOf(SHARDS)


def together(options: LimiterOptions = OPTIONS) -> Planner:
    return planner_of("domain: d\ntogether: true" + RULES, options)


def apart() -> Planner:
    return planner_of("domain: d" + RULES, OPTIONS)


def message(*descriptors: str) -> bytes:
    """`key=value`s separated by spaces, one descriptor each."""
    each: list[RateLimitDescriptor] = [descriptor(*text.split()) for text in descriptors]
    return bytes(RateLimitRequest(domain="d", descriptors=each))


def tails(names: Sequence[bytes]) -> list[bytes]:
    return [name.partition(b"}")[2] for name in names]


texts = st.sampled_from(
    [f"{key}={value}" for key in ("caller", "address", "route", "free", "path", "none") for value in "abcdef"]
    + ["file=a.png", "file=b.png", "outer=o inner=i", "outer=o"]
)


@given(st.lists(st.lists(texts, min_size=1, max_size=4), min_size=1, max_size=5))
def test_all_counters_of_a_request_lie_on_the_shard_of_its_first_descriptor(requests: list[list[str]]) -> None:
    planner, other = together(), apart()
    for request in requests:
        plan, plan_apart = planner.plan(message(*request)), other.plan(message(*request))
        assert tails(plan.names) == tails(plan_apart.names), "but for the shard they have the same names"
        assert plan.checks == plan_apart.checks
        assert len({shard_of(name) for name in plan.names}) <= 1
        first = other.plan(message(request[0])).names
        if first:
            assert plan.names
            assert {shard_of(name) for name in plan.names} == {shard_of(first[0])}


@pytest.mark.parametrize("first", ["caller=c", "free=f", "none=n", "path=/", "file=a.png", "outer=o"])
def test_the_first_descriptor_decides_even_where_it_counts_nothing(first: str) -> None:
    planner = together()
    shards = {shard_of(name) for route in "abcdef" for name in planner.plan(message(first, f"route={route}")).names}
    assert len(shards) == 1
    spread = {shard_of(name) for c in range(20) for name in planner.plan(message(f"none={c}", "route=a")).names}
    assert len(spread) > 5, "other first descriptors have other shards"


def test_counters_of_other_domains_lie_apart() -> None:
    planner = planner_of("domain: e\ntogether: false" + RULES, OPTIONS)
    requests = [message("caller=a", f"route={route}").replace(b"\x01d", b"\x01e", 1) for route in "abcdefgh"]
    assert max(len({shard_of(name) for name in planner.plan(request).names}) for request in requests) > 1


def test_counters_are_described_by_their_names() -> None:
    planner = together()
    request = message("caller=a", "route=r")
    described = [planner.describe_counter(request, name) for name in planner.plan(request).names]
    assert described == ["caller=a", "caller=a", "route=r"]
    assert planner.describe_counter(request, planner.plan(message("route=other")).names[0]) is None


def test_a_counter_is_described_though_its_request_is_not_remembered() -> None:
    request = message("caller=a", "route=r")
    described = [together().describe_counter(request, name) for name in together().plan(request).names]
    assert described == ["caller=a", "caller=a", "route=r"]


def test_explain_has_the_names_of_the_counters() -> None:
    planner = together()
    planned = plan_request(planner, "d", (read_descriptor("caller=a"), read_descriptor("route=r")))
    assert [asked.name for own in planned.asked for asked in own] == list(
        planner.plan(message("caller=a", "route=r")).names
    )


def test_without_shards_the_names_are_the_same_either_way() -> None:
    one = LimiterOptions(shards=1)
    request = message("caller=a", "route=r")
    assert together(one).plan(request).names == planner_of("domain: d" + RULES, one).plan(request).names
