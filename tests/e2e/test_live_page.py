"""The live page's stream agrees with what Envoy answered, over both replicas."""

import json
from collections import Counter
from typing import Any

import aiohttp

from tests.e2e.edge import FREE, Edge


async def events(edge: Edge) -> list[dict[str, Any]]:
    """The first event of each replica's stream: all that it knows."""
    found = []
    for replica in edge.stack.ports.extauth:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{replica.admin}/live") as response,
        ):
            async for line in response.content:
                if line.startswith(b"data: "):
                    found.append(json.loads(line[6:]))
                    break
    return found


def traffic(events: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """The calls of the last 15 minutes by tier and outcome."""
    counts: Counter[tuple[str, str]] = Counter()
    for event in events:
        for each in event["history"]["tiers"]:
            for outcome in ("allowed", "denied"):
                counts[each["tier"], outcome] += sum(each[outcome])
    return +counts


def rules(events: list[dict[str, Any]], column: str) -> Counter[str]:
    """A column of the rules' rows, by tier."""
    counts: Counter[str] = Counter()
    for event in events:
        for row in event["rules"]["rows"]:
            counts[row["tier"]] += row[column]
    return +counts


async def test_the_streams_of_all_replicas_add_up_to_what_envoy_answered(edge: Edge) -> None:
    before = await events(edge)
    answered = Counter(await edge.statuses(13, key=FREE)) + Counter(await edge.statuses(4))
    assert set(answered) == {200, 429}
    after: list[dict[str, Any]] = []

    async def told() -> bool:
        after[:] = await events(edge)
        return sum((traffic(after) - traffic(before)).values()) == 17

    await edge.until(told, "all calls are in the history")
    passed = traffic(after) - traffic(before)
    assert passed == {
        ("free", "allowed"): 10,
        ("free", "denied"): 3,
        ("anonymous", "allowed"): 2,
        ("anonymous", "denied"): 2,
    }
    assert (answered[200], answered[429]) == (12, 5)
    assert rules(after, "calls") - rules(before, "calls") == {"free": 13, "anonymous": 4}
    assert rules(after, "denied") - rules(before, "denied") == {"free": 3, "anonymous": 2}
    assert {event["service"]["status"] for event in after} == {"ready"}
    assert {event["replicas"]["agree"] for event in after} == {True}
