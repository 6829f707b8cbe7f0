"""Who is denied most, and who calls most."""

from collections.abc import Sequence

import pytest

from extauth.config.merge import load_rules
from extauth.counters.local import LocalCounters
from extauth.counters.memory import MemoryCounters
from extauth.errors import StoreError
from extauth.explain.request import read_descriptor
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import CounterSet, Group, PartlyCounted, TakeResult, Uncounted
from extauth.limiter.facts import ShedFact
from extauth.rls.encode import encode_request
from extauth.rules.masking import Masking
from extauth.rules.matcher import Matcher
from extauth.telemetry.callers import (
    WINDOW_S,
)
from extauth.telemetry.top import Caller
from tests.support.callers import CONFIG, NOON_S, CallersRig
from tests.support.clock import Clock
from tests.support.service import decider_of


async def test_callers_are_counted_to_the_unit() -> None:
    rig = CallersRig()
    await rig.call("ip=192.0.2.1", calls=7)
    await rig.call("ip=192.0.2.1", "path=/a")
    await rig.call("ip=192.0.2.2", calls=2)
    await rig.batch({("ip=192.0.2.3",): 3, ("ip=192.0.2.1", "path=/b"): 4})
    assert rig.denied("ip") == {"ip=192.0.2.1": 10, "ip=192.0.2.3": 1}
    assert rig.busiest("ip") == {"ip=192.0.2.1": 12, "ip=192.0.2.3": 3, "ip=192.0.2.2": 2}
    top = rig.callers.top()
    assert (top.denied_examined, top.busiest_examined, top.since_s) == (1, 1, NOON_S)
    assert all((caller.error, caller.missing) == (0, 0) for rule in top.rules for caller in rule.busiest)


async def test_before_the_first_call_there_is_nobody() -> None:
    top = CallersRig().callers.top()
    assert (top.denied_examined, top.busiest_examined, top.rules) == (1, 1, ())


async def test_each_is_a_caller_of_its_rule_and_the_most_denied_rule_is_first() -> None:
    rig = CallersRig()
    await rig.call("api_key=a-known-key", calls=6)
    await rig.call("ip=192.0.2.1", calls=5)
    await rig.call("api_key=another-key", calls=9)
    assert [(rule.domain, rule.rule) for rule in rig.callers.top().rules] == [
        ("d", "api_key"),
        ("d", "ip"),
        ("d", "api_key_a-***~8515a2"),
    ]


async def test_secret_values_are_masked() -> None:
    rig = CallersRig()
    await rig.call("api_key=a-very-secret-key", calls=4)
    (caller,) = rig.denied("api_key")
    assert caller.startswith("api_key=a-***~")
    assert "secret" not in caller


ROUTE = "httproute/ns/auth/rule/0/match/0/*"
MASK = Masking().mask


@pytest.mark.parametrize(
    ("rule", "asked", "name", "caller"),
    [
        (f"key: '{ROUTE}', value: '{ROUTE}'", f"{ROUTE}={ROUTE}", f"{ROUTE}_{ROUTE}", f"{ROUTE}={ROUTE}"),
        ("key: 'plan_*'", "plan_a=a-value", "plan_*", f"plan_a={MASK('a-value')}"),
        ("key: 'plan_*'", "plan_a=plan_*", "plan_*", f"plan_a={MASK('plan_*')}"),
        ("key: 'plan_*'", "plan_a=plan_a", "plan_*", "plan_a=plan_a"),
    ],
)
async def test_values_under_a_pattern_of_keys_are_masked_unless_they_equal_the_key(
    rule: str, asked: str, name: str, caller: str
) -> None:
    rig = CallersRig(f"domain: d\ndescriptors: [{{{rule}, rate_limit: {{unit: year, requests_per_unit: 2}}}}]")
    await rig.call(asked, calls=4)
    assert rig.denied(name) == {caller: 2}


async def test_one_that_turns_secret_is_masked_from_then_on() -> None:
    rig = CallersRig()
    await rig.call("ip=192.0.2.1", calls=4)
    assert list(rig.denied("ip")) == ["ip=192.0.2.1"]
    rules = load_rules({"f.yaml": CONFIG + "secret: [ip]"})
    rig.load(Matcher(rules))
    assert rig.denied("ip") == {}, "nobody knows yet what it is called now"
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
    rig = CallersRig()
    await rig.call(*descriptors, calls=calls)
    assert {rule.rule: rig.denied(rule.rule) for rule in rig.callers.top().rules if rule.denied} == denied


async def test_when_callers_came_first_and_last() -> None:
    rig = CallersRig()
    for _ in range(3):
        rig.clock.now += 5
        await rig.call("ip=1")
    assert rig.rule("ip").busiest == (Caller("ip=1", 3, 0, 0, NOON_S + 5, NOON_S + 15),)
    assert rig.rule("ip").denied == (Caller("ip=1", 1, 0, 0, NOON_S + 15, NOON_S + 15),)


async def test_it_counts_for_two_windows() -> None:
    rig = CallersRig()
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


class Unreachable:
    """A store that is away."""

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        raise StoreError("connection", "no connection")

    async def connect(self) -> None: ...

    async def probe(self) -> None:
        raise StoreError("connection", "no connection")


LET = """
domain: d
descriptors:
  - {key: let, rate_limit: {unit: year, requests_per_unit: 1, on_store_failure: allow}}
  - {key: ip, rate_limit: {unit: year, requests_per_unit: 2}}
"""


async def test_those_whom_local_counting_denies_are_counted_for_their_rule() -> None:
    clock = Clock()
    options = LimiterOptions(local=LocalCounters(clock, 1 << 20))
    rig = CallersRig(LET, decider=decider_of(LET, Unreachable(), options))
    await rig.call("let=1", "ip=1", calls=5)
    await rig.call("ip=2", calls=4)
    await rig.call("let=2", calls=4)
    assert rig.denied("ip") == {"ip=1": 3, "ip=2": 2}
    assert rig.busiest("ip") == {"ip=1": 5, "ip=2": 4}
    assert rig.denied("let") == {}
    assert rig.busiest("let") == {"let=2": 4}


class HalfReachable:
    """Has two shards: that of each request's first counter is away."""

    def __init__(self, clock: Clock) -> None:
        self._store = MemoryCounters(clock)

    async def take(self, groups: Sequence[Group]) -> list[PartlyCounted]:
        parts = [Group(CounterSet(each.take.names[1:], each.take.checks[1:]), each.calls) for each in groups]
        return [
            PartlyCounted(taken.admitted, (None, *taken.levels), (0,), Uncounted.UNSENT, False, lambda _admitted: None)
            for taken in await self._store.take(parts)
        ]


async def test_those_whom_a_shard_denies_beside_one_that_is_away_are_counted_for_their_rule() -> None:
    rig = CallersRig(LET, decider=decider_of(LET, HalfReachable(Clock())))
    await rig.call("let=1", "ip=1", calls=5)
    await rig.call("let=2", "ip=2", calls=3)
    assert rig.denied("ip") == {"ip=1": 3, "ip=2": 1}
    assert rig.busiest("ip") == {"ip=1": 5, "ip=2": 3}


async def test_calls_that_are_shed_count_once() -> None:
    rig = CallersRig()
    plan = rig.decider.planner.plan(encode_request("d", [read_descriptor("ip=1")]))
    (group,) = (await rig.decider.limiter.decide({plan: 1})).groups
    rig.callers.call_shed(ShedFact("timeout", group, counting=True))
    assert rig.busiest("ip") == {}
    rig.callers.call_shed(ShedFact("timeout", group, counting=False))
    assert rig.busiest("ip") == {"ip=1": 1}
