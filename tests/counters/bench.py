"""Counters under test, and limits to hold them to."""

from dataclasses import dataclass

from extauth.limiter.algorithms import Level, LogUsage
from extauth.limiter.counters import Counters, CounterSet, Group, LimitCheck, Mode, TakeResult
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.clock import Clock

Want = (
    tuple[str, Limit]
    | tuple[str, Limit, int]
    | tuple[str, Limit, int, Mode]
    | tuple[str, Limit, int, Mode, bool]
    | tuple[str, Limit, int, Mode, bool, bool]
)


def gcra(requests: int, unit: Unit = Unit.MINUTE, *, count_denied: bool = False) -> Limit:
    return Limit(requests, unit, Algorithm.GCRA, count_denied=count_denied)


def window(requests: int, unit: Unit = Unit.MINUTE, *, count_denied: bool = True) -> Limit:
    return Limit(requests, unit, Algorithm.FIXED_WINDOW, count_denied=count_denied)


def sliding(requests: int, unit: Unit = Unit.MINUTE, *, count_denied: bool = False) -> Limit:
    return Limit(requests, unit, Algorithm.SLIDING_WINDOW, count_denied=count_denied)


@dataclass
class Bench:
    """The counters under test, their clock, and a prefix that no other test uses."""

    counters: Counters
    clock: Clock
    prefix: str

    def group(self, *wants: Want, calls: int = 1) -> Group:
        checks = tuple(LimitCheck(*want[1:]) if len(want) > 2 else LimitCheck(want[1], 1) for want in wants)
        return Group(CounterSet(tuple(f"{self.prefix}{want[0]}".encode() for want in wants), checks), calls)

    async def taken(self, *wants: Want, calls: int = 1) -> TakeResult:
        (taken,) = await self.counters.take([self.group(*wants, calls=calls)])
        return taken

    async def take(self, *wants: Want, calls: int = 1) -> int:
        """How many of so many equal calls, each for all of `wants`, are admitted."""
        return (await self.taken(*wants, calls=calls)).admitted


EXACT = [gcra(10), window(10), window(10, count_denied=False), sliding(10), sliding(10, count_denied=True)]


def hits_of(level: Level, limit: Limit) -> int:
    return LimitCheck(limit, 1).algorithm.used_hits(level)


def wait_us_of(level: Level) -> int:
    assert isinstance(level, LogUsage)
    return level.wait_us
