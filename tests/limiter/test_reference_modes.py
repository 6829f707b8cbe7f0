"""Answers in the ways of envoyproxy/ratelimit, where the modes ask for them."""

import pytest

from extauth.limiter.modes import GlobalModes
from tests.limiter.service import Service, descriptor, rule

COMPATIBLE = GlobalModes(lenient_peeks=True)
STOPPING = GlobalModes(stop_at_limit=True)
OK, OVER = 1, 2


@pytest.mark.parametrize(("modes", "passing"), [(COMPATIBLE, 3), (GlobalModes(), 2)])
async def test_a_peek_passes_until_the_limit_is_exceeded(modes: GlobalModes, passing: int) -> None:
    service = Service("descriptors:" + rule("a", 2), modes)
    codes, left = [], []
    for _ in range(4):
        peeked = await service.ask(descriptor("a=x", hits_addend=0))
        codes.append(int(peeked.overall_code))
        left.append(peeked.statuses[0].limit_remaining)
        await service.ask("a=x")
    assert codes == [OK] * passing + [OVER] * (4 - passing)
    assert left == [2, 1, 0, 0]


@pytest.mark.parametrize("algorithm", ["gcra", "sliding_window"])
async def test_a_peek_at_a_limit_that_is_no_fixed_window_asks_for_a_hit(algorithm: str) -> None:
    service = Service("descriptors:" + rule("a", 1, limit=f", algorithm: {algorithm}"), COMPATIBLE)
    await service.ask("a=x")
    assert (await service.ask(descriptor("a=x", hits_addend=0))).overall_code == OVER


async def test_no_hits_of_a_whole_request_are_one() -> None:
    service = Service("descriptors:" + rule("a", 1), COMPATIBLE)
    assert await service.codes("a=x", calls=2, hits=0) == [OK, OVER]


async def test_hits_that_are_given_back_always_pass_and_leave_none_below_0() -> None:
    service = Service("descriptors:" + rule("a", 3), COMPATIBLE)
    await service.ask("a=x", hits=5)
    for hits, left in ((1, 0), (2, 1), (9, 3)):
        given = await service.ask(descriptor("a=x", hits_addend=hits, is_negative_hits=True))
        assert (given.overall_code, given.statuses[0].limit_remaining) == (OK, left)
    assert await service.codes("a=x", calls=4) == [OK, OK, OK, OVER]


async def test_denied_hits_count_where_their_own_limit_denies_them() -> None:
    service = Service("descriptors:" + rule("a", 10), STOPPING)
    assert [int((await service.ask("a=x", hits=hits)).overall_code) for hits in (9, 2, 1)] == [OK, OVER, OVER]


@pytest.mark.parametrize(("modes", "left"), [(STOPPING, 3), (GlobalModes(), 0)])
async def test_denied_hits_do_not_count_elsewhere(modes: GlobalModes, left: int) -> None:
    service = Service("descriptors:" + rule("a", 2) + rule("b", 5), modes)
    assert await service.codes("a=x", "b=x", calls=5) == [OK, OK, OVER, OVER, OVER]
    peeked = await service.ask(descriptor("b=x", hits_addend=0))
    assert peeked.statuses[0].limit_remaining == left


async def test_only_limits_that_count_denied_hits_can_stop() -> None:
    service = Service("descriptors:" + rule("a", 10, limit=", count_denied: false"), STOPPING)
    assert [int((await service.ask("a=x", hits=hits)).overall_code) for hits in (9, 2, 1)] == [OK, OVER, OK]
