"""What is kept of very many callers, and how exact it is."""

import asyncio
import re
import weakref

from extauth.config.merge import load_rules
from extauth.explain.request import read_descriptor
from extauth.limiter.facts import BatchFact
from extauth.rls.encode import encode_request
from extauth.rules.matcher import Matcher
from extauth.telemetry.callers import (
    MANY_CALLERS,
    MAX_RULES,
    MISS_WORK,
    POOL_CALLERS,
    RULE_CALLERS,
)
from extauth.telemetry.sampling import SAMPLED, WORK_A_SECOND
from tests.support.callers import CallersRig


async def test_a_look_in_turns_sees_the_same() -> None:
    rig = CallersRig()
    for i in range(2 * RULE_CALLERS):
        await rig.call(f"ip={i}", f"named={i}", calls=3)
    assert await rig.callers.look() == rig.callers.top()


async def test_calls_between_the_turns_of_a_look_do_not_matter() -> None:
    rig = CallersRig()
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


async def test_many_callers_of_one_rule_crowd_out_no_others() -> None:
    rig = CallersRig()
    await rig.call("ip=alone", calls=4)
    await rig.call("named=alone", calls=4)
    for i in range(2 * POOL_CALLERS):
        rig.clock.now += 0.1
        await rig.call(f"api_key=key-{i:08}", calls=4)
    assert rig.denied("ip") == {"ip=alone": 2}
    assert rig.denied("named_alone") == {"named=alone": 3}
    assert len(rig.rule("api_key").denied) == 20


async def test_the_error_is_what_a_rules_share_of_places_makes_it() -> None:
    rig = CallersRig()
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
    rig = CallersRig()
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
    rig = CallersRig()
    for i in range(300):
        await rig.call(f"named={i}", calls=2 + i)
    top = rig.callers.top(most_rules=10)
    assert [rule.rule for rule in top.rules] == [f"named_{i}" for i in range(299, 289, -1)]


async def test_of_more_calls_than_can_be_counted_for_little_a_sample_is() -> None:
    rig = CallersRig(drawn=[0.99, 1 / SAMPLED - 0.001, 0.5])
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
    rig = CallersRig(drawn=[0.5, 0.99, 0.5, 0.0])
    await rig.batch({(f"ip={i}",): 3 for i in range(callers)})
    assert sum(rig.denied("ip").values()) <= callers
    await rig.call("ip=new", calls=4)
    assert "ip=new" not in rig.denied("ip")
    await rig.call("ip=new", calls=1)
    assert rig.denied("ip")["ip=new"] >= SAMPLED
    assert rig.callers.top().denied_examined == (callers + 1) / (callers + 2)


async def test_denied_calls_of_known_callers_are_all_counted() -> None:
    rig = CallersRig(drawn=[0.99] * 10)
    for _ in range(3):
        await rig.batch({("ip=1",): 2, **{(f"nothing={i}",): 1 for i in range(WORK_A_SECOND)}})
    assert rig.denied("ip") == {"ip=1": 4}
    assert rig.callers.top().denied_examined == 1


async def test_no_request_is_kept_and_whoever_is_unnamed_is_named_once_it_calls_again() -> None:
    rig = CallersRig()
    plan = rig.decider.planner.plan(encode_request("d", [read_descriptor("api_key=a-secret-key")]))
    rig.callers.batch_decided(BatchFact(*await rig.decider.limiter.decide({plan: 5}), [], 0, 0, 0))
    kept = weakref.ref(plan)
    del plan
    rig.decider.planner.swap(rig.decider.planner.matcher)  # forgets its plans
    assert kept() is None
    (caller,) = rig.denied("api_key")
    assert re.fullmatch(r"\(not named yet\) ~\w{6}", caller)
    await rig.call("api_key=a-secret-key")
    ((caller, calls),) = rig.denied("api_key").items()
    assert (caller[:14], calls) == ("api_key=a-***~", 3)
    ((_, calls),) = rig.busiest("api_key").items()
    assert calls == 6


async def test_a_name_that_was_shown_stays() -> None:
    rig = CallersRig()
    await rig.call("ip=1", calls=5)
    assert rig.denied("ip") == {"ip=1": 3}
    rig.decider.planner.swap(rig.decider.planner.matcher)
    assert rig.denied("ip") == {"ip=1": 3}


async def test_rules_that_are_gone_make_room_for_new_ones() -> None:
    def config(first: int) -> str:
        keys = range(first, first + MAX_RULES)
        return "domain: d\ndescriptors:\n" + "".join(
            f"  - {{key: k{i}, rate_limit: {{unit: year, requests_per_unit: 1}}}}\n" for i in keys
        )

    rig = CallersRig(config(0))
    for generation in range(2):
        for i in range(MAX_RULES):
            await rig.batch({(f"k{generation * MAX_RULES + i}={j}",): 3 for j in range(2 * MANY_CALLERS)})
            rig.clock.now += 1
        rules = load_rules({"f.yaml": config(MAX_RULES)})
        rig.load(Matcher(rules))
    await rig.call(f"k{2 * MAX_RULES - 1}=1", calls=3)
    await rig.batch({(f"k{MAX_RULES}=more-{j}",): 3 for j in range(2 * POOL_CALLERS)})  # which does not touch others
    last = rig.rule(f"k{2 * MAX_RULES - 1}").denied
    assert [caller.calls for caller in last] == [5, *[2] * (2 * MANY_CALLERS - 1)]
    assert {caller.error for caller in last} == {0}
