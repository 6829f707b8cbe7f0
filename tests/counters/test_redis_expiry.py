"""When Redis forgets a counter."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from extauth.limiter.counters import Group
from extauth.rules.model import Algorithm, Limit, Unit
from tests.counters.redis_take import LIMITS, Connect, now_us, take
from tests.support import takes

SPARE_US = 2_001  # of whole milliseconds, both of the server's clock and of what a key has left


async def a_while(client: Redis) -> None:
    """Let some milliseconds of the server's clock pass, more than SPARE_US."""
    began_us = await now_us(client)
    while await now_us(client) < began_us + 5 * SPARE_US:
        pass


async def gone_us(client: Redis, name: str) -> int:
    """When the server forgets the key: after the millisecond at which it expires."""
    return 1000 * (int(await client.pexpiretime(name)) + 1)


def ends_us(limit: Limit, hits: int, at_us: int) -> int:
    """When a counter that has taken so many hits at this instant holds none any more."""
    match limit.algorithm:
        case Algorithm.GCRA:
            return at_us + limit.period_us * hits // limit.requests_per_unit
        case Algorithm.FIXED_WINDOW:
            return at_us - at_us % limit.period_us + limit.period_us
        case Algorithm.SLIDING_WINDOW:
            return at_us + limit.period_us


@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_every_counter_expires_when_it_can_matter_no_more(connect: Connect, client: Redis, limit: Limit) -> None:
    """Not sooner, and hardly later: after the first hits, more of them, and some given back."""
    counters = connect()
    held, takes_us = 0, []
    for hits in (5, 3, -4):
        await a_while(client)
        before_us = await now_us(client)
        await counters.take([Group(takes.take((b"c", limit, hits)), 1)])
        takes_us.append((before_us, await now_us(client)))
        held += hits
        # A bucket drains from the first hits on. A sliding window ends after its newest, which are given back first.
        of_the_first = limit.algorithm is Algorithm.GCRA or (limit.algorithm is Algorithm.SLIDING_WINDOW and hits < 0)
        earliest_us, latest_us = takes_us[0 if of_the_first else -1]
        assert ends_us(limit, held, earliest_us) <= await gone_us(client, "c")
        assert await gone_us(client, "c") <= ends_us(limit, held, latest_us) + SPARE_US
    assert await client.dbsize() == 1


@pytest.mark.parametrize("limit", LIMITS, ids=str)
async def test_what_takes_nothing_lets_no_counter_live_longer(connect: Connect, client: Redis, limit: Limit) -> None:
    counters = connect()
    limit = replace(limit, count_denied=False)
    assert await take(counters, limit, calls=10) == 10
    expires = await client.pexpiretime("c")
    for cost in (1, 0):
        (taken,) = await counters.take([Group(takes.take((b"c", limit, cost)), 1)])
        assert taken.admitted == 0
    assert await client.pexpiretime("c") == expires


CHANGED = [(old, new) for old in LIMITS for new in LIMITS if old.algorithm is not new.algorithm]


@pytest.mark.parametrize(("old", "new"), CHANGED, ids=str)
async def test_a_counter_that_is_put_into_other_terms_expires_by_them(
    connect: Connect, client: Redis, old: Limit, new: Limit
) -> None:
    counters = connect()
    assert await take(counters, replace(old, unit=Unit.DAY), calls=5) == 5
    before_us = await now_us(client)
    assert await take(counters, new) == 1
    after_us = await now_us(client)
    assert ends_us(new, 6, before_us) <= await gone_us(client, "c") <= ends_us(new, 6, after_us) + SPARE_US


async def test_a_sliding_window_that_was_lengthened_is_kept_as_long(connect: Connect, client: Redis) -> None:
    counters = connect()
    short, long = (Limit(10, unit, Algorithm.SLIDING_WINDOW, count_denied=False) for unit in (Unit.MINUTE, Unit.DAY))
    before_us = await now_us(client)
    assert await take(counters, short, calls=99) == 10
    after_us = await now_us(client)
    await a_while(client)
    for limit in (short, long):
        assert await take(counters, limit) == 0
        assert ends_us(limit, 10, before_us) <= await gone_us(client, "c") <= ends_us(limit, 10, after_us) + SPARE_US


async def test_a_log_of_which_all_is_given_back_is_gone(connect: Connect, client: Redis) -> None:
    counters = connect()
    limit = Limit(10, Unit.HOUR, Algorithm.SLIDING_WINDOW, count_denied=False)
    assert await take(counters, limit, calls=3) == 3
    await counters.take([Group(takes.take((b"c", limit, -3)), 1)])
    assert await client.dbsize() == 0
