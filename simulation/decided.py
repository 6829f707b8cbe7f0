"""What was decided about a replica's calls, and when the store admitted them."""

from collections import Counter, defaultdict, deque
from collections.abc import Sequence

from extauth.limiter.counters import Group, ShardedCounters, Source, Taken, Uncounted
from extauth.limiter.facts import BatchFact, GroupResult, ShedFact
from extauth.limiter.failure import FailurePolicy
from extauth.limiter.plan import Plan
from extauth.limiter.templates import Answer
from extauth.rules.model import OnStoreFailure
from simulation.layout import Layout
from simulation.loop import VirtualLoop
from simulation.network import Counted, Link, counted
from simulation.oracle import Admission, Fail
from simulation.traffic import Kind

PATIENT_S = 0.02  # a connection, and two batches that settle something first, over a healthy network
PATIENT_OF_SEVERAL_S = 0.04  # as often for each of three shards
Instants = Sequence[tuple[int, int] | None]
"""Of each counter that binds a call the store's clock and elapsed time when it admitted the call; None: it did not."""
OK = b"\x08\x01"  # how a RateLimitResponse begins that admits
_LOCAL_MARK, _POLICY_MARK = Source.LOCAL.encode(), Source.FAILURE_POLICY.encode()


class Batches:
    """In front of the store: notes when it counted which calls of a batch.

    A trial and what is asked after it have two instants, and each of several shards has its own. Between a batch's
    return and its answers nothing else happens.
    """

    def __init__(self, counters: ShardedCounters) -> None:
        self._counters = counters
        self._instants: defaultdict[int, deque[Counted]] = defaultdict(deque)

    async def take(self, groups: Sequence[Group]) -> Sequence[Taken]:
        """As ShardedCounters say."""
        parts: list[Counted] = []
        counted.set(parts)
        try:
            return await self._counters.take(groups)
        finally:
            self._instants.clear()
            for part in parts:
                self._instants[part.name].append(part)

    def next_instant(self, name: bytes) -> tuple[int, int] | None:
        """The store's clock and elapsed time when it admitted the next of the admitted calls of a batch, if it did."""
        parts = self._instants[id(name)]
        while parts and not parts[0].admitted:
            parts.popleft()
        if not parts:
            return None
        part = parts[0] = parts[0]._replace(admitted=parts[0].admitted - 1)
        return part.at_us, part.elapsed_us


def source_of(message: bytes) -> str:
    """Who decided: `local`, `failure_policy` or `store`."""
    return "local" if _LOCAL_MARK in message else "failure_policy" if _POLICY_MARK in message else "store"


def is_admission(message: Answer) -> bool:
    """Whether it says so."""
    return not isinstance(message, Uncounted) and message.startswith(OK)


class Answered(Counter[str]):
    """How many calls were answered, by who decided: `store`, `local`, `failure_policy`, `status`."""


class Decided:
    """`limiter.facts.Observer` of one life of a replica; it hears of each answer, too.

    `links` are to the servers of the `layout`, and `policy` has the share with which the replica counts alone. From
    `healed_at` on the store decides every call whose caller has the patience. `fail` is called with what must not be.
    """

    def __init__(
        self,
        name: str,
        kinds: Sequence[Kind],
        *,
        layout: Layout,
        links: Sequence[Link],
        batches: Batches,
        policy: FailurePolicy,
        loop: VirtualLoop,
        healed_at: float,
        fail: Fail,
    ) -> None:
        self.answered = Answered()
        self.admitted_by_store: defaultdict[int, int] = defaultdict(int)  # calls, by id of the counter's name
        self.admissions: defaultdict[bytes, list[Admission]] = defaultdict(list)
        self.stretches: defaultdict[bytes, list[list[Admission]]] = defaultdict(lambda: [[]])
        self.asked: defaultdict[int, int] = defaultdict(int)  # by id of the plan: calls of which the store was asked
        self.alone_hits: defaultdict[bytes, int] = defaultdict(int)  # that were asked for, while nothing was sent
        self.fail = fail
        self._name = name
        self._kinds = {id(kind.plan.tally): kind for kind in kinds}  # plans of local counting have these, too
        self._layout = layout
        self._links = links
        self._batches = batches
        self._policy = policy
        self._loop = loop
        self._healed_at = healed_at
        self._alone: list[tuple[Kind, Instants]] = []  # admitted by a batch whose fact is still to come

    def counter_reported(self, name: bytes) -> None:
        """The store has reported of a counter."""
        self.stretches[name].append([])

    def instants_of(self, plan: Plan, message: Answer) -> Instants:
        """When the store admitted a call of a batch that is answered so; of a call that it has not, none."""
        kind = self._kinds[id(plan.tally)]
        if isinstance(message, Uncounted) or not is_admission(message):
            return ()
        if not kind.spread and source_of(message) != "store":
            return ()
        instants = [self._batches.next_instant(each.name) for each in kind.enforced]
        for each, instant in zip(kind.enforced, instants, strict=True):
            self.admitted_by_store[id(each.name)] += instant is not None
        return instants

    def answered_call(
        self,
        kind: Kind,
        message: Answer,
        allowed_s: float,
        *,
        well: bool,
        sent: bool | None = None,
        instants: Instants = (),
    ) -> None:
        """Note the answer to a call that had `allowed_s`, and the `instants` of a batch that was counted in the store.

        `well` says whether all masters were asked when it came. Where `sent` is None, the batch's fact will say whether
        the store was asked.
        """
        if isinstance(message, Uncounted):
            self.answered["status"] += 1
            if OnStoreFailure.ERROR not in kind.policies:
                self.fail(f"a call of {kind} got a status, though no policy is error")
            return
        uncounted = kind.uncounted(instants) if is_admission(message) else []
        source = source_of(message)
        if source == "store" and kind.spread and uncounted:  # which an answer does not tell of a part of the limits
            source = "failure_policy"
        self.answered[source] += 1
        if (
            source != "store"
            and well
            and allowed_s >= (PATIENT_OF_SEVERAL_S if kind.spread else PATIENT_S)
            and self._loop.time() > self._healed_at
        ):
            self.fail(f"a call of {kind} was decided by {source}, though the store is back")
        if not is_admission(message):
            return
        policies = {each.policy for each in uncounted}
        if policies & {OnStoreFailure.DENY, OnStoreFailure.ERROR}:
            self.fail(f"a call of {kind} was admitted by {source}")
        allowed = policies <= {OnStoreFailure.ALLOW} if kind.spread else policies == {OnStoreFailure.ALLOW}
        if source == "failure_policy" and not allowed:
            self.fail(f"a call of {kind} was admitted without being counted")
        if source == "store" and uncounted:
            self.fail(f"a call of {kind} was told to be admitted by the store, which it was not")
        if sent is None and uncounted:
            self._alone.append((kind, instants))
        else:
            self._admit(kind, instants, sent=bool(sent))

    def batch_decided(self, fact: BatchFact) -> None:
        """Note which calls the store was asked about."""
        sent = {}
        for group in fact.groups:
            kind = self._kinds[id(group.plan.tally)]
            sent[kind] = group.without_store is Uncounted.SENT
            if sent[kind] or group.source is Source.STORE:
                self.asked[id(kind.plan)] += group.calls
            self._count_alone(group)
        for kind, instants in self._alone:
            self._admit(kind, instants, sent=sent[kind])
        self._alone.clear()

    def call_shed(self, fact: ShedFact) -> None:
        """Note what it took."""
        self._count_alone(fact.group)

    def _count_alone(self, group: GroupResult) -> None:
        if group.source is Source.LOCAL and group.without_store is Uncounted.UNSENT:
            for name, check in zip(group.plan.names, group.plan.checks, strict=True):
                self.alone_hits[name] += group.calls * check.cost

    def _admit(self, kind: Kind, instants: Instants, *, sent: bool) -> None:
        for i, each in enumerate(kind.enforced):
            name, instant = each.name, instants[i] if instants else None
            if instant is not None:
                self.admissions[name].append(Admission(*instant, kind.cost, None, share=self._policy.share))
            elif each.policy is not OnStoreFailure.ALLOW:
                link = self._links[self._layout.master_of(name)]
                admission = Admission(link.now_us(), link.elapsed_us(), kind.cost, self._name, sent, self._policy.share)
                self.admissions[name].append(admission)
                self.stretches[name][-1].append(admission)
