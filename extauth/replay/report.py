"""The result of a replay as JSON's data, from which the table and the page are made."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from extauth.replay.log_file import LogFile
from extauth.replay.replayer import Replayer, Totals, lines_read
from extauth.replay.side import Side
from extauth.replay.tally import Caller, RuleTally, Tally, Timeline

MAX_CALLERS_SHOWN = 5

View = dict[str, Any]


def view_replay(replayer: Replayer, logs: Sequence[LogFile]) -> View:
    """Everything that a report shows."""
    after, before = replayer.after, replayer.before
    changes = replayer.changes
    first_us = replayer.first_us
    return {
        "logs": [log.name for log in logs],
        "lines": {
            "read": lines_read(logs),
            "replayed": replayer.answered.allowed + replayer.answered.denied,
            "without_descriptors": replayer.without_descriptors,
            "malformed": replayer.problems.number,
            "late": replayer.late,
        },
        "malformed": replayer.problems.shown,
        "from": None if first_us is None else instant(first_us),
        "to": None if first_us is None else instant(replayer.last_us),
        "answered": _totals(replayer.answered),
        "after": _side(after, replayer.totals["after"], replayer.timeline),
        "before": None if before is None else _side(before, replayer.totals["before"], replayer.timeline),
        "changes": {
            "compared_with": "the log" if before is None else before.name,
            "newly_denied": changes.newly_denied,
            "newly_allowed": changes.newly_allowed,
            "newly_denied_callers": len(changes.callers),
            "first": _callers(changes.callers.values(), by_time=True),
        },
        "warnings": _warnings(replayer),
    }


def _side(side: Side, totals: Totals, timeline: Timeline) -> View:
    return {
        "config": side.name,
        **_totals(totals),
        "unmatched": side.unmatched,
        "untold": [{"reason": reason, "calls": calls} for reason, calls in side.untold.most_common()],
        "tiers": [{"tier": name, **_tally(tally, timeline)} for name, tally in side.tallies.tiers.items()],
        "rules": [
            {"domain": domain, "rule": name, **_rule(tally), **_tally(tally, timeline)}
            for (domain, name), tally in sorted(side.tallies.rules.items(), key=_by_denials)
        ],
    }


def _by_denials(rule: tuple[tuple[str, str], RuleTally]) -> tuple[Any, ...]:
    name, tally = rule
    return -tally.denied, -tally.over, -tally.calls, name


def _totals(totals: Totals) -> View:
    return {"allowed": totals.allowed, "denied": totals.denied}


def _tally(tally: Tally, timeline: Timeline) -> View:
    calls, second = tally.peak
    return {
        "calls": tally.calls,
        "allowed": tally.calls - tally.denied,
        "denied": tally.denied,
        "peak": {"calls_per_second": calls, "at": instant(second * 1_000_000) if calls else None},
        "timeline": None if tally.timeline is None else _timeline(tally.timeline, timeline),
    }


def _timeline(buckets: dict[int, tuple[int, int]], timeline: Timeline) -> View:
    return {
        "begin": instant((timeline.begin or 0) * 1_000_000),
        "bucket_s": timeline.width_s,
        "buckets": [[bucket, allowed, denied] for bucket, (allowed, denied) in sorted(buckets.items())],
    }


def _rule(tally: RuleTally) -> View:
    return {
        "tier": tally.tier,
        "limits": list(tally.limits),
        "over": tally.over,
        "denied_callers": len(tally.callers),
        "first_denied": _callers(tally.callers.values(), by_time=True),
        "most_denied": _callers(tally.callers.values(), by_time=False),
    }


def _callers(callers: Iterable[Caller], *, by_time: bool) -> list[View]:
    ordered = sorted(callers, key=lambda caller: (0 if by_time else -caller.denied, caller.first_us, caller.shown))
    return [
        {"caller": caller.shown, "first_at": instant(caller.first_us), "denied": caller.denied}
        for caller in ordered[:MAX_CALLERS_SHOWN]
    ]


def _warnings(replayer: Replayer) -> list[str]:
    warnings = []
    for side in (replayer.after, *([replayer.before] if replayer.before is not None else [])):
        warnings += [
            f"{side.name}: none of the hashed values of {key} in the log is one that the config names;"
            " set EXTAUTH_KEY_SECRET to that of the service that answered"
            for key in side.matcher.unknown_keys()
        ]
        if side.tallies.tiers and not side.tallies.rules:
            domains = ", ".join(map(repr, side.matcher.rules.domains)) or "none"
            warnings.append(
                f"{side.name}: no rule applies to any request of the log; check the config's domains ({domains})"
                " and keys, `extauth explain` shows why"
            )
        if side.counters.refusals:
            warnings.append(
                f"{side.name}: the counters were full {side.counters.refusals} times, and what had no room was denied;"
                " set EXTAUTH_MEMORY_BYTES to more"
            )
        if side.tallies.callers_left_out:
            warnings.append(f"{side.name}: not all callers who were denied are counted: there are too many")
    if replayer.late:
        warnings.append(
            f"{replayer.late} lines are too far from their place in time, and were decided at that of the line before"
        )
    return warnings


def instant(time_us: int) -> str:
    """An instant as the log writes it, in UTC with milliseconds."""
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
