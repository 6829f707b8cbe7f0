"""The rows of the live page's rules: which, what they say, and what is sent again."""

import json
from pathlib import Path
from typing import Any

from extauth.config.merge import load_rules
from extauth.limiter.planner import Planner
from extauth.overview.rule_table import CHOSEN_EVERY, MOST_ROWS, RuleTable
from extauth.rls.encode import encode_request
from extauth.rls.request import Descriptor, Entry
from extauth.rules.matcher import Matcher
from extauth.telemetry.metrics import Metrics
from tests.support.facts import batch
from tests.support.service import decider_of

CONFIG = """
domain: d
tiers:
  slow: {unit: minute, requests_per_unit: 2}
descriptors:
  - {key: b, tier: slow}
  - {key: a, value: one, rate_limit: {unit: hour, requests_per_unit: 100}}
  - {key: s, shadow_mode: true, rate_limit: {unit: minute, requests_per_unit: 1}}
  - {key: u, rate_limit: {unlimited: true}}
  - {key: w, detailed_metric: true, rate_limit: {unit: minute, requests_per_unit: 1}}
"""


class Table:
    """A table of a config's rules, in which calls can be counted."""

    def __init__(self, config: str) -> None:
        self._decider = decider_of(config)
        self.metrics = Metrics()
        self.table = RuleTable(self._decider.planner, self.metrics.rules, Path("config"))

    @property
    def planner(self) -> Planner:
        return self._decider.planner

    async def call(self, key: str, value: str = "", calls: int = 1) -> None:
        plan = self.planner.plan(encode_request("d", [Descriptor((Entry(key, value),))]))
        self.metrics.batch_decided(batch(*(await self._decider.limiter.decide({plan: calls})).groups))

    def reload(self, config: str) -> None:
        matcher = Matcher(load_rules({"f.yaml": config}), self.planner.matcher.masking)
        self.planner.swap(matcher)
        self.metrics.rules_loaded(matcher.size, matcher.rules.digest, ok=True)

    async def rows(self, seen: int = 0) -> dict[str, Any]:
        await self.table.refresh()
        told: dict[str, Any] = json.loads(b"".join(self.table.json(seen)))
        return told


async def test_every_rule_with_limits_has_a_row_in_the_order_of_the_file() -> None:
    told = await Table(CONFIG).rows()
    assert (told["reset"], told["total"]) == (True, 5)
    assert [(row["rule"], row["tier"], row["limit"], row["place"]) for row in told["rows"]] == [
        ("b", "slow", "2 per minute, fixed window", "f.yaml:6"),
        ("a_one", "", "100 per hour, fixed window", "f.yaml:7"),
        ("s", "", "1 per minute, fixed window, shadow mode", "f.yaml:8"),
        ("u", "", "unlimited", "f.yaml:9"),
    ]
    assert {(row["calls"], row["denied"], row["near"], row["shadowed"]) for row in told["rows"]} == {(0, 0, 0, 0)}


async def test_rows_say_to_the_unit_what_was_counted() -> None:
    table = Table(CONFIG)
    await table.call("b", calls=5)
    await table.call("s", calls=7)
    await table.call("a", "one", 85)
    rows = {row["rule"]: row for row in (await table.rows())["rows"]}
    counted = {name: (row["calls"], row["denied"], row["near"], row["shadowed"]) for name, row in rows.items()}
    assert counted == {"b": (5, 3, 1, 0), "s": (7, 0, 1, 6), "a_one": (85, 0, 5, 0), "u": (0, 0, 0, 0)}


async def test_only_what_has_changed_is_sent_again() -> None:
    table = Table(CONFIG)
    await table.call("b")
    await table.rows()
    seen = table.table.refreshed
    await table.call("b", calls=2)
    told = await table.rows(seen)
    assert (told["reset"], [(row["rule"], row["calls"]) for row in told["rows"]]) == (False, [("b", 3)])
    assert (await table.rows(table.table.refreshed))["rows"] == []
    assert len((await table.rows())["rows"]) == 4, "a new page gets all"


async def test_a_rule_that_its_requests_name_comes_with_its_first_call() -> None:
    table = Table(CONFIG)
    await table.rows()
    await table.call("w", "anybody")
    told = await table.rows(table.table.refreshed)
    assert told["reset"]
    (row,) = (row for row in told["rows"] if row["rule"] == "w_anybody")
    assert (row["calls"], row["limit"], row["place"]) == (1, "named by its requests", "")


async def test_after_a_reload_only_rules_in_force_have_rows_and_those_keep_their_counts() -> None:
    table = Table(CONFIG)
    await table.call("b", calls=4)
    await table.call("a", "one")
    await table.rows()
    table.reload("domain: d\ndescriptors: [{key: b, rate_limit: {unit: day, requests_per_unit: 9}}]")
    told = await table.rows(table.table.refreshed)
    assert (told["reset"], told["total"]) == (True, 1)
    assert [(row["rule"], row["limit"], row["calls"]) for row in told["rows"]] == [("b", "9 per day, fixed window", 4)]


async def test_of_very_many_rules_those_that_deny_most_have_rows_and_then_the_busiest() -> None:
    rules = "\n".join(
        f"  - {{key: k, value: v{i}, rate_limit: {{unit: day, requests_per_unit: 1}}}}" for i in range(2 * MOST_ROWS)
    )
    table = Table(f"domain: d\ndescriptors:\n{rules}")
    assert len((await table.rows())["rows"]) == MOST_ROWS
    for i in range(MOST_ROWS, 2 * MOST_ROWS - 5):
        await table.call("k", f"v{i}", 2)
    await table.call("k", "v7", 1)
    for _ in range(CHOSEN_EVERY):
        told = await table.rows()
    names = {row["rule"] for row in told["rows"]}
    assert told["total"] == 2 * MOST_ROWS
    assert len(names) == MOST_ROWS
    assert {f"k_v{i}" for i in range(MOST_ROWS, 2 * MOST_ROWS - 5)} | {"k_v7"} < names
