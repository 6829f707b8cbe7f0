"""What goes wrong, and when."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

ALL = -1  # in place of a replica or a master


@dataclass(frozen=True)
class Fault:
    """One fault: `kind` from `at_s` to `until_s`, of one replica or of all; `amount` is seconds where it has any.

    Faults of the store, and of the way to it, are those of one `master` or of all.
    """

    at_s: float
    until_s: float
    kind: str
    replica: int = ALL
    amount: float = 0.0
    master: int = ALL

    def __str__(self) -> str:
        who = (
            ""
            if self.kind in (*STORE_KINDS, *CLUSTER_KINDS)
            else " all replicas"
            if self.replica == ALL
            else f" replica {self.replica}"
        )
        lasts = "" if self.kind in INSTANTS else f" for {self.until_s - self.at_s:.3f} s"
        amount = f" ({self.amount:+.3f} s)" if self.amount else ""
        where = "" if self.master == ALL else f", master {self.master}"
        return f"{self.kind}{who}{where}{amount}{lasts}"


STORE_KINDS = ("freeze", "crash, data kept", "crash, data lost", "clock step")
CLUSTER_KINDS = ("hand over",)
LINK_KINDS = (
    "slow requests",
    "slow replies",
    "lost requests",
    "lost replies",
    "flaky",
    "closing",
    "disorder",
    "refusal",
    "cut",
)
REPLICA_KINDS = ("replica crash", "replica stop")
INSTANTS = frozenset({"cut", "clock step", "hand over"})
KINDS = (*STORE_KINDS, *CLUSTER_KINDS, *LINK_KINDS, *REPLICA_KINDS)
_DRAWN = (*STORE_KINDS, *LINK_KINDS, "replica crash")  # by faults_of; stops come on top


def faults_of(random: Random, replicas: int, until_s: float) -> Sequence[Fault]:
    """Up to eight faults, all of which are over by `until_s`."""
    kinds = random.sample(_DRAWN, random.randint(1, 4))  # few at a time, so that each of them is seen by itself, too
    faults = []
    for _ in range(random.randint(0, 8)):
        kind = random.choice(kinds)
        at_s = random.uniform(0.2, until_s - 0.3)
        longest_s = random.choice((0.02, 0.15, 0.6, 3.0))
        ends_s = min(at_s + random.uniform(0.001, longest_s), until_s)
        replica = ALL if random.random() < 0.3 and kind in LINK_KINDS else random.randrange(replicas)
        amount = 0.0
        if kind == "clock step":
            amount = random.choice((-1, 1)) * random.choice((0.01, 0.3, 3.0, 70.0)) * random.uniform(0.5, 1.5)
        elif kind in {"slow requests", "slow replies", "disorder"}:
            amount = random.choice((0.004, 0.02, 0.09, 0.2)) * random.uniform(0.5, 1.5)
        faults.append(Fault(at_s, ends_s, kind, replica, amount))
    return sorted(faults, key=lambda fault: fault.at_s)


def of_masters(random: Random, faults: Sequence[Fault], masters: int) -> Sequence[Fault]:
    """The same faults, most of them of one of the masters alone."""
    return [
        fault
        if fault.kind in REPLICA_KINDS or random.random() < 0.35
        else replace(fault, master=random.randrange(masters))
        for fault in faults
    ]


def cuts_of(random: Random, until_s: float, cuts: int) -> Sequence[Fault]:
    """Instants at which all connections end, and may be made again at once: what was sent may be sent again."""
    return [Fault(at_s, at_s, "cut") for at_s in (random.uniform(0.2, until_s - 0.3) for _ in range(cuts))]


def hand_overs_of(random: Random, masters: int, until_s: float, hand_overs: int) -> Sequence[Fault]:
    """Instants at which another address serves the slots of a master, with all of its data."""
    instants = [random.uniform(0.2, until_s - 0.3) for _ in range(hand_overs)]
    return [Fault(at_s, at_s, "hand over", master=random.randrange(masters)) for at_s in instants]


def stops_of(random: Random, replicas: int, until_s: float, stops: int, longest_s: Sequence[float]) -> Sequence[Fault]:
    """Times at which the process of a replica is stopped, each for at most one of `longest_s`."""
    faults = []
    for _ in range(stops):
        at_s = random.uniform(0.2, until_s - 0.3)
        ends_s = min(at_s + random.uniform(0.001, random.choice(longest_s)), until_s)
        faults.append(Fault(at_s, ends_s, "replica stop", random.randrange(replicas)))
    return faults
