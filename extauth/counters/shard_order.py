"""In which order a request over several shards asks them, and about what.

Counters that may deny come first, one shard after the other, and each for only as many calls as the ones before it
admitted: so a shard holds nothing for a caller who is used up on an earlier one. The first is the most specific: the
shard with the limit of the lowest rate. A caller's own limits have lower rates than limits that callers share, and
the lower its rate, the longer a limit denies once it is used up. Of equal rates, the request's order counts.

Counters that never deny wait for the verdict: those that give hits back, shadowed ones, and those that only report.
Those on the shard that decides last are part of its step.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

from extauth.limiter.counters import LimitCheck, Mode

_QUOTAS = frozenset({Mode.QUOTA, Mode.SAME_QUOTA})


class Step(NamedTuple):
    """What one shard is asked: `checks` are those at `places` of the request's, in modes that suit the step."""

    shard: int
    places: tuple[int, ...]
    checks: tuple[LimitCheck, ...]


class ShardOrder(NamedTuple):
    """The `steps` of a request. The first `deciding` are taken one after the other, and then the others at once.

    Where quotas lie on several shards, one with room is enough, so no shard denies for its own: each reserves what
    fits. Then the first `quota_steps` of the deciding steps have them, and `quotas` their checks' places, by quota.
    Else one shard decides about all quotas, `quotas` is empty and `quota_steps` 0.
    """

    steps: tuple[Step, ...]
    deciding: int
    quotas: tuple[tuple[int, ...], ...]
    quota_steps: int


def shard_order(checks: Sequence[LimitCheck], shards: Sequence[int], same: Sequence[bool]) -> ShardOrder:
    """The order for checks on these shards; `same` says of each whether its counter is that of the check before.

    All checks of one counter stay together, since its hits are taken once.
    """
    quotas = _quotas(checks)
    open_ = any(all(checks[i].cost < 0 for i in quota) for quota in quotas)  # there is always room for hits to return
    denying = {Mode.ENFORCED} if open_ else {Mode.ENFORCED, *_QUOTAS}
    decides = [check.cost >= 0 and check.mode in denying for check in checks]
    counter_of = list(accumulate([int(not each) for each in same]))
    counters = {counter for counter, decide in zip(counter_of, decides, strict=True) if decide}
    deciding = [i for i, counter in enumerate(counter_of) if counter in counters]
    with_quotas = {shards[i] for i in deciding if decides[i] and checks[i].mode in _QUOTAS}
    spread = len(with_quotas) > 1
    order = _most_specific_first(
        [(shards[i], checks[i]) for i in deciding if decides[i]], with_quotas if spread else set()
    )
    quota_steps = 1 + max(order.index(shard) for shard in with_quotas) if spread else 0
    last = order[-1] if quota_steps < len(order) else None
    first_steps = [i for i in range(len(checks)) if i in deciding or shards[i] == last]
    rest = [i for i in range(len(checks)) if i not in first_steps]
    quota_of = {} if open_ or spread else {i: number for number, quota in enumerate(quotas) for i in quota}
    deciding_steps = [_step(shard, [i for i in first_steps if shards[i] == shard], checks, quota_of) for shard in order]
    waiting = dict.fromkeys(shards[i] for i in rest)
    return ShardOrder(
        (*deciding_steps, *[_step(shard, [i for i in rest if shards[i] == shard], checks, {}) for shard in waiting]),
        len(order),
        tuple([tuple([i for i in quota if decides[i]]) for quota in quotas]) if spread else (),
        quota_steps,
    )


def _most_specific_first(deciding: Iterable[tuple[int, LimitCheck]], together: set[int]) -> list[int]:
    """The shards, by the lowest rate of a limit on each; those of `together` follow one another."""
    rates: dict[int, float] = {}
    for shard, check in deciding:
        rate = check.limit.requests_per_unit / check.limit.period_us
        rates[shard] = min(rates.get(shard, rate), rate)
    lowest = min((rates[shard] for shard in together), default=0)
    rates.update(dict.fromkeys(together, lowest))
    return sorted(rates, key=lambda shard: (rates[shard], shard not in together))


def _step(shard: int, places: Sequence[int], checks: Sequence[LimitCheck], quota_of: dict[int, int]) -> Step:
    """The step; checks of quotas that are not in `quota_of` only report, which takes the hits that fit."""
    asked: list[LimitCheck] = []
    begun: set[int] = set()
    for i in places:
        check = checks[i]
        if check.mode in _QUOTAS:
            quota = quota_of.get(i)
            mode = Mode.REPORT_ONLY if quota is None else Mode.SAME_QUOTA if quota in begun else Mode.QUOTA
            begun |= set() if quota is None else {quota}
            check = check if mode is check.mode else replace(check, mode=mode)
        asked.append(check)
    return Step(shard, tuple(places), tuple(asked))


def _quotas(checks: Sequence[LimitCheck]) -> list[list[int]]:
    """The places of each quota's checks."""
    quotas: list[list[int]] = []
    for i, check in enumerate(checks):
        if check.mode is Mode.QUOTA or (check.mode is Mode.SAME_QUOTA and not quotas):
            quotas.append([i])
        elif check.mode is Mode.SAME_QUOTA:
            quotas[-1].append(i)
    return quotas
