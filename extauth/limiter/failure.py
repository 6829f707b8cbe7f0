"""What calls get without the store: the failure policy of their limits.

A limit's own `on_store_failure` holds, else its domain's, else the service's. A request takes the strictest of what its
enforced limits give: OVER_LIMIT (deny, or a local counter that is full), then an error, then OK. Of quotas, the most
lenient holds, since one that has room is enough. Limits that never deny are not asked.

Where a request's limits lie on several shards and only some of these have counted, what they deny is denied. For the
rest, the policy of the limits that were not counted decides: `deny` and `error` give back what was counted, and with
`local` only the others are counted locally.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple, Protocol

from extauth.limiter.counters import Group, LimitCheck, Mode, Part, PartlyCounted, Source, TakeResult, Uncounted
from extauth.limiter.facts import GroupResult
from extauth.limiter.memo import Memo
from extauth.limiter.plan import UNLIMITED_AT, Plan, PlanTemplate
from extauth.rules.model import Limit, OnStoreFailure

MAX_FALLBACK_BYTES = 8 << 20
_ALLOW, _DENY, _ERROR, _LOCAL = (
    OnStoreFailure.ALLOW,
    OnStoreFailure.DENY,
    OnStoreFailure.ERROR,
    OnStoreFailure.LOCAL,
)


class LocalCounting(Protocol):
    """Counters of this replica alone."""

    def take(self, group: Group, whole: Sequence[LimitCheck], how: Uncounted) -> TakeResult:
        """Take; the limits of the group's checks may be shares of those in `whole`."""
        ...

    def would_admit(self, group: Group, whole: Sequence[LimitCheck]) -> bool:
        """Whether `take` would admit the first call; takes nothing."""
        ...


class _Fallback(NamedTuple):
    """What requests of one PlanTemplate get: `given`, unless a local counter denies.

    `local` has the checks that are counted locally, in terms of this replica's share; `whole` are the same checks in
    the terms of the plan, and `places` their indices there. Where a part of the plan was counted, `local` has its
    checks, too, and `counted` has them alone.
    """

    given: OnStoreFailure
    local: PlanTemplate | None
    whole: tuple[LimitCheck, ...]
    places: tuple[int, ...]
    counted: PlanTemplate


class _Counted(NamedTuple):
    """What was counted of a plan: the checks that were `reported`, and as PartlyCounted has it."""

    reported: tuple[int, ...]
    uncounted: tuple[int, ...]
    quotas_open: bool


class FailurePolicy:
    """Decides calls that the store has not counted, each at once.

    `local` counts for limits with the policy `local`; without it they are let through.
    """

    def __init__(self, default: OnStoreFailure, local: LocalCounting | None = None) -> None:
        self._default = default
        self._local = local
        self._share = Fraction(1)
        self._fallbacks: Memo[PlanTemplate, _Fallback] = Memo(MAX_FALLBACK_BYTES)
        self._completions: Memo[tuple[PlanTemplate, _Counted], _Fallback] = Memo(MAX_FALLBACK_BYTES)

    @property
    def share(self) -> Fraction:
        """The part of each limit that this replica admits by itself, where it counts locally."""
        return self._share

    @share.setter
    def share(self, share: Fraction) -> None:
        if share != self._share:
            self._share = share
            self._fallbacks.clear()
            self._completions.clear()

    def decide(self, plan: Plan, calls: int, how: Uncounted) -> GroupResult:
        """The result for equal calls that the store did not count, or not in time."""
        template = plan.template
        fallback = self._fallbacks.get(template)
        if fallback is None:
            fallback = self._fall_back(template)
            self._fallbacks.remember(template, fallback, 2 * template.bytes + 300)
        given, local_template, whole, places, _ = fallback
        if local_template is None or self._local is None:
            return GroupResult(plan, calls, None, given, how)
        names = plan.names if len(places) == len(plan.names) else tuple([plan.names[i] for i in places])
        local = plan.of_local_counters(names, local_template)
        local.message = plan.message
        group = Group(local, calls)
        if given is _ERROR:
            admitted = self._local.would_admit(group, whole)
            return GroupResult(plan, calls, None, _ERROR if admitted else _DENY, how)
        return GroupResult(local, calls, self._local.take(group, whole, how)._replace(source=Source.LOCAL), None, how)

    def complete(self, plan: Plan, calls: int, partly: PartlyCounted) -> GroupResult:
        """The result for equal calls that only some of their shards counted."""
        admitted, how, finish = partly.admitted, partly.how, partly.finish
        levels = {i: level for i, level in enumerate(partly.levels) if level is not None}
        given, local, whole, places, counted = self._completion(
            plan.template, _Counted(tuple(levels), partly.uncounted, partly.quotas_open)
        )
        if local is not None and self._local is not None:
            checks = tuple([check for i, check in zip(local.places or (), local.checks, strict=True) if i in places])
            group = Group(Part(tuple([plan.names[i] for i in places]), checks, admitted), calls)
            if given is _ALLOW:
                taken = self._local.take(group, whole, how)
                finish(taken.admitted)
                levels.update(zip(places, taken.levels, strict=True))
                result = TakeResult(taken.admitted, tuple(map(levels.__getitem__, local.places or ())), Source.LOCAL)
                return GroupResult(_plan_of(plan, local), calls, result, None, how)
            if admitted and not self._local.would_admit(group, whole):
                given = _DENY
        finish(admitted if given is _ALLOW else 0)
        if admitted and given is not _ALLOW:
            # Of equal calls all get the same: what the counted limits deny must not be an error, which Envoy lets pass.
            return GroupResult(plan, calls, None, given if admitted == calls else _DENY, how)
        part, shown = _plan_of(plan, counted), tuple(levels.values())
        if not admitted:
            return GroupResult(part, calls, TakeResult(0, shown))  # the shards that counted denied all of them
        return GroupResult(part, calls, TakeResult(admitted, shown, Source.FAILURE_POLICY), _ALLOW, how)

    def _completion(self, template: PlanTemplate, counted: _Counted) -> _Fallback:
        fallback = self._completions.get((template, counted))
        if fallback is None:
            fallback = self._fall_back(template, counted)
            self._completions.remember((template, counted), fallback, 4 * template.bytes + 500)
        return fallback

    def _fall_back(self, template: PlanTemplate, counted: _Counted | None = None) -> _Fallback:
        places = tuple(range(len(template.checks))) if counted is None else counted.uncounted
        reported, quotas_open = ((), False) if counted is None else (counted.reported, counted.quotas_open)
        alone = _part(template, {i: template.checks[i] for i in reported}, Source.FAILURE_POLICY)
        checks = [template.checks[i] for i in places]
        policies = [check.limit.on_store_failure or self._default for check in checks]
        if self._local is None:
            policies = [_ALLOW if policy is _LOCAL else policy for policy in policies]
        quota_of, quotas = _quotas(checks, policies)
        enforced = {policy for check, policy in zip(checks, policies, strict=True) if check.mode is Mode.ENFORCED}
        if quotas and not quotas_open and not {_ALLOW, _LOCAL}.intersection(quotas):
            enforced.add(_ERROR if _ERROR in quotas else _DENY)
        if _DENY in enforced:
            return _Fallback(_DENY, None, (), (), alone)
        given = _ERROR if _ERROR in enforced else _ALLOW
        kept: dict[int, LimitCheck] = {}
        for i, check, policy, quota in zip(places, checks, policies, quota_of, strict=True):
            if policy is _LOCAL:
                free = quota is not None and (quotas_open or _ALLOW in quotas or quotas[quota] is not _LOCAL)
                mode = Mode.REPORT_ONLY if free else check.mode
                kept[i] = replace(check, limit=self._part_of(check.limit), mode=mode)
        if not any(check.mode in {Mode.ENFORCED, Mode.QUOTA} for check in kept.values()):
            return _Fallback(given, None, (), (), alone)
        whole = tuple([template.checks[i] for i in kept])
        shown = dict(sorted([*kept.items(), *((i, template.checks[i]) for i in reported)]))
        return _Fallback(given, _part(template, shown, Source.LOCAL), whole, tuple(kept), alone)

    def _part_of(self, limit: Limit) -> Limit:
        if self._share == 1 or not limit.requests_per_unit:
            return limit
        burst = None if limit.burst is None else max(int(limit.burst * self._share), 1)
        return replace(limit, requests_per_unit=max(int(limit.requests_per_unit * self._share), 1), burst=burst)


def _part(template: PlanTemplate, checks: Mapping[int, LimitCheck], source: Source) -> PlanTemplate:
    """The template for some of its checks alone, by their indices, or for what stands for these."""
    at = {i: n for n, i in enumerate(checks)}
    counters_of = tuple(
        own if own is UNLIMITED_AT else tuple([at[i] for i in own if i in at]) for own in template.counters_of
    )
    return replace(
        template,
        checks=tuple(checks.values()),
        counters_of=counters_of,
        without_store=source,
        places=tuple(checks),
    )


def _plan_of(plan: Plan, template: PlanTemplate) -> Plan:
    """The plan of the same requests by the template for a part of it."""
    part = plan.of_local_counters(tuple([plan.names[i] for i in template.places or ()]), template)
    part.message = plan.message
    return part


def _quotas(
    checks: Sequence[LimitCheck], policies: Sequence[OnStoreFailure]
) -> tuple[list[int | None], list[OnStoreFailure]]:
    """The index of each check's quota, None of others; and the strictest policy of each quota."""
    strictness = (_ALLOW, _LOCAL, _ERROR, _DENY)
    quota_of: list[int | None] = []
    quotas: list[OnStoreFailure] = []
    for check, policy in zip(checks, policies, strict=True):
        if check.mode is Mode.QUOTA:
            quotas.append(policy)
        elif check.mode is Mode.SAME_QUOTA:
            quotas[-1] = max(quotas[-1], policy, key=strictness.index)
        quota_of.append(len(quotas) - 1 if check.mode in {Mode.QUOTA, Mode.SAME_QUOTA} else None)
    return quota_of, quotas
