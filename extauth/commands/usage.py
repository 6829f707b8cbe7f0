"""How a request's counters stand in the store, asked without taking anything."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from extauth.admin.rules_json import view_limit
from extauth.commands.preview import Planned
from extauth.commands.text import limit_in_words, mode_in_short, seconds, shown
from extauth.errors import CommandError
from extauth.limiter.counters import CounterSet, Group, LimitCheck, Mode
from extauth.limiter.plan import Plan

if TYPE_CHECKING:
    from extauth.counters.redis.counters import RedisCounters

TIMEOUT_S = 5.0  # people wait longer than calls may

_T = TypeVar("_T")


class CounterUsage(NamedTuple):
    """One counter: `used` hits of its limit's capacity, more where it ran into debt, and `remaining` ones.

    `reset_us` is the time until the limit is whole again.
    """

    name: bytes
    check: LimitCheck
    used: int
    remaining: int
    reset_us: int


def in_store(planned: Planned, work: "Callable[[RedisCounters], Coroutine[Any, Any, _T]]") -> _T:
    """Do the work on the store of EXTAUTH_REDIS_URL; raises SettingsError, StoreError or CommandError."""
    from extauth.counters.redis.counters import RedisCounters

    if planned.settings.counts_in_memory:
        raise CommandError(
            "EXTAUTH_REDIS_URL=memory: keeps the counters inside the process of `extauth serve`, where no other "
            "process can read or delete them; count in Redis to inspect them, or restart the service to reset them all"
        )

    async def run() -> _T:
        settings = planned.settings
        counters = RedisCounters(settings.redis_url.get_secret_value(), max(settings.redis_timeout, TIMEOUT_S))
        try:
            return await work(counters)
        finally:
            await counters.aclose()

    return asyncio.run(run())


async def look(counters: "RedisCounters", plan: Plan) -> list[CounterUsage]:
    """Ask the plan's counters for no hit at all; raises StoreError.

    A counter in other terms than its limit is put into the limit's terms, as any call would; that takes nothing.
    """
    if not plan.names:
        return []
    peek = CounterSet(plan.names, tuple(LimitCheck(check.limit, 0, Mode.SHADOW) for check in plan.checks))
    (taken,) = await counters.take([Group(peek, 1)])
    standings = []
    for name, check, level in zip(plan.names, plan.checks, taken.levels, strict=True):
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
