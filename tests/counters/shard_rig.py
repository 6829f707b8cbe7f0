"""Shards in memory, what asks them, and requests over several of them."""

from dataclasses import replace

from extauth.counters.memory import MemoryCounters
from extauth.counters.several_shards import SeveralShards
from extauth.limiter.counters import Group, LimitCheck, Mode, Part, TakeResult
from extauth.rules.model import Limit
from tests.support.clock import Clock
from tests.support.shards import FakeShards, in_memory, on
from tests.support.takes import take

E, Q, S, R, X = Mode.ENFORCED, Mode.QUOTA, Mode.SAME_QUOTA, Mode.REPORT_ONLY, Mode.SHADOW


class Rig:
    """Shards in memory, and what asks them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.shards: FakeShards = in_memory(self.clock)
        self.counters = SeveralShards(self.shards)

    async def take(self, *wants: tuple[int, Limit] | tuple[int, Limit, int, Mode], calls: int = 1) -> TakeResult:
        """Take from counters that are called as their shards, as (shard, limit, cost, mode)."""
        group = group_of(*wants, calls=calls)
        (taken,) = await self.counters.take([group])
        await self.counters.aclose()
        assert isinstance(taken, TakeResult)
        return taken

    async def decides_as(self, oracle: MemoryCounters, group: Group) -> None:
        """Each call is told the same as by one store that counts everything in one step."""
        (want,) = await oracle.take([group])
        (taken,) = await self.counters.take([group])
        await self.counters.aclose()
        assert isinstance(taken, TakeResult)
        assert taken.admitted == want.admitted
        for check, level, its_level in zip(group.take.checks, taken.levels, want.levels, strict=True):
            for call in range(group.calls):
                assert check.outcome(level, call, want.admitted) == check.outcome(its_level, call, want.admitted)

    async def left(self, shard: int, limit: Limit) -> int:
        """The number of calls that the counter on this shard would admit; takes nothing."""
        probe = Part((on(shard, "c"),), (LimitCheck(replace(limit, count_denied=False), 1),), 0)
        (taken,) = await self.shards.stores[shard].take([Group(probe, 1)])
        return probe.checks[0].calls_that_fit(taken.levels[0])


def group_of(*wants: tuple[int, Limit] | tuple[int, Limit, int, Mode], calls: int = 1) -> Group:
    full = [want if len(want) > 2 else (*want, 1, E) for want in wants]
    return Group(take(*((on(shard, "c"), limit, cost, mode) for shard, limit, cost, mode in full)), calls)


def distinct(*wants: tuple[int, Limit] | tuple[int, Limit, int, Mode]) -> Group:
    """Each check with a counter of its own."""
    full = [want if len(want) > 2 else (*want, 1, E) for want in wants]
    named = [(on(shard, f"c{i}"), limit, cost, mode) for i, (shard, limit, cost, mode) in enumerate(full)]
    return Group(take(*named), 1)
