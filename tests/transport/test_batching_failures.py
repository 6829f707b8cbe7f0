"""Batches that fail, and callers that do."""

import asyncio

import pytest
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse

from extauth.limiter.counters import LimitCheck, Mode
from extauth.limiter.plan import Plan, PlanTemplate
from extauth.limiter.templates import Answer
from extauth.limiter.verdict import Labels
from extauth.rules.model import OnStoreFailure
from extauth.transport.waiting import Calls
from tests.support.codes import OK, OVER_LIMIT
from tests.transport.rig import LIMIT, Client, Rig


async def test_an_error_of_the_counters_gives_its_own_batch_the_failure_policy() -> None:
    rig = Rig()
    rig.gate.error = RuntimeError("a bug")
    rig.gate.let()
    rig.call(2)
    await rig.until(answered=2)
    rig.gate.error = None
    rig.gate.let()
    rig.call(1)
    await rig.until(answered=3)
    failure, success = (fact.store_error for fact in rig.recorded.batches)
    assert failure is not None
    assert (failure.kind, success) == ("internal", None)
    assert "RuntimeError: a bug in " in str(failure)


async def test_an_answer_that_cannot_be_read_denies_nothing_that_no_limit_could_deny() -> None:
    rig = Rig(policy=OnStoreFailure.DENY)
    rig.gate.garbled = True
    rig.gate.let()
    shadow = PlanTemplate((LimitCheck(LIMIT, 1, Mode.SHADOW),), ((0,),), None, Labels())
    rig.call(1, Plan((b"shadow",), shadow))
    await rig.until(answered=1)
    (message,) = rig.client.answered.values()
    assert isinstance(message, bytes)
    assert int(RateLimitResponse.parse(message).overall_code) == OK


@pytest.mark.parametrize(
    ("policy", "code"), [(OnStoreFailure.ALLOW, OK), (OnStoreFailure.DENY, OVER_LIMIT), (OnStoreFailure.ERROR, None)]
)
async def test_an_answer_that_cannot_be_read_gives_its_own_batch_the_failure_policy(
    caplog: pytest.LogCaptureFixture, policy: OnStoreFailure, code: int | None
) -> None:
    rig = Rig(policy=policy)
    rig.gate.garbled = True
    rig.gate.let(2)
    rig.call(2)
    await rig.until(answered=2)
    rig.call(1)
    await rig.until(answered=3)
    assert rig.client.flushes == 2
    assert caplog.text.count("IndexError: ") == 1, "once a second is enough"
    for message in rig.client.answered.values():
        assert (int(RateLimitResponse.parse(message).overall_code) if isinstance(message, bytes) else None) == code
    rig.gate.garbled = False
    rig.gate.let()
    rig.call(1)
    await rig.until(answered=4)
    assert isinstance(rig.client.answered[3], bytes)


class Faulty(Client):
    """A caller whose connection has a fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self._fault = fault

    def answer(self, calls: Calls, messages: list[Answer]) -> None:
        if self._fault == "answer":
            raise RuntimeError("a bug")
        super().answer(calls, messages)

    def flush(self) -> None:
        if self._fault == "flush":
            raise RuntimeError("a bug")
        super().flush()


@pytest.mark.parametrize("fault", ["answer", "flush"])
async def test_a_fault_with_one_caller_keeps_no_answer_from_the_others(
    caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    rig = Rig()
    rig.call(1, caller=Faulty(fault))
    rig.call(1)
    rig.gate.let()
    await rig.until(answered=1)
    await asyncio.sleep(0)
    assert rig.client.flushes == 1
    assert "RuntimeError: a bug" in caplog.text
    (fact,) = rig.recorded.batches
    assert [group.calls for group in fact.groups] == [2]
