"""What goes over a stream of an xDS server, seen by a server that misbehaves."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from extauth.config.sources.xds_cache import read_cache
from extauth.config.sources.xds_settings import XdsOptions
from extauth.rules.model import RuleSet
from tests.config.xds.fake_server import FakeXds, Reports, fake_xds, following
from tests.support.wait import until_async
from tests.support.xds_messages import TYPE, config, response


@pytest.fixture
async def xds() -> AsyncIterator[FakeXds]:
    async with fake_xds() as server:
        yield server


def domain(name: str, requests: int = 1, **more: object) -> bytes:
    limit = {"unit": "minute", "requests_per_unit": requests}
    return config({"domain": name, "descriptors": [{"key": "k", "rate_limit": limit} | more]})


BAD = config({"domain": "b", "descriptors": [{"key": "k"}, {"key": "k"}]})
NAMELESS = config({"name": "r"})
UNDECODABLE = b"\x0a\x7f"


def limits(rules: RuleSet) -> dict[str, int]:
    return {name: each.rules[0].limits[0].requests_per_unit for name, each in rules.domains.items()}


def shown(request: Any) -> tuple[str, str, bool]:  # noqa: ANN401
    return request.version_info, request.response_nonce, request.HasField("error_detail")


async def test_a_stream_begins_with_the_node_and_neither_version_nor_nonce(xds: FakeXds) -> None:
    options = XdsOptions(node_id="me", node_metadata={"zone": "a"}, headers={"x-token": "secret", "b-bin": "raw"})
    async with following(xds.address, options):
        (first,) = await xds.until_requests(1)
    assert shown(first) == ("", "", False)
    assert (first.node.id, dict(first.node.metadata), first.type_url) == ("me", {"zone": "a"}, TYPE)
    assert list(first.resource_names) == []
    assert xds.metadata[0]["x-token"] == "secret"
    assert xds.metadata[0]["b-bin"] == b"raw"


async def test_rules_that_are_in_force_are_accepted_and_then_others(xds: FakeXds) -> None:
    async with following(xds.address) as follower:
        await xds.until_requests(1)
        xds.push(response("7", domain("b", 2), domain("a", 1)))
        assert limits(await follower.until_updates(1)) == {"a": 1, "b": 2}
        assert shown((await xds.until_requests(2))[1]) == ("7", "n7", False)
        xds.push(response("8", domain("a", 1)))
        assert limits(await follower.until_updates(2)) == {"a": 1}
        assert shown((await xds.until_requests(3))[2]) == ("8", "n8", False)
    assert follower.updates[0].domains["a"] is follower.updates[1].domains["a"]


async def test_it_begins_with_the_first_snapshot_though_that_is_empty(xds: FakeXds) -> None:
    async with following(xds.address) as follower:
        await xds.until_requests(1)
        begun = asyncio.create_task(follower.source.begun())
        await asyncio.sleep(0)
        assert not begun.done()
        xds.push(response("1"))
        await asyncio.wait_for(begun, 20)
        assert shown((await xds.until_requests(2))[1]) == ("1", "n1", False)
    assert [limits(rules) for rules in follower.updates] == [{}]


async def test_a_snapshot_of_which_nothing_can_be_used_is_no_beginning(xds: FakeXds, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    async with following(xds.address, cache=cache) as follower:
        await xds.until_requests(1)
        begun = asyncio.create_task(follower.source.begun())
        xds.push(response("1", BAD))
        await xds.until_requests(2)
        xds.push(response("2", NAMELESS))  # which is dealt with only after the first one
        assert shown((await xds.until_requests(3))[1]) == ("1", "n1", True)
        assert not begun.done()
        assert read_cache(cache, 1 << 20) is None
        xds.push(response("3", BAD, domain("a")))
        await asyncio.wait_for(begun, 20)
        await until_async(lambda: read_cache(cache, 1 << 20))


async def test_the_same_rules_again_are_accepted_and_not_put_in_force_again(xds: FakeXds) -> None:
    async with following(xds.address) as follower:
        await xds.until_requests(1)
        xds.push(response("1", domain("a"), domain("b")))
        await xds.until_requests(2)
        xds.push(response("2", domain("b"), domain("a")))
        assert shown((await xds.until_requests(3))[2]) == ("2", "n2", False)
    assert len(follower.updates) == 1


async def test_what_comes_meanwhile_is_read_and_only_the_newest_is_answered(xds: FakeXds) -> None:
    async with following(xds.address) as follower:
        await xds.until_requests(1)
        follower.go_on.clear()
        xds.push(response("1", domain("a", 1)))
        await follower.until_updates(1)
        xds.push(response("2", domain("a", 2)))
        xds.push(response("3", domain("a", 3)))
        await until_async(lambda: b"n3" in (follower.source._session.newest or b""))  # type: ignore[union-attr]
        follower.go_on.set()
        assert limits(await follower.until_updates(2)) == {"a": 3}
        assert [shown(each)[1] for each in await xds.until_requests(2)] == ["", "n3"]


async def test_a_server_that_is_started_again_may_count_its_versions_anew(xds: FakeXds) -> None:
    async with following(xds.address) as follower:
        await xds.until_requests(1)
        xds.push(response("5", domain("a", 1)))
        await xds.until_requests(2)
        await xds.stop()
        again = FakeXds(xds.port)
        await again.start()
        assert shown((await again.until_requests(1))[0]) == ("", "", False)
        assert limits(follower.updates[-1]) == {"a": 1}
        again.push(response("1", domain("a", 2)))
        assert limits(await follower.until_updates(2)) == {"a": 2}
        await again.stop()
    await xds.start()


async def test_a_server_that_cannot_be_reached_is_tried_again(xds: FakeXds) -> None:
    await xds.stop()
    reports = Reports()
    async with following(xds.address, reports=reports) as follower:
        await until_async(lambda: len(reports.named("away")) >= 2)
        assert "UNAVAILABLE" in reports.named("away")[0]
        again = FakeXds(xds.port)
        await again.start()
        await again.until_requests(1)
        again.push(response("1", domain("a")))
        await follower.until_updates(1)
        assert reports.named("connected")[-1] is False
        await again.stop()
    await xds.start()


async def test_an_answer_to_a_stream_that_has_ended_is_not_sent_on_the_next_one(xds: FakeXds) -> None:
    async with following(xds.address) as follower:
        await xds.until_requests(1)
        follower.go_on.clear()
        xds.push(response("1", domain("a")))
        await follower.until_updates(1)
        xds.end_stream()
        await xds.until_streams(2)
        follower.go_on.set()
        xds.push(response("1", domain("a", 2)))
        await follower.until_updates(2)
        assert list(map(shown, await xds.until_requests(2, 1))) == [("", "", False), ("1", "n1", False)]


async def test_a_response_that_makes_no_sense_ends_the_stream(xds: FakeXds) -> None:
    reports = Reports()
    async with following(xds.address, reports=reports) as follower:
        await xds.until_requests(1)
        xds.push(response("1", domain("a")))
        await follower.until_updates(1)
        xds.push(b"\x12\x7f")
        await xds.until_streams(2)
    assert reports.named("away")[0].startswith("the server sent what is no response")
    assert len(follower.updates) == 1


OTHER = "type.googleapis.com/ratelimit.config.ratelimit.v4.RateLimitConfig"


@pytest.mark.parametrize("domains", [0, 1, 1000])
async def test_a_response_of_another_type_is_passed_over_and_takes_no_other_ones_place(
    xds: FakeXds, domains: int
) -> None:
    other = response("9", *[domain(f"x{number}") for number in range(domains)]).replace(TYPE.encode(), OTHER.encode())
    reports = Reports()

    async def until_passed_over(times: int) -> None:
        await until_async(lambda: reports.named("passed_over") == [OTHER] * times, lambda: reports.lines)

    async with following(xds.address, reports=reports) as follower:
        await xds.until_requests(1)
        xds.push(other)
        await until_passed_over(1)
        assert reports.named("connected") in ([], [True]), "it waits for its first rules"
        follower.go_on.clear()
        xds.push(response("1", domain("a")))
        assert limits(await follower.until_updates(1)) == {"a": 1}
        xds.push(response("2", domain("a", 2)))  # which is not built as long as the others are not in force
        xds.push(other)
        await until_passed_over(2)
        follower.go_on.set()
        assert limits(await follower.until_updates(2)) == {"a": 2}
        requests = await xds.until_requests(2)
    assert {each.type_url for each in requests} == {TYPE}
    assert [each.response_nonce for each in requests] == ["", "n2"]
    assert not any(each.HasField("error_detail") for each in requests)


async def test_too_large_a_response_names_the_setting(xds: FakeXds) -> None:
    reports = Reports()
    async with following(xds.address, XdsOptions(max_message_bytes=1024), reports):
        await xds.until_requests(1)
        xds.push(response("1", domain("a" * 2000)))
        await xds.until_streams(2)
    assert "raise EXTAUTH_XDS_MAX_MESSAGE_BYTES" in reports.named("away")[0]


async def test_good_domains_are_applied_and_bad_ones_keep_their_rules(xds: FakeXds) -> None:
    async with following(xds.address) as follower:
        await xds.until_requests(1)
        xds.push(response("1", domain("a", 1), domain("b", 1), domain("c", 1)))
        await xds.until_requests(2)
        xds.push(response("2", domain("a", 2), BAD))
        rules = await follower.until_updates(2)
        assert limits(rules) == {"a": 2, "b": 1}  # c is gone: all resources were read
        assert rules.retained == {"b"}
        refusal = (await xds.until_requests(3))[2]
    assert shown(refusal) == ("2", "n2", True)
    assert refusal.error_detail.code == 3
    assert "xds:b#descriptors[1]" in refusal.error_detail.message


@pytest.mark.parametrize("broken", [UNDECODABLE, NAMELESS], ids=["undecodable", "nameless"])
async def test_nothing_is_removed_while_nobody_knows_whose_a_resource_is(xds: FakeXds, broken: bytes) -> None:
    async with following(xds.address) as follower:
        await xds.until_requests(1)
        xds.push(response("1", domain("a", 1), domain("b", 1)))
        await xds.until_requests(2)
        xds.push(response("2", domain("a", 2), broken))
        assert limits(await follower.until_updates(2)) == {"a": 2, "b": 1}
        assert shown((await xds.until_requests(3))[2]) == ("2", "n2", True)
        xds.push(response("3", domain("a", 2)))
        assert limits(await follower.until_updates(3)) == {"a": 2}


async def test_of_two_resources_for_a_domain_neither_is_taken(xds: FakeXds) -> None:
    async with following(xds.address) as follower:
        await xds.until_requests(1)
        xds.push(response("1", domain("a", 1)))
        await xds.until_requests(2)
        xds.push(response("2", domain("a", 2), domain("a", 3), domain("b", 4)))
        assert limits(await follower.until_updates(2)) == {"a": 1, "b": 4}
        assert shown((await xds.until_requests(3))[2]) == ("2", "n2", True)


async def test_two_resources_for_a_domain_are_merged_where_that_is_wanted(xds: FakeXds) -> None:
    other = config({"domain": "a", "name": "second", "descriptors": [{"key": "other"}]})
    async with following(xds.address, merge=True) as follower:
        await xds.until_requests(1)
        xds.push(response("1", domain("a"), other))
        rules = await follower.until_updates(1)
        assert {rule.key for rule in rules.domains["a"].rules} == {"k", "other"}
        assert shown((await xds.until_requests(2))[1]) == ("1", "n1", False)


async def test_what_was_refused_is_accepted_when_it_comes_again(xds: FakeXds) -> None:
    async with following(xds.address) as follower:
        await xds.until_requests(1)
        xds.push(response("1", domain("a"), BAD, nonce="x"))
        assert shown((await xds.until_requests(2))[1]) == ("1", "x", True)
        xds.push(response("1", BAD, domain("a"), nonce="y"))
        assert shown((await xds.until_requests(3))[2]) == ("1", "y", False)
    assert len(follower.updates) == 1


async def test_a_server_that_answers_each_request_at_once_is_not_asked_without_end(xds: FakeXds) -> None:
    count = iter(range(1_000_000))
    xds.reply = lambda _: response("1", domain("a"), BAD, nonce=str(next(count)))
    async with following(xds.address) as follower:
        await follower.until_updates(1)
        await xds.until_requests(5)
        before = len(xds.requests[0])
        assert (await asyncio.wait_for(xds.until_requests(before + 2), 20)) is not None
    assert sum(each.HasField("error_detail") for each in xds.requests[0]) == 1
    assert next(count) < 20


async def test_a_refresh_yields_the_rules_that_are_in_force(xds: FakeXds) -> None:
    async with following(xds.address) as follower:
        await asyncio.wait_for(follower.source.refresh(), 20)  # there are none yet
        assert follower.updates == []
        await xds.until_requests(1)
        xds.push(response("1", domain("a")))
        await follower.until_updates(1)
        await asyncio.wait_for(follower.source.refresh(), 20)
        assert follower.updates[1] is follower.updates[0]
