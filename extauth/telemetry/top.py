"""The callers that are denied most, and those that call most, by rule: as data, as JSON, and summed over replicas."""

import asyncio
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import to_json

MOST_CALLERS: Final = 20
MOST_RULES: Final = 100
MAX_PACKED_BYTES: Final = 16_384

_CUTS: Final = (MOST_CALLERS, 15, 10, 7, 5, 3, 2, 1)
_PACKED_CALLER_BYTES: Final = 30  # about the least

# Anybody who may write to Redis may write a report. Sums stay within the bounds too: they are read from `/top` again.
MOST_CALLS: Final = 10**15
Calls: TypeAlias = Annotated[int, Field(ge=0, le=MOST_CALLS)]
Instant: TypeAlias = Annotated[float, Field(ge=0, lt=253_402_300_800, allow_inf_nan=False)]  # before the year 10000
Part: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Caller(NamedTuple):
    """A caller: a descriptor as text, `api_key=fr***~1a2b3c`, secret values masked.

    It was counted at least `calls - error` times and at most `calls + missing` times. `first_s` and `last_s` are the
    instants of the first and the latest time, in seconds since the epoch.
    """

    caller: str
    calls: Calls
    error: Calls = 0
    missing: Calls = 0
    first_s: Instant = 0
    last_s: Instant = 0


class RuleTop(NamedTuple):
    """The callers of one rule, each list with the most calls first; `denied` counts denied calls only.

    Whoever is not in a list was counted at most `denied_others` or `busiest_others` times.
    """

    domain: str
    rule: str
    denied: tuple[Caller, ...] = ()
    busiest: tuple[Caller, ...] = ()
    denied_others: Calls = 0
    busiest_others: Calls = 0


class Top(NamedTuple):
    """Callers by rule, the rule with the most denied calls first; `left_out` rules that come after these.

    Calls since `since_s`, in seconds since the epoch, are counted. `denied_examined` and `busiest_examined` are the
    parts of the calls, from 0 to 1, that were looked at for the two kinds of lists. Where it is 1, the numbers are
    exact within their errors; where it is less, they are estimates.
    """

    since_s: Instant
    denied_examined: Part
    busiest_examined: Part
    rules: tuple[RuleTop, ...]
    left_out: Calls = 0


_TOP: Final = TypeAdapter(Top)


class TopOfAll(NamedTuple):
    """The callers of this replica, and of `all` replicas together, of which there are `replicas` with a report.

    Of `unknown` others, which heartbeats tell of, there is no report; the `problem`, if there is one, is the reason.
    """

    replica: Top
    all: Top
    replicas: int
    unknown: int = 0
    problem: str | None = None

    def json(self) -> Iterator[str]:
        """As one JSON object with the names of the fields, in pieces of one rule each."""
        yield json.dumps({"replicas": self.replicas, "unknown": self.unknown, "problem": self.problem})[:-1]
        for name, top in (("all", self.all), ("replica", self.replica)):
            yield f', "{name}": '
            yield from _json(top)
        yield "}"


class OthersTop(NamedTuple):
    """The callers of other replicas: the `tops` of `replicas`, and how many of them are not known, and why."""

    tops: tuple[Top, ...] = ()
    replicas: int = 0
    unknown: int = 0
    problem: str | None = None

    async def with_own(self, own: Sequence[Top]) -> TopOfAll:
        """All of them, where this replica has the callers `own`: those of each of its workers."""
        replica = own[0] if len(own) == 1 else await asyncio.to_thread(sum_tops, own)
        # Of many replicas it takes a while.
        summed = await asyncio.to_thread(sum_tops, [replica, *self.tops]) if self.tops else replica
        return TopOfAll(replica, summed, 1 + self.replicas, self.unknown, self.problem)


def view_top(top: Top) -> dict[str, Any]:
    """As data for JSON, with the names of the fields."""
    return top._asdict() | {"rules": list(map(_view_rule, top.rules))}


def _json(top: Top) -> Iterator[str]:
    fields = top._asdict()
    del fields["rules"]
    yield json.dumps(fields)[:-1] + ', "rules": ['
    for i, rule in enumerate(top.rules):
        yield (", " if i else "") + json.dumps(_view_rule(rule))
    yield "]}"


def _view_rule(rule: RuleTop) -> dict[str, Any]:
    denied, busiest = ([caller._asdict() for caller in callers] for callers in (rule.denied, rule.busiest))
    return rule._asdict() | {"denied": denied, "busiest": busiest}


def pack_top(top: Top, max_bytes: int = MAX_PACKED_BYTES) -> bytes:
    """As JSON without the names of the fields, in at most `max_bytes`: lists are cut to fit in, then rules left out."""
    for most in _CUTS:
        callers = sum(min(most, len(rule.denied)) + min(most, len(rule.busiest)) for rule in top.rules)
        if callers * _PACKED_CALLER_BYTES <= max_bytes:
            packed = to_json(top._replace(rules=tuple([_cut(rule, most) for rule in top.rules])))
            if len(packed) <= max_bytes:
                return packed
    rules = [_cut(rule, 1) for rule in top.rules]
    while True:
        left_out = top.left_out + len(top.rules) - len(rules)
        packed = to_json(top._replace(rules=tuple(rules), left_out=left_out))
        if len(packed) <= max_bytes or not rules:
            return packed
        del rules[len(rules) * max_bytes // len(packed) :]


def unpack_top(packed: bytes) -> Top | None:
    """What `pack_top` packed; None if it is anything else."""
    try:
        return _TOP.validate_json(packed)
    except ValidationError:
        return None


def sum_tops(tops: Iterable[Top], most: int = MOST_CALLERS) -> Top:
    """The sum over replicas; callers with one text are one caller.

    A caller that a replica's list of a rule does not have may be `missing` there, as often as the list says. Rules that
    a replica left out are not reckoned with.
    """
    tops = list(tops)
    found: dict[tuple[str, str], list[RuleTop]] = {}
    for top in tops:
        for rule in top.rules:
            found.setdefault((rule.domain, rule.rule), []).append(rule)
    rules = []
    for (domain, name), each in found.items():
        denied = _sum([(rule.denied, rule.denied_others) for rule in each], most)
        busiest = _sum([(rule.busiest, rule.busiest_others) for rule in each], most)
        rules.append(RuleTop(domain, name, denied[0], busiest[0], denied[1], busiest[1]))
    rules.sort(key=lambda rule: (-_calls(rule.denied), -_calls(rule.busiest), rule.domain, rule.rule))
    return Top(
        min((top.since_s for top in tops), default=0),
        min((top.denied_examined for top in tops), default=1),
        min((top.busiest_examined for top in tops), default=1),
        tuple(rules[:MOST_RULES]),
        _bounded(max((top.left_out for top in tops), default=0) + max(len(rules) - MOST_RULES, 0)),
    )


def _cut(rule: RuleTop, most: int) -> RuleTop:
    def others(callers: Sequence[Caller], known: int) -> int:
        return max([known, *[caller.calls + caller.missing for caller in callers[most:]]])

    return rule._replace(
        denied=rule.denied[:most],
        busiest=rule.busiest[:most],
        denied_others=others(rule.denied, rule.denied_others),
        busiest_others=others(rule.busiest, rule.busiest_others),
    )


def _sum(lists: Sequence[tuple[Sequence[Caller], int]], most: int) -> tuple[tuple[Caller, ...], int]:
    """The sum of several replicas' lists, and how often whoever is not in it may have been counted."""
    others_everywhere = _bounded(sum(others for _, others in lists))
    sums: dict[str, Caller] = {}
    for callers, others in lists:
        for each in callers:
            known = sums.get(each.caller)
            if known is None:
                known = each._replace(calls=0, error=0, missing=others_everywhere)
            sums[each.caller] = Caller(
                each.caller,
                _bounded(known.calls + each.calls),
                _bounded(known.error + each.error),
                _bounded(known.missing + each.missing - others),
                min(known.first_s, each.first_s),
                max(known.last_s, each.last_s),
            )
    ranked = sorted(sums.values(), key=lambda caller: (-caller.calls, caller.caller))
    unlisted = max((caller.calls + caller.missing for caller in ranked[most:]), default=0)
    return tuple(ranked[:most]), _bounded(max(others_everywhere, unlisted))


def _bounded(calls: int) -> int:
    return min(max(calls, 0), MOST_CALLS)


def _calls(callers: Iterable[Caller]) -> int:
    return sum(caller.calls for caller in callers)
