"""The port between a request over several shards and the store in which these lie."""

from collections.abc import Sequence
from typing import Protocol

from extauth.limiter.counters import Group, Return, TakeResult, Uncounted


class Shards(Protocol):
    """A store in several shards, each of which counts by itself, in atomic steps and by its own clock.

    A shard has the counters of one tag (limiter.counter_names). The clocks of two shards need not agree.
    """

    def shard_of(self, name: bytes) -> int:
        """The number of the shard that has the counter `name`: the index of its tag."""
        ...

    async def take(self, shard: int, groups: Sequence[Group]) -> Sequence[TakeResult | Uncounted]:
        """Count all groups in one atomic run on that shard, which has all of their counters.

        As `limiter.counters.GuardedCounters`: a group may be Uncounted, and StoreError says that all are. Where the
        CounterSet of a group is a `limiter.counters.Part`, at most its `most` calls are admitted, and the instant of
        the run is noted on it with `taken`, which makes it a receipt. Some of the hits that its counters hold may be
        given back later, so that a denial is not sure for longer than its answer.
        """
        ...

    async def give_back(self, shard: int, returns: Sequence[Return]) -> None:
        """Give hits back in one run on that shard; raises StoreError, after which they may have been.

        It is never sent twice, or too much would be admitted. What is lost on the way drains or ends by itself.
        """
        ...
