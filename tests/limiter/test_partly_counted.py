"""What a request gets of which some shards counted their part, and others did not."""

from collections.abc import Callable

import pytest
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse

from extauth.counters.local import LocalCounters
from extauth.counters.memory import MemoryCounters
from extauth.counters.several_shards import SeveralShards
from extauth.limiter.algorithms import Level
from extauth.limiter.counters import Group, LimitCheck, Mode, PartlyCounted, Source, Uncounted
from extauth.limiter.facts import GroupResult
from extauth.limiter.failure import FailurePolicy
from extauth.limiter.limiter import Limiter
from extauth.limiter.plan import LoggedPlan, Plan, PlanTemplate
from extauth.limiter.templates import Answer, Answers, LoggedAnswers
from extauth.limiter.verdict import Labels
from extauth.rls.protobuf import struct
from extauth.rls.response import SOURCE_HEADER, Code, ResponseHeaders, encode_response
from extauth.rules.model import Algorithm, Limit, OnStoreFailure, Unit
from tests.support.clock import Clock
from tests.support.shards import SHARDS, FakeShards, in_memory, on

ALLOW, DENY, ERROR, LOCAL = OnStoreFailure.ALLOW, OnStoreFailure.DENY, OnStoreFailure.ERROR, OnStoreFailure.LOCAL
E, Q, R, X = Mode.ENFORCED, Mode.QUOTA, Mode.REPORT_ONLY, Mode.SHADOW


def limit(requests: int, policy: OnStoreFailure = LOCAL, *, count_denied: bool = False) -> Limit:
    return Limit(requests, Unit.MINUTE, Algorithm.GCRA, count_denied=count_denied, on_store_failure=policy)


Want = tuple[Limit, Mode]


def plan(*wants: Want) -> Plan:
    """A request of one limit on each shard."""
    checks = tuple(LimitCheck(held_to, 1, mode) for held_to, mode in wants)
    template = PlanTemplate(checks, tuple((i,) for i in range(len(checks))), None, Labels())
    return Plan(tuple(on(shard, "c") for shard in range(len(checks))), template)


class Rig:
    """A limiter over shards in memory, of which some are away, with local counters beside it."""

    def __init__(self, *away: int) -> None:
        self.clock = Clock()
        self.shards: FakeShards = in_memory(self.clock)
        self.shards.away.update(away)
        self.local = LocalCounters(self.clock)
        self.counters = SeveralShards(self.shards)
        self.limiter = Limiter(self.counters, FailurePolicy(LOCAL, self.local))
        self.answers = Answers(self.limiter)

    async def decide(self, plan: Plan, calls: int) -> GroupResult:
        (group,) = (await self.limiter.decide({plan: calls})).groups
        await self.counters.aclose()
        verdicts = [self.limiter.verdict(group, call) for call in range(calls)]
        encoded = [group.without_store if verdict is None else encode_response(verdict) for verdict in verdicts]
        assert (LoggedAnswers(self.limiter) if plan.log else self.answers).encode(group) == encoded
        return group

    async def used(self, shard: int, held_to: Limit) -> int:
        check = LimitCheck(held_to, 1, X)
        (taken,) = await self.shards.stores[shard].take([Group(Plan((on(shard, "c"),), _template(check)), 0)])
        return check.algorithm.used_hits(taken.levels[0])


def _template(check: LimitCheck) -> PlanTemplate:
    return PlanTemplate((check,), ((0,),), None, Labels())


def words(result: GroupResult) -> str:
    if result.taken is None:
        return str(result.given)
    return f"{result.taken.admitted} of {result.calls}"


CASES: list[tuple[list[Want], str, list[int]]] = [
    # The last limit's shard is away. What the calls get, and the hits that the other shards hold afterwards.
    ([(limit(3), E), (limit(9, ALLOW), E)], "3 of 5", [3]),
    ([(limit(9), E), (limit(9, ALLOW), E)], "5 of 5", [5]),
    ([(limit(9), E), (limit(9, DENY), E)], "deny", [0]),
    ([(limit(9), E), (limit(9, ERROR), E)], "error", [0]),
    ([(limit(3), E), (limit(9, ERROR), E)], "deny", [0]),
    ([(limit(0), E), (limit(9, ERROR), E)], "0 of 5", [0]),
    ([(limit(0), E), (limit(9, DENY), E)], "0 of 5", [0]),
    ([(limit(0), E), (limit(9), E)], "0 of 5", [0]),
    ([(limit(9), E), (limit(2), E)], "2 of 5", [2]),
    ([(limit(3), E), (limit(9), E)], "3 of 5", [3]),
    ([(limit(9), E), (limit(2, DENY), X)], "5 of 5", [5]),
    ([(limit(9), E), (limit(2), R)], "5 of 5", [5]),
    ([(limit(9), X), (limit(2), E)], "2 of 5", [0]),  # nothing was asked before the one that is away: all is owed
    ([(limit(9), X), (limit(9, DENY), E)], "deny", [0]),
    ([(limit(9, count_denied=True), E), (limit(2), E)], "2 of 5", [5]),
    ([(limit(9, count_denied=True), X), (limit(8), E), (limit(2), E)], "2 of 5", [5, 2]),
    ([(limit(9), X), (limit(8), E), (limit(2, DENY), E)], "deny", [0, 0]),
    # Quotas: those that were counted decide, unless they have no room at all.
    ([(limit(9), Q), (limit(9, DENY), Q)], "5 of 5", [5]),
    ([(limit(3), Q), (limit(9, DENY), Q)], "3 of 5", [3]),
    ([(limit(3), Q), (limit(9), Q)], "3 of 5", [3]),
    ([(limit(0), Q), (limit(9, DENY), Q)], "deny", [0]),
    ([(limit(0), Q), (limit(9, ALLOW), Q)], "5 of 5", [0]),
    ([(limit(0), Q), (limit(2), Q)], "2 of 5", [0]),
    ([(limit(4), Q), (limit(2), Q), (limit(3), Q)], "4 of 5", [4, 2]),
    ([(limit(9), E), (limit(1), Q), (limit(9, DENY), Q)], "1 of 5", [1, 1]),
    ([(limit(2), E), (limit(3), E), (limit(9), E)], "2 of 5", [2, 2]),
    ([(limit(9), E), (limit(4), E), (limit(1), E)], "1 of 5", [1, 1]),
]


@pytest.mark.parametrize(("wants", "got", "used"), CASES)
async def test_counted_limits_deny_and_the_policy_of_the_others_decides_the_rest(
    wants: list[Want], got: str, used: list[int]
) -> None:
    rig = Rig(len(wants) - 1)
    assert words(await rig.decide(plan(*wants), 5)) == got
    assert [await rig.used(shard, wants[shard][0]) for shard in range(len(used))] == used


async def test_a_request_fails_only_while_its_local_limits_have_room() -> None:
    rig = Rig(1, 2)
    wants = (limit(9), E), (limit(2), E), (limit(9, ERROR), E)
    assert words(await rig.decide(plan(*wants), 5)) == "error"
    assert words(await rig.decide(plan(*wants[:2]), 2)) == "2 of 2", "a call that failed took nothing"
    assert words(await rig.decide(plan(*wants), 5)) == "deny"
    assert await rig.used(0, limit(9)) == 2


async def test_a_part_is_owed_to_the_shard_that_was_away_and_nothing_to_the_others() -> None:
    wants = (limit(9), E), (limit(4), E)
    rig = Rig(1)
    assert words(await rig.decide(plan(*wants), 3)) == "3 of 3"
    rig.shards.away.clear()
    for shard in range(2):
        store = rig.shards.stores[shard]
        assert isinstance(store, MemoryCounters)
        await rig.local.settle([on(shard, "c")], store)
    assert [await rig.used(shard, held_to) for shard, (held_to, _) in enumerate(wants)] == [3, 3]
    assert not rig.local.owes


async def test_local_counters_that_count_denied_hits_count_what_shards_deny() -> None:
    wants = (limit(1), E), (limit(6, count_denied=True), E)
    rig = Rig(1)
    assert words(await rig.decide(plan(*wants), 4)) == "1 of 4"
    assert words(await rig.decide(plan((limit(9), E), wants[1]), 4)) == "2 of 4"


async def test_the_answer_has_the_statuses_of_what_was_counted() -> None:
    rig = Rig(1)
    request = plan((limit(9), E), (limit(7, ALLOW), E), (limit(5, ALLOW), E))
    group = await rig.decide(request, 2)
    verdict = rig.limiter.verdict(group, 1)
    assert verdict is not None
    assert [(status.code, status.limit, status.remaining) for status in verdict.statuses] == [
        (Code.OK, limit(9), 7),
        (Code.OK, None, 0),
        (Code.OK, limit(5, ALLOW), 3),
    ]


@pytest.mark.parametrize(
    ("requests", "source", "given", "without_store"),
    [(9, Source.FAILURE_POLICY, ALLOW, Uncounted.UNSENT), (0, Source.STORE, None, None)],
)
async def test_the_store_decides_what_its_shards_deny_and_the_policy_what_they_do_not(
    requests: int, source: Source, given: OnStoreFailure | None, without_store: Uncounted | None
) -> None:
    group = await Rig(1).decide(plan((limit(requests), E), (limit(7, ALLOW), E)), 2)
    assert (group.source, group.given, group.without_store) == (source, given, without_store)


def source_header(answer: Answer) -> list[str]:
    """Who decided in place of the store, as the client is told."""
    assert isinstance(answer, bytes)
    headers = RateLimitResponse.parse(answer).response_headers_to_add
    return [each.value for each in headers if each.key == SOURCE_HEADER]


@pytest.mark.parametrize("headers", [None, ResponseHeaders()])
@pytest.mark.parametrize("log", [b"", struct({"log": "x"})])
@pytest.mark.parametrize(
    ("policy", "told"),
    [(ALLOW, [["failure_policy"]] * 2 + [[]]), (DENY, [["failure_policy"]] * 3), (LOCAL, [["local"]] * 3)],
)
async def test_an_answer_that_not_the_shards_alone_decided_says_so(
    headers: ResponseHeaders | None, log: bytes, policy: OnStoreFailure, told: list[list[str]]
) -> None:
    rig = Rig(1)
    request = plan((limit(2), E), (limit(7, policy), E))
    answers = LoggedAnswers(rig.limiter, headers).encode(
        await rig.decide(LoggedPlan(request.names, request.template, request.tally, log), 3)
    )
    assert list(map(source_header, answers)) == told


async def test_the_answer_to_a_call_that_a_shard_denies_names_no_policy() -> None:
    rig = Rig(1)
    group = await rig.decide(plan((limit(0), E), (limit(7, ALLOW), E)), 1)
    assert list(map(source_header, rig.answers.encode(group))) == [[]]


async def test_the_answer_shows_local_limits_beside_those_of_shards() -> None:
    rig = Rig(1)
    rig.limiter.policy.share = rig.limiter.policy.share / 2
    group = await rig.decide(plan((limit(9), E), (limit(8), E)), 6)
    assert group.taken is not None
    assert (group.taken.admitted, group.source, group.without_store) == (4, Source.LOCAL, Uncounted.UNSENT)
    verdict = rig.limiter.verdict(group, 4)
    assert verdict is not None
    assert verdict.without_store is Source.LOCAL
    assert [(status.code, status.remaining) for status in verdict.statuses] == [(Code.OK, 5), (Code.OVER_LIMIT, 0)]


async def test_a_request_of_which_no_shard_counted_anything_is_uncounted() -> None:
    rig = Rig(*range(SHARDS))
    assert words(await rig.decide(plan((limit(9, DENY), E), (limit(8), E)), 6)) == "deny"
    assert words(await rig.decide(plan((limit(4), E), (limit(8), E)), 6)) == "4 of 6"


@pytest.mark.parametrize(("policy", "finished"), [(ALLOW, 5), (DENY, 0), (ERROR, 0), (LOCAL, 2)])
def test_what_is_admitted_in_the_end_is_told_once(policy: OnStoreFailure, finished: int) -> None:
    told: list[int] = []
    finish: Callable[[int], None] = told.append
    level: Level = LimitCheck(limit(9), 1).algorithm.read(0, 0)
    partly = PartlyCounted(5, (level, None), (1,), Uncounted.SENT, quotas_open=False, finish=finish)
    policies = FailurePolicy(DENY, LocalCounters(Clock()))
    policies.complete(plan((limit(9), E), (limit(2, policy), E)), 5, partly)
    assert told == [finished]


async def test_calls_that_a_shard_may_have_counted_are_counted_locally_and_never_owed() -> None:
    rig = Rig()

    def lose(shard: int, _groups: object) -> None:
        if shard == 1:
            raise rig.shards.lost()

    rig.shards.answered = lose
    wants = (limit(9), E), (limit(4), E)
    assert words(await rig.decide(plan(*wants), 3)) == "3 of 3"
    assert not rig.local.owes
    assert [await rig.used(shard, held_to) for shard, (held_to, _) in enumerate(wants)] == [3, 3]


async def test_requests_that_are_alike_have_one_template_for_what_was_counted() -> None:
    rig = Rig(1)
    whole = plan((limit(9), E), (limit(9, ALLOW), E))
    others = Plan(tuple(on(shard, "other") for shard in range(2)), whole.template)
    first, second = await rig.decide(whole, 1), await rig.decide(others, 1)
    assert first.plan.template is not whole.template
    assert second.plan.template is first.plan.template
