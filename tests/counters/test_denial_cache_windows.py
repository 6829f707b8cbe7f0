"""Denials of fixed windows that count denied hits, where they are remembered until the windows end."""

from collections.abc import Sequence

import pytest

from extauth.counters.denial_cache import DenialCache
from extauth.counters.memory import MemoryCounters
from extauth.limiter.counters import CounterSet, Group, LimitCheck, Mode, Source, TakeResult
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.clock import HOUR, SECOND, Clock

WINDOW = Limit(3, Unit.DAY)
WIDE = Limit(100, Unit.DAY)
GCRA = Limit(3, Unit.DAY, Algorithm.GCRA, count_denied=True)


class Bench:
    """A cache in front of counters, and how many calls it answered itself."""

    def __init__(self, bound_s: float = 1, *, windows: bool = True) -> None:
        self.clock = Clock()
        self.store = MemoryCounters(self.clock)
        self.cache = DenialCache(self.store, bound_s, self.clock, windows=windows)

    async def take(self, *checks: tuple[bytes, LimitCheck]) -> TakeResult:
        names = tuple(name for name, _ in checks)
        (taken,) = await self.cache.take([Group(CounterSet(names, tuple(check for _, check in checks)), 1)])
        return taken

    async def sources(self, calls: int, *checks: tuple[bytes, LimitCheck]) -> list[tuple[int, Source]]:
        takens = [await self.take(*checks) for _ in range(calls)]
        return [(taken.admitted, taken.source) for taken in takens]

    async def used(self, name: bytes) -> int:
        check = LimitCheck(WIDE, 0, Mode.SHADOW)
        (taken,) = await self.store.take([Group(CounterSet((name,), (check,)), 1)])
        return check.algorithm.used_hits(taken.levels[0])


ADMITTED, ASKED, REPEATED = (1, Source.STORE), (0, Source.STORE), (0, Source.DENIAL_CACHE)
A = (b"a", LimitCheck(WINDOW, 1))


@pytest.mark.parametrize("bound_s", [0, 1, 60])
async def test_a_denial_is_repeated_until_the_window_ends(bound_s: float) -> None:
    bench = Bench(bound_s)
    assert await bench.sources(30, A) == [ADMITTED] * 3 + [ASKED] + [REPEATED] * 26
    bench.clock.sleep(10 * HOUR)
    assert await bench.sources(1, A) == [REPEATED]
    assert await bench.used(b"a") == 4
    bench.clock.sleep(2 * HOUR)  # it was noon
    assert await bench.sources(1, A) == [ADMITTED]


async def test_what_is_told_is_that_nothing_is_left_until_the_window_ends() -> None:
    bench = Bench()
    await bench.sources(4, A)
    bench.clock.sleep(SECOND)
    taken = await bench.take(A)
    outcome = A[1].outcome(taken.levels[0], 0, taken.admitted)
    assert (outcome.over, outcome.remaining, outcome.reset_us) == (True, 0, 12 * HOUR - SECOND)


@pytest.mark.parametrize("checks", [[(b"a", LimitCheck(GCRA, 1))], [A, (b"b", LimitCheck(GCRA, 1))]])
async def test_other_limits_that_count_denied_hits_ask_each_time(checks: Sequence[tuple[bytes, LimitCheck]]) -> None:
    assert await Bench().sources(6, *checks) == [ADMITTED] * 3 + [ASKED] * 3


async def test_without_it_denied_hits_are_counted_each_time() -> None:
    assert await Bench(windows=False).sources(6, A) == [ADMITTED] * 3 + [ASKED] * 3


async def test_hits_that_count_elsewhere_are_asked_for() -> None:
    bench = Bench()
    assert await bench.sources(6, A, (b"b", LimitCheck(WIDE, 1))) == [ADMITTED] * 3 + [ASKED] * 3
    assert await bench.used(b"b") == 6


async def test_hits_that_stop_elsewhere_are_not_asked_for_within_the_bound() -> None:
    bench = Bench()
    checks = [(b"a", LimitCheck(WINDOW, 1, stops=True)), (b"b", LimitCheck(WIDE, 1, stops=True))]
    assert await bench.sources(6, *checks) == [ADMITTED] * 3 + [ASKED] + [REPEATED] * 2
    bench.clock.sleep(SECOND + 1)
    assert await bench.sources(1, *checks) == [ASKED]
    assert await bench.used(b"b") == 3


async def test_hits_that_are_given_back_are_asked_for_and_end_it() -> None:
    bench = Bench()
    await bench.sources(5, A)
    back = (b"a", LimitCheck(WINDOW, -2))
    assert await bench.sources(1, back) == [ADMITTED]
    assert await bench.sources(2, A) == [ADMITTED, ASKED]


async def test_a_larger_call_that_did_not_fit_does_not_end_it_for_smaller_ones() -> None:
    bench = Bench()
    assert await bench.sources(1, (b"a", LimitCheck(WINDOW, 2))) == [ADMITTED]
    assert await bench.sources(1, (b"a", LimitCheck(WINDOW, 2))) == [ASKED]
    assert await bench.sources(1, A) == [REPEATED], "its hits were counted, though denied"


async def test_shadowed_limits_go_on_counting() -> None:
    shadowed = (b"a", LimitCheck(WINDOW, 1, Mode.SHADOW))
    assert await Bench().sources(6, shadowed) == [ADMITTED] * 6


async def test_other_rules_end_it() -> None:
    bench = Bench()
    await bench.sources(5, A)
    bench.cache.forget()
    assert await bench.sources(1, A) == [ASKED]
