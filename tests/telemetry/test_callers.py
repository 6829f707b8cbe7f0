"""Who is denied most, and who calls most."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from extauth.config.merge import load_rules
from extauth.counters.local import LocalCounters
from extauth.counters.memory import MemoryCounters
from extauth.errors import StoreError
from extauth.explain.request import read_descriptor
from extauth.limiter.build import Decider, LimiterOptions
from extauth.limiter.counters import Group, TakeResult
from extauth.limiter.facts import BatchFact, ShedFact
from extauth.rls.encode import encode_request
from extauth.rules.matcher import Matcher
from extauth.telemetry.callers import (
    MANY_CALLERS,
    MAX_RULES,
    MISS_WORK,
    POOL_CALLERS,
    RULE_CALLERS,
    WINDOW_S,
    Callers,
)
from extauth.telemetry.sampling import SAMPLED, WORK_A_SECOND
from extauth.telemetry.top import Caller, RuleTop
from tests.support.clock import NOON, Clock, Seconds
from tests.support.service import decider_of

CONFIG = """
domain: d
labels: [path]
descriptors:
  - {key: ip, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: api_key, rate_limit: {unit: year, requests_per_unit: 3}}
  - {key: api_key, value: a-known-key, rate_limit: {unit: year, requests_per_unit: 5}}
  - {key: both, rate_limits: [{unit: day, requests_per_unit: 2}, {unit: year, requests_per_unit: 1}]}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: quota, quota_mode: true, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: file, value: "a/*", share_threshold: true, rate_limit: {unit: year, requests_per_unit: 1}}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: tenant, descriptors: [{key: user, rate_limit: {unit: year, requests_per_unit: 1}}]}
  - {key: named, detailed_metric: true, rate_limit: {unit: year, requests_per_unit: 1}}
"""
NOON_S = NOON / 1_000_000


class Rig:
    """Callers that are decided about by rules, and counted; time passes when told to."""

    def __init__(self, config: str = CONFIG, drawn: Sequence[float] = (), decider: Decider | None = None) -> None:
        self.decider = decider or decider_of(config, MemoryCounters(Clock()))
        self.clock = Seconds()
        self.began_s = self.clock.now
        draws = iter(drawn)
        self.callers = Callers(
            self.decider.planner.describe_counter,
            clock=self.clock,
            wall_s=lambda: NOON_S + self.clock.now - self.began_s,
            draw=lambda: next(draws),
        )
        self.callers.rules_loaded(self.decider.planner.matcher.rules)

    async def call(self, *descriptors: str, calls: int = 1) -> None:
        await self.batch({descriptors: calls})

    async def batch(self, calls: Mapping[tuple[str, ...], int]) -> None:
        plans = {
            self.decider.planner.plan(encode_request("d", list(map(read_descriptor, descriptors)))): number
            for descriptors, number in calls.items()
        }
        result = await self.decider.limiter.decide(plans)
        now = self.clock.now
        self.callers.batch_decided(BatchFact(result.groups, None, [], now, now, now))

    def rule(self, name: str) -> RuleTop:
        found = [rule for rule in self.callers.top().rules if rule.rule == name]
        return found[0] if found else RuleTop("d", name)

    def denied(self, name: str) -> dict[str, int]:
        return {caller.caller: caller.calls for caller in self.rule(name).denied}

    def busiest(self, name: str) -> dict[str, int]:
        return {caller.caller: caller.calls for caller in self.rule(name).busiest}


async def test_callers_are_counted_to_the_unit() -> None:
    rig = Rig()
    await rig.call("ip=192.0.2.1", calls=7)
    await rig.call("ip=192.0.2.1", "path=/a")
    await rig.call("ip=192.0.2.2", calls=2)
    await rig.batch({("ip=192.0.2.3",): 3, ("ip=192.0.2.1", "path=/b"): 4})
    assert rig.denied("ip") == {"ip=192.0.2.1": 10, "ip=192.0.2.3": 1}
    assert rig.busiest("ip") == {"ip=192.0.2.1": 12, "ip=192.0.2.3": 3, "ip=192.0.2.2": 2}
    top = rig.callers.top()
    assert (top.denied_examined, top.busiest_examined, top.since_s) == (1, 1, NOON_S)
    assert all((caller.error, caller.missing) == (0, 0) for rule in top.rules for caller in rule.busiest)


async def test_a_look_in_turns_sees_the_same() -> None:
    rig = Rig()
    for i in range(2 * RULE_CALLERS):
        await rig.call(f"ip={i}", f"named={i}", calls=3)
    assert await rig.callers.look() == rig.callers.top()


async def test_calls_between_the_turns_of_a_look_do_not_matter() -> None:
    rig = Rig()
    await rig.call("ip=first", calls=1000)
    for i in range(2 * RULE_CALLERS):
        await rig.call(f"ip={i}", f"named={i}", calls=3)
    looking = asyncio.create_task(rig.callers.look())
    i = 0
    while not looking.done():
        i += 1
        await rig.call(f"ip=new-{i}", f"named=new-{i}", calls=9)
        await asyncio.sleep(0)
    (top,) = [rule for rule in looking.result().rules if rule.rule == "ip"]
    assert (top.denied[0].caller, top.denied[0].calls) == ("ip=first", 998)


async def test_before_the_first_call_there_is_nobody() -> None:
    top = Rig().callers.top()
    assert (top.denied_examined, top.busiest_examined, top.rules) == (1, 1, ())


async def test_each_is_a_caller_of_its_rule_and_the_most_denied_rule_is_first() -> None:
    rig = Rig()
    await rig.call("api_key=a-known-key", calls=6)
    await rig.call("ip=192.0.2.1", calls=5)
    await rig.call("api_key=another-key", calls=9)
    assert [(rule.domain, rule.rule) for rule in rig.callers.top().rules] == [
        ("d", "api_key"),
        ("d", "ip"),
        ("d", "api_key_a-***~8515a2"),
    ]


async def test_secret_values_are_masked() -> None:
    rig = Rig()
    await rig.call("api_key=a-very-secret-key", calls=4)
    (caller,) = rig.denied("api_key")
    assert caller.startswith("api_key=a-***~")
    assert "secret" not in caller


async def test_one_that_turns_secret_is_masked_from_then_on() -> None:
    rig = Rig()
    await rig.call("ip=192.0.2.1", calls=4)
    assert list(rig.denied("ip")) == ["ip=192.0.2.1"]
    rules = load_rules({"f.yaml": CONFIG + "secret: [ip]"})
    rig.callers.rules_loaded(rules)
    (caller,) = rig.denied("ip")
    assert "192" not in caller
    rig.decider.planner.swap(Matcher(rules))
    await rig.call("ip=192.0.2.1", calls=4)
    ((caller, calls),) = rig.denied("ip").items()
    assert caller.startswith("ip=19***~")
    assert calls == 6


MESSAGES = [
    (("tenant=t,user=u",), 3, {"tenant.user": {"tenant=t, user=u": 2}}),
    (("both=1",), 3, {"both": {"both=1": 2}}),  # one caller, whichever of the limits denies
    (("shadow=1",), 3, {}),
    (("shadow=1", "ip=1"), 5, {"ip": {"ip=1": 3}}),
    (("ip=1", "api_key=12345678"), 5, {"ip": {"ip=1": 3}}),
    (("ip=1", "both=1"), 5, {"both": {"both=1": 4}}),
    (("ip=1", "ip=1"), 5, {"ip": {"ip=1": 4}}),
    (("quota=1", "quota=2"), 3, {"quota": {"quota=1": 2, "quota=2": 2}}),
    (("file=a/1",), 3, {"file_a/*": {"file=a/*": 2}}),
    (("free=1",), 3, {}),
    (("nothing=1",), 3, {}),
    (("named=1",), 3, {"named_1": {"named=1": 2}}),
    ((f"ip={'x' * 600}",), 5, {"ip": {f"ip={'x' * 187}…~c8d907": 3}}),
]


@pytest.mark.parametrize(("descriptors", "calls", "denied"), MESSAGES, ids=str)
async def test_who_is_denied(descriptors: tuple[str, ...], calls: int, denied: dict[str, dict[str, int]]) -> None:
    rig = Rig()
    await rig.call(*descriptors, calls=calls)
    assert {rule.rule: rig.denied(rule.rule) for rule in rig.callers.top().rules if rule.denied} == denied


async def test_when_callers_came_first_and_last() -> None:
    rig = Rig()
    for _ in range(3):
        rig.clock.now += 5
        await rig.call("ip=1")
    assert rig.rule("ip").busiest == (Caller("ip=1", 3, 0, 0, NOON_S + 5, NOON_S + 15),)
    assert rig.rule("ip").denied == (Caller("ip=1", 1, 0, 0, NOON_S + 15, NOON_S + 15),)


async def test_it_counts_for_two_windows() -> None:
    rig = Rig()
    await rig.call("ip=1", calls=5)
    rig.clock.now += WINDOW_S
    await rig.call("ip=1", calls=1)
    assert rig.denied("ip") == {"ip=1": 4}
    assert rig.callers.top().since_s == NOON_S
    rig.clock.now += WINDOW_S
    await rig.call("ip=1", calls=1)
    assert rig.denied("ip") == {"ip=1": 2}
    assert rig.rule("ip").denied[0].first_s == NOON_S  # since when it is denied without a break
    assert rig.callers.top().since_s == NOON_S + WINDOW_S
    rig.clock.now += 2 * WINDOW_S
    await rig.call("ip=2")
    rig.clock.now += WINDOW_S
    await rig.call("ip=2")
    assert rig.denied("ip") == {}
    assert rig.busiest("ip") == {"ip=2": 2}


async def test_many_callers_of_one_rule_crowd_out_no_others() -> None:
    rig = Rig()
    await rig.call("ip=alone", calls=4)
    await rig.call("named=alone", calls=4)
    for i in range(2 * POOL_CALLERS):
        rig.clock.now += 0.1
        await rig.call(f"api_key=key-{i:08}", calls=4)
    assert rig.denied("ip") == {"ip=alone": 2}
    assert rig.denied("named_alone") == {"named=alone": 3}
    assert len(rig.rule("api_key").denied) == 20


async def test_the_error_is_what_a_rules_share_of_places_makes_it() -> None:
    rig = Rig()
    await rig.call("ip=heavy", calls=302)
    for i in range(10 * RULE_CALLERS):
        rig.clock.now += 0.1
        await rig.call(f"ip={i}", calls=3)
    most, *others = rig.rule("ip").denied
    assert (most.caller, most.calls, most.error) == ("ip=heavy", 300, 0)
    total = 300 + 10 * RULE_CALLERS
    for caller in others:
        assert 0 < caller.error <= total / RULE_CALLERS + MANY_CALLERS
        assert caller.calls - caller.error <= 1 <= caller.calls + caller.missing


async def test_names_that_requests_make_take_no_places_from_rules() -> None:
    rig = Rig()
    for i in range(MAX_RULES * MANY_CALLERS):
        await rig.call(f"named={i}", calls=2)
    for i in range(MANY_CALLERS):
        await rig.call(f"ip={i}", calls=100)
    await rig.call("ip=small", calls=3)
    for i in range(2 * POOL_CALLERS):
        rig.clock.now += 0.1
        await rig.call(f"named=more-{i}", calls=9)
    assert rig.denied("ip")["ip=small"] == 1


async def test_a_report_is_of_the_rules_with_the_most_denied_calls() -> None:
    rig = Rig()
    for i in range(300):
        await rig.call(f"named={i}", calls=2 + i)
    top = rig.callers.top(most_rules=10)
    assert [rule.rule for rule in top.rules] == [f"named_{i}" for i in range(299, 289, -1)]


async def test_of_more_calls_than_can_be_counted_for_little_a_sample_is() -> None:
    rig = Rig(drawn=[0.99, 1 / SAMPLED - 0.001, 0.5])
    await rig.batch({(f"nothing={i}",): 1 for i in range(WORK_A_SECOND)})
    for _ in range(3):
        await rig.call("ip=1", calls=3)
    assert rig.busiest("ip") == {"ip=1": 3 * SAMPLED}
    assert rig.denied("ip") == {"ip=1": 7}
    top = rig.callers.top()
    assert (top.denied_examined, top.busiest_examined) == (1, (WORK_A_SECOND + 1) / (WORK_A_SECOND + 3))
    rig.clock.now += 1
    await rig.call("ip=1", calls=3)
    assert rig.busiest("ip") == {"ip=1": 3 * SAMPLED + 3}


async def test_so_it_is_of_denied_calls_of_very_many_callers() -> None:
    callers = WORK_A_SECOND // MISS_WORK
    rig = Rig(drawn=[0.5, 0.99, 0.5, 0.0])
    await rig.batch({(f"ip={i}",): 3 for i in range(callers)})
    assert sum(rig.denied("ip").values()) <= callers
    await rig.call("ip=new", calls=4)
    assert "ip=new" not in rig.denied("ip")
    await rig.call("ip=new", calls=1)
    assert rig.denied("ip")["ip=new"] >= SAMPLED
    assert rig.callers.top().denied_examined == (callers + 1) / (callers + 2)


async def test_denied_calls_of_known_callers_are_all_counted() -> None:
    rig = Rig(drawn=[0.99] * 10)
    for _ in range(3):
        await rig.batch({("ip=1",): 2, **{(f"nothing={i}",): 1 for i in range(WORK_A_SECOND)}})
    assert rig.denied("ip") == {"ip=1": 4}
    assert rig.callers.top().denied_examined == 1


class Unreachable:
    """A store that is away."""

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        raise StoreError("connection", "no connection")

    async def connect(self) -> None: ...

    async def probe(self) -> None:
        raise StoreError("connection", "no connection")


async def test_those_whom_local_counting_denies_are_counted_for_their_rule() -> None:
    config = """
domain: d
descriptors:
  - {key: let, rate_limit: {unit: year, requests_per_unit: 1, on_store_failure: allow}}
  - {key: ip, rate_limit: {unit: year, requests_per_unit: 2}}
"""
    clock = Clock()
    options = LimiterOptions(local=LocalCounters(clock, 1 << 20))
    rig = Rig(config, decider=decider_of(config, Unreachable(), options))
    await rig.call("let=1", "ip=1", calls=5)
    await rig.call("ip=2", calls=4)
    await rig.call("let=2", calls=4)
    assert rig.denied("ip") == {"ip=1": 3, "ip=2": 2}
    assert rig.busiest("ip") == {"ip=1": 5, "ip=2": 4}
    assert rig.denied("let") == {}
    assert rig.busiest("let") == {"let=2": 4}


async def test_calls_that_are_shed_count_once() -> None:
    rig = Rig()
    plan = rig.decider.planner.plan(encode_request("d", [read_descriptor("ip=1")]))
    (group,) = (await rig.decider.limiter.decide({plan: 1})).groups
    rig.callers.call_shed(ShedFact("timeout", group, counting=True))
    assert rig.busiest("ip") == {}
    rig.callers.call_shed(ShedFact("timeout", group, counting=False))
    assert rig.busiest("ip") == {"ip=1": 1}
