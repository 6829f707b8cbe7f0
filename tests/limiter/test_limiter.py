"""From calls to verdicts, on counters in memory."""

import gc
import weakref
from collections import Counter
from collections.abc import Sequence

import pytest

from extauth.config.merge import load_rules
from extauth.counters.memory import MemoryCounters
from extauth.errors import InvalidRequestError, RequestTooLargeError, StoreError
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import Counters, Group, Source, TakeResult
from extauth.limiter.descriptor_plan import DESCRIPTOR_US
from extauth.limiter.facts import BatchResult
from extauth.limiter.plan import Plan
from extauth.limiter.planner import BUILD_US
from extauth.rls.protobuf import bytes_field, number_field
from extauth.rls.response import Code, DescriptorStatus, Verdict
from extauth.rules.matcher import Matcher
from extauth.rules.model import OnStoreFailure
from tests.support.clock import MINUTE, SECOND, Clock
from tests.support.codes import OK, OVER_LIMIT
from tests.support.service import decider_of, planner_of

CONFIG = """
domain: api
algorithm: gcra
labels: [path]
tiers:
  anonymous: {unit: minute, requests_per_unit: 2}
  free: {unit: minute, requests_per_unit: 10, replaces: [{name: anonymous}]}
  premium: {unit: minute, requests_per_unit: 20, replaces: [{name: anonymous}, {name: burst}]}
descriptors:
  - {key: api_key, value: free, tier: free}
  - {key: api_key, value: premium, tier: premium}
  - {key: address, tier: anonymous}
  - {key: global, rate_limit: {unit: hour, requests_per_unit: 5, algorithm: fixed_window}}
  - {key: burst, rate_limit: {unit: second, requests_per_unit: 3, name: burst, replaces: [{name: free}]}}
  - {key: closed, rate_limit: {unit: day, requests_per_unit: 0}}
"""


def descriptor(*entries: str) -> bytes:
    """A RateLimitDescriptor of `key=value` entries."""
    pairs = [text.encode("utf-8", "surrogateescape").split(b"=", 1) for text in entries]
    return b"".join(bytes_field(1, bytes_field(1, key) + bytes_field(2, value)) for key, value in pairs)


def request(*descriptors: str, hits: int = 1, domain: str = "api") -> bytes:
    """A RateLimitRequest with a `key=value` for each descriptor."""
    encoded = b"".join(bytes_field(2, descriptor(text)) for text in descriptors)
    return (bytes_field(1, domain.encode()) if domain else b"") + encoded + number_field(3, hits)


class Service:
    """Planner, limiter and counters, as the app puts them together."""

    def __init__(
        self, counters: Counters | None = None, on_store_failure: OnStoreFailure = OnStoreFailure.ALLOW
    ) -> None:
        self.clock = Clock()
        self.counters = counters or MemoryCounters(self.clock)
        options = LimiterOptions(on_store_failure=on_store_failure)
        self.planner, self.limiter, _ = decider_of(CONFIG, self.counters, options)

    async def decide(self, *messages: bytes) -> tuple[BatchResult, list[Verdict | None]]:
        """What was decided, and the verdicts in order of arrival."""
        plans = [self.planner.plan(message) for message in messages]
        decided = await self.limiter.decide(Counter(plans))
        settled = {settled.plan: settled for settled in decided.groups}
        earlier = (plans[:i].count(plan) for i, plan in enumerate(plans))
        return decided, [self.limiter.verdict(settled[plan], call) for plan, call in zip(plans, earlier, strict=True)]

    async def batch(self, *messages: bytes) -> list[Verdict | None]:
        return (await self.decide(*messages))[1]

    async def one(self, *descriptors: str, hits: int = 1) -> Verdict:
        (verdict,) = await self.batch(request(*descriptors, hits=hits))
        assert verdict is not None
        return verdict

    async def codes(self, *descriptors: str, calls: int) -> list[int]:
        return [(await self.one(*descriptors)).code for _ in range(calls)]


def denying(verdict: Verdict) -> tuple[str, int | None, int]:
    """The limit that a denial waits for, the wait, and when that limit is whole again."""
    assert verdict.denying is not None
    return str(verdict.denying.limit), *verdict.denying[1:]


@pytest.fixture
def service() -> Service:
    return Service()


async def test_tiers(service: Service) -> None:
    assert await service.codes("address=1.2.3.4/32", "path=/", calls=3) == [OK, OK, OVER_LIMIT]
    assert await service.codes("api_key=free", "address=1.2.3.4/32", "path=/", calls=11) == [OK] * 10 + [OVER_LIMIT]
    assert await service.codes("api_key=premium", "address=1.2.3.4/32", "path=/", calls=21) == [OK] * 20 + [OVER_LIMIT]
    assert await service.codes("api_key=invented", "address=1.2.3.4/32", "path=/", calls=1) == [OVER_LIMIT]
    assert await service.codes("api_key=invented", "address=5.6.7.8/32", "path=/", calls=3) == [OK, OK, OVER_LIMIT]


async def test_statuses_stand_in_the_descriptors_order(service: Service) -> None:
    verdict = await service.one("address=a", "api_key=free", "path=/", "global=1", "unheard=of")
    match = service.planner.matcher.match
    free, hourly = (match("api", [e]).rule.limits[0] for e in (("api_key", "free"), ("global", "1")))  # type: ignore[union-attr]
    assert verdict.statuses == (
        DescriptorStatus(Code.OK),  # replaced
        DescriptorStatus(Code.OK, free, 9, 6 * SECOND),
        DescriptorStatus(Code.OK),
        DescriptorStatus(Code.OK, hourly, 4, 60 * MINUTE),
        DescriptorStatus(Code.OK),
    )
    assert verdict.tier == "free"


async def test_a_denial_says_what_is_exceeded_and_for_how_long(service: Service) -> None:
    await service.codes("api_key=free", "global=1", calls=5)
    verdict = await service.one("api_key=free", "global=1")
    assert (verdict.code, verdict.tier) == (Code.OVER_LIMIT, "free")
    assert denying(verdict) == ("5 per hour", 60 * MINUTE, 60 * MINUTE)
    assert [(s.code, s.remaining, s.reset_us) for s in verdict.statuses] == [
        (Code.OK, 5, 30 * SECOND),
        (Code.OVER_LIMIT, 0, 60 * MINUTE),
    ]


async def test_a_denial_waits_for_this_cost(service: Service) -> None:
    await service.one("api_key=free", hits=8)
    verdict = await service.one("api_key=free", hits=5)
    assert denying(verdict) == ("10 per minute", 18 * SECOND, 48 * SECOND)
    assert [(s.remaining, s.reset_us) for s in verdict.statuses] == [(0, 48 * SECOND)]
    service.clock.sleep(18 * SECOND)
    assert (await service.one("api_key=free", hits=5)).code is Code.OK


@pytest.mark.parametrize(("descriptor", "hits"), [("api_key=free", 11), ("global=1", 6), ("closed=1", 1)])
async def test_what_never_fits_is_not_told_to_come_again(service: Service, descriptor: str, hits: int) -> None:
    verdict = await service.one(descriptor, hits=hits)
    assert (verdict.code, denying(verdict)[1]) == (Code.OVER_LIMIT, None)


async def test_the_longest_wait_is_reported(service: Service) -> None:
    await service.codes("burst=1", calls=3)
    await service.codes("global=1", calls=5)
    assert denying(await service.one("burst=1", "global=1"))[0] == "5 per hour"
    assert denying(await service.one("burst=1", "closed=1", "global=1"))[0] == "0 per day"


async def test_replaces_does_not_chain(service: Service) -> None:
    """Premium replaces burst, which replaces free: both are dropped, and so is anonymous."""
    verdict = await service.one("address=a", "api_key=free", "burst=1", "api_key=premium")
    assert [s.limit and s.limit.name for s in verdict.statuses] == [None, None, None, "premium"]
    assert verdict.tier == "premium"


async def test_the_first_tier_that_nothing_replaced_is_named(service: Service) -> None:
    assert (await service.one("api_key=premium", "api_key=free")).tier == "premium"
    assert (await service.one("global=1")).tier is None


async def test_the_same_counter_twice_counts_twice(service: Service) -> None:
    verdict = await service.one("api_key=free", "api_key=free")
    assert [s.remaining for s in verdict.statuses] == [8, 8]


async def test_a_batch_answers_equal_calls_in_order_of_arrival(service: Service) -> None:
    anonymous, free = request("address=a", "path=/a"), request("api_key=free")
    verdicts = [v for v in await service.batch(anonymous, free, anonymous, anonymous, free) if v]
    assert [v.code for v in verdicts] == [OK, OK, OK, OVER_LIMIT, OK]
    assert [v.statuses[0].remaining for v in verdicts] == [1, 9, 0, 0, 8]


async def test_calls_without_limits_ask_no_store() -> None:
    service = Service(Broken(), OnStoreFailure.ERROR)
    calls = request("path=/"), request("a=b", domain="unknown"), request("path=/\udcff")
    decided, verdicts = await service.decide(*calls)
    assert [v and v.code for v in verdicts] == [OK, OK, OK]
    assert decided.store_error is None
    assert {settled.source for settled in decided.groups} == {Source.NO_COUNTER}
    assert [settled.plan.template.labels.path for settled in decided.groups] == ["/", "none", "/\\udcff"]


class Broken:
    """A store that never answers."""

    async def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        raise StoreError("timeout", "no answer")

    async def connect(self) -> None: ...

    async def probe(self) -> None:
        raise StoreError("timeout", "no answer")


@pytest.mark.parametrize(
    ("on_store_failure", "code"),
    [(OnStoreFailure.ALLOW, Code.OK), (OnStoreFailure.DENY, Code.OVER_LIMIT), (OnStoreFailure.ERROR, None)],
)
async def test_a_store_that_fails(on_store_failure: OnStoreFailure, code: Code | None) -> None:
    service = Service(Broken(), on_store_failure)
    call = request("api_key=free", "address=a", "path=/")
    decided, verdicts = await service.decide(call, request("path=/"), call)
    assert [v and v.code for v in verdicts] == [code, Code.OK, code]
    assert [(settled.calls, settled.taken is None) for settled in decided.groups] == [(2, True), (1, False)]
    assert decided.store_error is not None
    assert (decided.denied, decided.all_counted) == ([], False)
    if verdict := verdicts[0]:
        assert verdict.tier == "free"
        assert verdict.statuses == (
            DescriptorStatus(verdict.code),
            DescriptorStatus(Code.OK),
            DescriptorStatus(Code.OK),
        )


async def test_a_batch_that_failed_goes_without_the_cycle_collector() -> None:
    service = Service(Broken())
    gc.disable()
    try:
        decided, _ = await service.decide(request("api_key=free"))
        assert decided.store_error is not None
        error = weakref.ref(decided.store_error)
        del decided
        assert error() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (request("a=b", domain=""), "the domain must not be empty"),
        (request(), "at least one descriptor is needed"),
    ],
)
def test_invalid_requests(service: Service, message: bytes, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=text):
        service.planner.plan(message)


def test_equal_messages_have_one_plan_until_the_rules_change(service: Service) -> None:
    planner, message = service.planner, request("api_key=free")
    plan = planner.plan(message)
    planner.before_swap(planner.matcher)
    assert planner.plan(bytes(bytearray(message))) is plan
    unused = planner.swap(Matcher(load_rules({"f.yaml": "domain: api"})))
    assert planner.plan(message).names == ()
    assert any(table.get(message) is plan for table in unused), "whoever swaps can free the plans bit by bit"


def test_the_memo_is_bounded() -> None:
    planner = planner_of(CONFIG, LimiterOptions(plans_bytes=64 * 620))
    messages = [request(f"address={i}", "api_key=free") for i in range(300)]
    plans = [planner.plan(message) for message in messages]
    assert planner.plan(messages[-1]) is plans[-1]
    assert planner.plan(messages[0]) is not plans[0]
    once_each = 301 * (DESCRIPTOR_US + 1) + 2 * BUILD_US
    assert planner.work.us == once_each, "each descriptor is planned once, whatever messages contain it"


def test_a_request_of_too_many_entries_is_too_large() -> None:
    def plan(descriptors: int, entries: int) -> Plan:
        planner = planner_of(CONFIG)
        each = (descriptor(*[f"address={i}"] * entries) for i in range(descriptors))
        return planner.plan(bytes_field(1, b"api") + b"".join(bytes_field(2, encoded) for encoded in each))

    assert plan(100, 60).names == ()
    with pytest.raises(RequestTooLargeError, match="too many entries"):
        plan(100, 61)


def test_a_request_whose_values_take_long_to_match_is_too_large() -> None:
    regexes = "".join(f"  - {{key: k, value_regex: '.*x{i}', rate_limit: {{unit: day}}}}\n" for i in range(100))
    planner = planner_of(f"domain: api\ndescriptors:\n{regexes}")
    assert planner.plan(request("k=" + "v" * 30_000)).names == ()
    assert planner.work.us > 5000, "which counts in its connection's turn"
    assert planner.plan(request(*(f"other={i}" + "v" * 30_000 for i in range(50)))).names == ()
    before = planner.work.us
    with pytest.raises(RequestTooLargeError):
        planner.plan(request(*(f"k={i}" + "v" * 30_000 for i in range(50))))
    assert planner.work.us - before < 20_000, "it is refused before all of it is matched"


def test_a_descriptor_of_any_size_is_planned_once() -> None:
    planner = planner_of(CONFIG)
    large = [request("address=" + "a" * 30_000 + end) for end in "bc"]
    names = [planner.plan(message).names for message in large]
    worked_us = planner.work.us
    assert [planner.plan(message).names for message in large] == names
    assert planner.work.us == worked_us
    assert names[0] != names[1]
