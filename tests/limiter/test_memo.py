"""What callers can make extauth remember is bounded in bytes."""

import random
import tracemalloc
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import (
    RateLimitDescriptor,
    RateLimitDescriptorEntry,
    RateLimitDescriptorRateLimitOverride,
)
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest
from envoy_data_plane.envoy.type.v3 import RateLimitUnit

from extauth.freed_memory import resident_bytes
from extauth.limiter.algorithms import WindowUsage
from extauth.limiter.counters import TakeResult
from extauth.limiter.facts import GroupResult
from extauth.limiter.memo import Memo
from extauth.rules.model import OnStoreFailure
from extauth.rules.patterns import compile_regex
from extauth.telemetry.metrics import Metrics
from tests.support.facts import batch
from tests.support.service import decider_of


def test_a_memo_forgets_what_it_learnt_first() -> None:
    memo: Memo[int, bytes] = Memo(100_000)
    for number in range(1000):
        memo.remember(number, b"", 500)
        assert memo.bytes == 500 * len(memo) <= 100_000
    assert list(memo) == list(range(1000 - len(memo), 1000))
    assert len(memo) > 180
    memo.clear()
    memo.remember(0, b"", 500)
    assert (list(memo), memo.bytes) == ([0], 500)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_regexes_take_a_bounded_amount_of_memory() -> None:
    regexes = [compile_regex(f"(?:[ab]*a[ab]{{14}}c)+x{i}") for i in range(20)]
    values = [bytes(random.Random(seed).choices(b"ab", k=60_000)) for seed in range(10)]  # noqa: S311
    before = resident_bytes()
    for regex, value in product(regexes, values):
        assert regex.fullmatch(value) is None
    assert resident_bytes() - before < 20 << 20, "with RE2's default it is more than 50 MiB"


def test_a_regex_that_needs_more_memory_compiles() -> None:
    words = "|".join(f"w{number:x}-{number:o}" for number in range(20_000))
    assert compile_regex(words).fullmatch(b"w4d2-2322") is not None


def test_a_memo_keeps_nothing_that_would_fill_it() -> None:
    memo: Memo[int, bytes] = Memo(64_000)
    memo.remember(1, b"", 1000)
    memo.remember(2, b"", 1001)
    assert list(memo) == [1]


MADE_UP = """
domain: api
labels: [path]
descriptors:
  - {key: named, value_to_metric: true, rate_limit: {unit: hour, requests_per_unit: 1}}
  - {key: api_key, rate_limit: {unit: hour, requests_per_unit: 1}}
"""


@pytest.mark.parametrize("size", [10, 400, 62_000])
@pytest.mark.parametrize("kind", ["api_key", "path", "named", "override", "hits"])
def test_made_up_requests_take_a_bounded_amount_of_memory(kind: str, size: int) -> None:
    planner, _, answers = decider_of(MADE_UP)
    metrics = Metrics(OnStoreFailure.ALLOW)

    def ask(number: int) -> None:
        value = f"{number}-" + "v" * size
        entry = RateLimitDescriptorEntry(key=value if kind == "override" else kind, value=value)
        if kind == "hits":
            entry = RateLimitDescriptorEntry(key="api_key", value="v" * size)
        descriptor = RateLimitDescriptor(entries=[entry])
        if kind == "override":
            descriptor.limit = RateLimitDescriptorRateLimitOverride(
                requests_per_unit=number + 1, unit=RateLimitUnit.HOUR
            )
        elif kind == "hits":
            descriptor.hits_addend = number
        plan = planner.plan(bytes(RateLimitRequest(domain="api", descriptors=[descriptor], hits_addend=number + 1)))
        settled = GroupResult(plan, 1, TakeResult(0, tuple(WindowUsage(1, 1) for _ in plan.names)))
        answers.encode(settled)
        metrics.batch_decided(batch(settled))

    for number in range(100):
        ask(number)
    tracemalloc.start()
    for number in range(100, 500):
        ask(number)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    remembered = sum(memo.bytes for memo in _memos(planner, answers, metrics))
    assert grown < remembered * 1.25 + 500_000, "what is remembered is not larger than it is thought to be"
    assert len(b"".join(metrics.render())) < 2_000_000


def _memos(*owners: object) -> list[Memo[Any, Any]]:
    values = [value for owner in owners for value in vars(owner).values()]
    inner = [item for value in values if isinstance(value, dict) for item in value.values()]
    return [memo for memo in values + inner if isinstance(memo, Memo)]
