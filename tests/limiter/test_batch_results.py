"""What a decided batch says of itself as a whole."""

from collections import Counter

import pytest

from extauth.counters.memory import MemoryCounters
from extauth.explain.request import read_descriptor
from extauth.rls.encode import encode_request
from tests.support.clock import Clock
from tests.support.service import decider_of

CONFIG = "domain: d\ndescriptors: [{key: k, rate_limit: {unit: year, requests_per_unit: 2}}]"


@pytest.mark.parametrize(
    ("calls", "denied", "all_counted"),
    [
        ({"k=a": 2, "k=b": 1}, {}, True),
        ({"k=a": 3, "k=b": 1}, {"k=a": 3}, True),
        ({"k=a": 3, "k=b": 1, "free=a": 9}, {"k=a": 3}, False),
        ({"free=a": 1}, {}, False),
    ],
)
async def test_the_groups_with_denied_calls_are_known_and_whether_all_was_counted(
    calls: dict[str, int], denied: dict[str, int], *, all_counted: bool
) -> None:
    planner, limiter, _ = decider_of(CONFIG, MemoryCounters(Clock()))
    plans = {planner.plan(encode_request("d", [read_descriptor(text)])): text for text in calls}
    batch = await limiter.decide(Counter({plan: calls[text] for plan, text in plans.items()}))
    assert [(group.plan, group.calls) for group in batch.groups] == [(plan, calls[plans[plan]]) for plan in plans]
    assert {plans[group.plan]: group.calls for group in batch.denied} == denied
    assert batch.all_counted is all_counted
