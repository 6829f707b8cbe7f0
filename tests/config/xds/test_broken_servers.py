"""An xDS server that is broken costs this process little, and the rules of its good domains stay in force."""

from collections.abc import AsyncIterator
from time import monotonic

import pytest

from extauth.config.sources.xds_pauses import MOST_BUILT
from tests.config.xds.fake_server import FakeXds, fake_xds, following
from tests.config.xds.test_protocol import BAD, domain, limits
from tests.support.wait import until_async
from tests.support.xds_messages import config, response


@pytest.fixture
async def xds() -> AsyncIterator[FakeXds]:
    async with fake_xds() as server:
        yield server


async def test_a_server_that_answers_and_hangs_up_is_asked_after_longer_and_longer_pauses(xds: FakeXds) -> None:
    began = monotonic()
    async with following(xds.address, pauses_s=(0.1, 10)) as follower:
        for streams in range(1, 6):
            await xds.until_streams(streams)
            xds.push(response("1", domain("a")))
            xds.end_stream()
        assert limits(await follower.until_updates(1)) == {"a": 1}
    assert monotonic() - began >= 0.1 * (1 + 2 + 4 + 8) / 2


async def test_of_responses_without_end_few_are_built_and_the_last_one_is_in_force(xds: FakeXds) -> None:
    async with following(xds.address) as follower:
        await xds.until_requests(1)
        for number in range(1, 201):
            xds.push(response(str(number), domain("a", number)))
        await until_async(lambda: follower.updates and limits(follower.updates[-1]) == {"a": 200})
        assert len(follower.updates) < MOST_BUILT + 20


async def test_a_server_that_answers_each_refusal_with_other_mistakes_is_refused_seldom(xds: FakeXds) -> None:
    async with following(xds.address) as follower:
        await xds.until_requests(1)
        xds.reply = lambda heard: response(
            heard.version_info + "1", domain("a"), BAD, config({"name": f"r{len(xds.requests[0])}"})
        )
        xds.push(response("1", domain("a"), domain("b")))
        began = monotonic()
        await xds.until_requests(MOST_BUILT + 3)
        assert monotonic() - began >= 1
        assert limits(follower.updates[-1]) == {"a": 1, "b": 1}
