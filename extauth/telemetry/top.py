"""The callers that are denied most, and those that call most, by rule: as data, as JSON, and summed over replicas."""

from typing import Any, NamedTuple


class Caller(NamedTuple):
    """A caller: a descriptor as text, `api_key=fr***~1a2b3c`, secret values masked.

    It was counted at least `calls - error` times and at most `calls + missing` times. `first_s` and `last_s` are the
    instants of the first and the latest time, in seconds since the epoch.
    """

    caller: str
    calls: int
    error: int = 0
    missing: int = 0
    first_s: float = 0
    last_s: float = 0


class RuleTop(NamedTuple):
    """The callers of one rule, each list with the most calls first; `denied` counts denied calls only."""

    domain: str
    rule: str
    denied: tuple[Caller, ...] = ()
    busiest: tuple[Caller, ...] = ()


class Top(NamedTuple):
    """Callers by rule, the rule with the most denied calls first.

    Calls since `since_s`, in seconds since the epoch, are counted. `denied_examined` and `busiest_examined` are the
    parts of the calls, from 0 to 1, that were looked at for the two kinds of lists. Where it is 1, the numbers are
    exact within their errors; where it is less, they are estimates.
    """

    since_s: float
    denied_examined: float
    busiest_examined: float
    rules: tuple[RuleTop, ...]


def view_top(top: Top) -> dict[str, Any]:
    """As data for JSON; instants are rounded to a tenth of a second."""
    return {
        "since_s": round(top.since_s, 1),
        "denied_examined": round(top.denied_examined, 4),
        "busiest_examined": round(top.busiest_examined, 4),
        "rules": [
            {
                "domain": rule.domain,
                "rule": rule.rule,
                "denied": [_view_caller(caller) for caller in rule.denied],
                "busiest": [_view_caller(caller) for caller in rule.busiest],
            }
            for rule in top.rules
        ],
    }


def _view_caller(caller: Caller) -> dict[str, Any]:
    return caller._asdict() | {"first_s": round(caller.first_s, 1), "last_s": round(caller.last_s, 1)}
