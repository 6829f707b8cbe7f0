"""The store that the replicas share, or one of its masters.

Counters in memory, on a clock of its own, that can freeze and crash.
"""

from collections.abc import Callable, Sequence

from extauth.counters.memory import MemoryCounters
from extauth.limiter.counters import Group, Owed, Part, Return, TakeResult
from simulation.loop import VirtualLoop, run_now
from simulation.store_oracle import StoreOracle

HEARTBEAT_US = 10_000_000
NOON_US = 1_700_049_600 * 1_000_000


class Store:
    """Does what arrives, at once, or when it is thawed. `oracle` checks each step."""

    def __init__(self, loop: VirtualLoop, oracle: StoreOracle, ahead_us: int) -> None:
        self._loop = loop
        self._oracle = oracle
        self._ahead_us = NOON_US + ahead_us - loop.time_us()
        self._forward_us = 0
        self._counters = MemoryCounters(self.now_us)
        self._heartbeats: dict[str, tuple[int, str, str]] = {}  # by ID: instant, address and the rest of the line
        self._held: list[Callable[[], None]] = []
        self.frozen = False
        self.down = False
        self.life = 1
        self.hand_overs = 0

    def now_us(self) -> int:
        """The store's clock."""
        return self._loop.time_us() + self._ahead_us

    def elapsed_us(self) -> int:
        """The time for which buckets have drained: steps of the clock forward count, those back do not."""
        return self._loop.time_us() + self._forward_us

    def take(self, groups: Sequence[Group]) -> list[TakeResult]:
        """Count; what is noted on a Part here is not known to who sent it."""
        takens = run_now(self._counters.take(list(map(_received, groups))))
        self._oracle.taken(groups, takens, self.now_us())
        return takens

    def exchange_heartbeats(self, replica: str, address: str, rest: str) -> bytes:
        """As counters.heartbeat.Registry describes; each holds for ten seconds."""
        now = self.now_us()
        others = [
            (its_id, heartbeat)
            for its_id, heartbeat in self._heartbeats.items()
            if its_id != replica and heartbeat[1] != address and abs(now - heartbeat[0]) < HEARTBEAT_US
        ]
        self._heartbeats = dict([*others, (replica, (now, address, rest))])
        return "\n".join(
            f"{its_id} {at // 1000} {its_address} {its_rest}" for its_id, (at, its_address, its_rest) in others
        ).encode()

    def settle(self, owed: Sequence[Owed]) -> None:
        """Add what is owed."""
        run_now(self._counters.settle(owed))
        self._oracle.settled(owed, self.now_us())

    def give_back(self, returns: Sequence[Return]) -> None:
        """Take hits back."""
        run_now(self._counters.give_back(returns))
        self._oracle.given_back(returns)

    def handle(self, request: Callable[[], None]) -> None:
        """Do what has arrived, or hold it while frozen."""
        if self.frozen:
            self._held.append(request)
        else:
            request()

    def freeze(self) -> None:
        """Answer nothing; what arrives is held."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on with what was held."""
        self.frozen = False
        held, self._held = self._held, []
        for request in held:
            request()

    def crash(self, *, lose: bool) -> None:
        """Be gone, with all that was held."""
        self.down, self.frozen, self._held = True, False, []
        if lose:
            self._counters = MemoryCounters(self.now_us)
            self._heartbeats.clear()
            self._oracle.lost_data()

    def restart(self) -> None:
        """Be there again."""
        self.down = False
        self.life += 1

    def hand_over(self) -> None:
        """Be there at another address alone."""
        self.hand_overs += 1

    def step(self, by_us: int) -> None:
        """Set the clock forward or back."""
        self._ahead_us += by_us
        self._forward_us += max(by_us, 0)
        self._oracle.stepped(by_us)


def _received(group: Group) -> Group:
    take = group.take
    return Group(Part(take.names, take.checks, take.most), group.calls) if isinstance(take, Part) else group
