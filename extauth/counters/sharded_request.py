"""A group of calls over several shards while it is decided: what is to be asked next, and what to give back."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from extauth.counters.memory import are_last
from extauth.counters.shard_order import ShardOrder, Step
from extauth.limiter.algorithms import Level
from extauth.limiter.counters import Group, Part, Return, TakeResult, Uncounted


class _Reserved(NamedTuple):
    """What a step took: `admitted` calls of the part's, which had found these levels."""

    part: Part
    shard: int
    admitted: int
    levels: tuple[Level, ...]


class ShardedRequest:
    """A group over several shards while it is decided: the first `admitted` of its calls passed all shards so far."""

    def __init__(self, group: Group, order: ShardOrder) -> None:
        self.group = group
        self.order = order
        self.admitted = group.calls
        self.levels: list[Level | None] = [None] * len(group.take.checks)
        self.reserved: list[_Reserved] = []
        self.uncounted: list[int] = []
        self.sent = False
        self.quotas_open = False
        self._done = 0  # steps

    def next_steps(self) -> Sequence[Step]:
        """The steps to take now, all at once; none where all are done, or where those that are left need a verdict."""
        order, begun = self.order, self._done
        if self.admitted and begun < order.deciding:
            end = begun + 1
        elif self.admitted and self.uncounted and self._lacks_decision():
            return ()
        else:
            end = len(order.steps)
        self._done = end
        return order.steps[begun:end]

    def last_steps(self, admitted: int) -> Sequence[Step]:
        """The steps that are left, once it is known from elsewhere how many calls are admitted in the end."""
        self.admitted = admitted
        steps = self.order.steps[self._done :]
        return [step for step in steps if admitted or any(check.limit.count_denied for check in step.checks)]

    def take_up(self, step: Step, part: Part, taken: TakeResult | Uncounted) -> None:
        """Note what a shard did with its part."""
        if isinstance(taken, Uncounted):
            self.uncounted += step.places
            self.sent = self.sent or taken is Uncounted.SENT
        else:
            for i, level in zip(step.places, taken.levels, strict=True):
                self.levels[i] = level
            self.reserved.append(_Reserved(part, step.shard, taken.admitted, taken.levels))
            self.admitted = min(self.admitted, taken.admitted)
        if self._done == self.order.quota_steps and self.admitted:
            self._decide_quotas()

    def _decide_quotas(self) -> None:
        """Admit as many calls as any of the quotas on several shards has room for.

        Where those that were counted have none, and others were not counted, the failure policy of these decides.
        """
        checks = self.group.take.checks
        counted = [quota for quota in self.order.quotas if all(self.levels[i] is not None for i in quota)]
        fitting = [[checks[i].calls_that_fit(self._level(i)) for i in quota] for quota in counted]
        room = max(map(min, fitting), default=0)
        if room or len(counted) == len(self.order.quotas):
            self.admitted = min(self.admitted, room)
            self.quotas_open = room > 0

    def _level(self, i: int) -> Level:
        level = self.levels[i]
        assert level is not None  # noqa: S101 - of a check that was counted
        return level

    def _lacks_decision(self) -> bool:
        decided = {i for step in self.order.steps[: self.order.deciding] for i in step.places}
        return not decided.isdisjoint(self.uncounted)

    def surplus(self, admitted: int) -> Iterable[tuple[int, Return]]:
        """What shards took for calls that are not admitted in the end, each with its shard."""
        calls = self.group.calls
        for part, shard, taken, levels in self.reserved:
            at_us = part.taken_at_us
            if taken > admitted and at_us is not None:
                for name, check, level, last in zip(part.names, part.checks, levels, are_last(part.names), strict=True):
                    hits = check.hits(level, calls, taken) - check.hits(level, calls, admitted)
                    if last and hits > 0:
                        yield shard, Return(name, check.algorithm, hits, at_us)

    def part_of(self, step: Step, most: int) -> Group:
        """What a shard is asked in a step, where at most `most` calls may be admitted."""
        names = self.group.take.names
        return Group(Part(tuple([names[i] for i in step.places]), step.checks, most), self.group.calls)
