"""The sample of decisions that is logged."""

import time
from dataclasses import replace
from typing import Any

import pytest

from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import TakeResult
from extauth.limiter.facts import GroupResult, SampledCall
from extauth.limiter.plan import Plan
from extauth.rls.protobuf import bytes_field
from extauth.rls.response import Code
from extauth.rls.trace_context import TraceParent
from extauth.rules.model import OnStoreFailure
from extauth.telemetry.decisions import MAX_PER_S, DecisionLog, SampledPlanner
from tests.support.facts import batch
from tests.support.service import planner_of

CONFIG = """
domain: d
secret: [api_key]
tiers: {free: {unit: day, requests_per_unit: 3}}
descriptors: [{key: api_key, tier: free}]
"""


class Rig:
    """A planner whose plans are sampled, and what is logged of them."""

    def __init__(self) -> None:
        planner = planner_of(CONFIG, LimiterOptions(planner=SampledPlanner))
        assert isinstance(planner, SampledPlanner)
        self.planner = planner
        self.lines: list[dict[str, Any]] = []
        self.log = DecisionLog(planner, self.lines.append)

    def plan(self, value: str, domain: bytes = b"d") -> Plan:
        entry = bytes_field(1, b"api_key") + bytes_field(2, value.encode())
        return self.planner.plan(bytes_field(1, domain) + bytes_field(2, bytes_field(1, entry)))

    def decided(self, value: str, *, domain: bytes = b"d", taken: TakeResult | None = None, calls: int = 1) -> None:
        plan = self.plan(value, domain)
        given = OnStoreFailure.ALLOW if taken is None else None
        self.log.batch_decided(batch(GroupResult(plan, calls, taken, given)))


@pytest.mark.parametrize(
    ("taken", "outcome"),
    [(TakeResult(2, ()), {"allowed": 2, "denied": 3}), (None, {"without_the_store": "allow"})],
    ids=["counted", "not counted"],
)
def test_a_decision_is_logged_with_its_rules_and_without_secrets(
    taken: TakeResult | None, outcome: dict[str, object]
) -> None:
    rig = Rig()
    rig.decided("a-secret-key", taken=taken, calls=5)
    (line,) = rig.lines
    assert {key: line[key] for key in ("domain", "tier", "rules")} == {
        "domain": "d",
        "tier": "free",
        "rules": ["api_key"],
    }
    assert line.items() >= outcome.items()
    assert "a-secret-key" not in str(line)


def test_a_line_names_the_trace_of_a_call_that_is_recorded() -> None:
    rig = Rig()
    parents = [TraceParent(str(number) * 32, "00f067aa0ba902b7", 1) for number in (1, 2, 3)]
    plans = [rig.plan(value) for value in ("a", "b")]
    groups = [GroupResult(plan, 2, TakeResult(1, ())) for plan in plans]
    sampled = [SampledCall(parent, 0.0, groups[at], Code.OK) for parent, at in zip(parents, (1, 1, 1), strict=True)]
    rig.log.batch_decided(replace(batch(*groups), sampled=sampled))
    assert [line.get("trace_id") for line in rig.lines] == [None, "1" * 32]


def test_a_second_has_few_lines() -> None:
    rig = Rig()
    began = time.perf_counter()
    for number in range(5 * MAX_PER_S):
        rig.decided(f"key{number}", taken=TakeResult(1, ()))
    began_seconds = 1 + int(time.perf_counter() - began)
    assert MAX_PER_S <= len(rig.lines) <= began_seconds * MAX_PER_S
