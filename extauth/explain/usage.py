"""What is used of a request's counters in the store, asked without taking anything."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from extauth.explain.limit_view import view_limit
from extauth.explain.text import limit_in_words, mode_in_short, seconds, shown
from extauth.limiter.counters import Counters, CounterSet, Group, LimitCheck, Mode
from extauth.limiter.plan import Plan


class CounterUsage(NamedTuple):
    """One counter: `used` hits of its limit's capacity, more where it ran into debt, and `remaining` ones.

    `reset_us` is the time until the limit is whole again.
    """

    name: bytes
    check: LimitCheck
    used: int
    remaining: int
    reset_us: int


async def look(counters: Counters, plan: Plan) -> list[CounterUsage]:
    """Ask the plan's counters for no hit at all; raises StoreError.

    A counter in other terms than its limit is put into the limit's terms, as any call would; that takes nothing.
    """
    if not plan.names:
        return []
    # Each by itself: they may lie on several shards.
    peeks = [
        Group(CounterSet((name,), (LimitCheck(check.limit, 0, Mode.SHADOW),)), 1)
        for name, check in zip(plan.names, plan.checks, strict=True)
    ]
    levels = [level for taken in await counters.take(peeks) for level in taken.levels]
    standings = []
    for name, check, level in zip(plan.names, plan.checks, levels, strict=True):
        told = LimitCheck(check.limit, 0).outcome(level, 0, 1)
        used = check.algorithm.used_hits(level)
        standings.append(CounterUsage(name, check, used, told.remaining, told.reset_us))
    return standings


def standing_lines(standings: Sequence[CounterUsage]) -> list[str]:
    """Two lines a counter."""
    lines = []
    for name, check, used, remaining, reset_us in standings:
        called = f"{check.limit.name}: " if check.limit.name else ""
        mode = f" ({mode_in_short(check.mode)})" if check.mode else ""
        whole = f"whole again in {seconds(reset_us)}" if used else "nothing is used"
        lines.append(f"{called}{limit_in_words(check.limit)}{mode}")
        lines.append(f"  {used} used, {remaining} left, {whole}; {shown(name)}")
    return lines


def view_standings(standings: Sequence[CounterUsage]) -> list[dict[str, Any]]:
    """As JSON's data; `reset_s` is rounded up."""
    return [
        {
            "name": shown(name),
            "limit": view_limit(check.limit),
            "mode": check.mode.name.lower(),
            "used": used,
            "remaining": remaining,
            "reset_s": -(-reset_us // 1_000_000) if used else 0,
        }
        for name, check, used, remaining, reset_us in standings
    ]
