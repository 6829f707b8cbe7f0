"""What must hold once a schedule is over."""

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from extauth.rules.model import Algorithm, OnStoreFailure
from simulation.oracle import Admission, Bound, Fail, check_alone, check_in_all
from simulation.replica import Replica
from simulation.store_oracle import StoreOracle
from simulation.traffic import limits, policy_of

if TYPE_CHECKING:
    from simulation.run import Result, Schedule


class Checks:
    """Compares what all lives of replicas told with what the masters did, whose oracles are by their numbers."""

    def __init__(
        self,
        schedule: "Schedule",
        lives: Sequence[Replica],
        oracles: Sequence[StoreOracle],
        result: "Result",
        fail: Fail,
    ) -> None:
        self._schedule = schedule
        self._lives = lives
        self._oracles = oracles
        self._result = result
        self._fail = fail
        self._limits = limits(schedule.layout)
        self._lost: defaultdict[bytes, list[tuple[int, int]]] = defaultdict(list)

    def check(self) -> None:
        """Check all of it."""
        for replica in self._lives:
            self._result.answered.update(replica.decided.answered)
            self._result.trips += replica.trips
            self._check_shares(replica)
            self._check_told(replica)
            self._check_sent(replica)
        self._check_stops()
        self._check_settlements()
        for name, limit in self._limits.items():
            if policy_of(limit) is OnStoreFailure.ALLOW:
                continue
            oracle = self._oracle_of(name)
            anew = oracle.losses + (0 if limit.algorithm is Algorithm.GCRA else oracle.setbacks)
            bound = Bound(limit, self._schedule.replicas, anew)
            admissions: list[Admission] = []
            for replica in self._lives:
                admissions += replica.decided.admissions[name]
                for stretch in replica.decided.stretches[name]:
                    check_alone(name, bound, stretch, self._fail)
            check_in_all(name, bound, admissions, self._lost[name], self._fail)

    def _oracle_of(self, name: bytes) -> StoreOracle:
        return self._oracles[self._schedule.layout.master_of(name)]

    def _check_told(self, replica: Replica) -> None:
        """Callers hear of no more admissions than there were, and what was taken for others is given back, once."""
        for kind in replica.kinds:
            for counted in kind.enforced:
                oracle, key = self._oracle_of(counted.name), id(counted.name)
                told, did = replica.decided.admitted_by_store[key], oracle.admitted[key]
                if told > did:
                    self._fail(f"{replica.name} told {told} of {kind} that the store admitted them: it did {did}")
                if not kind.spread:
                    continue
                vain = oracle.reserved[key] - told * kind.cost
                returned = oracle.returned[key]
                self._result.returned += returned
                exact = not self._schedule.faults and not counted.limit.count_denied
                if returned > vain or (exact and returned < vain):
                    self._fail(
                        f"{replica.name} gave {returned} of {counted.name.decode()} back, and took {vain} in vain"
                    )

    def _check_sent(self, replica: Replica) -> None:
        if replica.gone:
            return
        for kind in replica.kinds:
            key = id(kind.plan)
            sent, asked = sum(link.sent_calls.get(key, 0) for link in replica.links), replica.decided.asked[key]
            if sent > asked:
                self._fail(f"{replica.name} sent {sent} calls of {kind}, and says that it sent {asked}")

    def _check_stops(self) -> None:
        """A process that was stopped does not take that for a store that does not answer."""
        only_stops = all(fault.kind == "replica stop" for fault in self._schedule.faults)
        if only_stops and self._result.trips:
            self._fail(f"a breaker opened {self._result.trips} times, though the store was always there")

    def _check_shares(self, replica: Replica) -> None:
        """Whoever has heard of all replicas, or was told how many there are, takes its part and no more."""
        part = Fraction(1, self._schedule.replicas)
        knows = self._schedule.told is not None or replica.life == 1
        for share in replica.shares:
            if share < part or (knows and share > part):
                self._fail(f"{replica.name} reckoned with a share of {share}, of {self._schedule.replicas} replicas")

    def _check_settlements(self) -> None:
        """What was settled is not more than what was counted; also note what was lost on the way."""
        for replica in self._lives:
            settled: defaultdict[bytes, int] = defaultdict(int)
            for owed, added in (each for link in replica.links for each in link.sent_settlements):
                for name, _, numbers in owed:
                    if self._limits[name].algorithm is Algorithm.GCRA:
                        hits = -(-numbers[0] // self._limits[name].emission_interval.ticks)
                        settled[name] += numbers[0] // self._limits[name].emission_interval.ticks
                        pairs = [(0, hits)]
                    else:
                        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
                        settled[name] += sum(numbers[1::2])
                    if not added[0]:
                        self._lost[name] += pairs
            for name, hits in settled.items():
                alone = replica.decided.alone_hits[name]
                if hits > alone:
                    self._fail(f"{replica.name} settled {hits} of {name.decode()}, and had counted {alone}")
