"""The rules in force with what was counted of each, as rows of the live page: those that matter most."""

import asyncio
import json
from collections.abc import Iterator
from heapq import nlargest
from pathlib import PurePath
from typing import Any, Final, NamedTuple

from extauth.errors import NOWHERE, Place
from extauth.limiter.planner import Planner
from extauth.rules.matcher import Matcher
from extauth.rules.model import Limit, Rule
from extauth.rules.rule_index import index_rules
from extauth.telemetry.rule_counters import RuleCounters, RuleTotals

MOST_ROWS: Final = 300
CHOSEN_EVERY: Final = 10  # refreshes, where there are more rules than rows
_FROM_REQUESTS: Final = {"tier": "", "limit": "named by its requests", "place": ""}


class _Row(NamedTuple):
    """A row, and the number of the refresh in which it last changed."""

    totals: RuleTotals
    changed: int


class RuleTable:
    """At most MOST_ROWS rules: those that had no room for the most calls, then those with the most calls.

    A page that has had the rows of one refresh gets those that have changed since. Files are named as they are called
    in the folder `config`.
    """

    def __init__(self, planner: Planner, counters: RuleCounters, config: PurePath) -> None:
        self._config = config
        self._planner = planner
        self._counters = counters
        self._matcher: Matcher | None = None
        self._index: dict[tuple[str, str], Rule] = {}
        self._rows: dict[tuple[str, str], _Row] = {}
        self._reset = 0  # the refresh in which other rules came into the table
        self._chosen = 0
        self.refreshed = 0
        """The number of the latest refresh."""

    def forget(self) -> list[dict[Any, Any]]:
        """Let go of the rules, for others are in force; returns tables to be emptied bit by bit."""
        unused: list[dict[Any, Any]] = [self._index]
        self._matcher, self._index = None, {}
        return unused

    async def refresh(self) -> None:
        """Read the counters, in steps."""
        matcher = self._planner.matcher
        if self._matcher is not matcher:
            unused = self.forget()
            self._index = await asyncio.to_thread(_index_anew, unused, matcher)
            self._matcher, self._rows = matcher, {}
        for _ in self._counters.steps():
            await asyncio.sleep(0)
        number = self.refreshed + 1
        if len(self._rows) < MOST_ROWS or number - self._chosen >= CHOSEN_EVERY:
            await self._choose(number)
        else:
            for key in self._rows:
                self._set(key, self._counters.totals_of(*key), number)
        self.refreshed = number

    async def _choose(self, number: int) -> None:
        self._chosen = number
        called: dict[tuple[str, str], RuleTotals] = {}
        for piece in self._counters.totals():
            # Of request-given names, too; not of those that are in force no more.
            best = nlargest(MOST_ROWS, [*called.values(), *piece], key=lambda totals: (totals.over, totals.calls))
            called = {(totals.domain, totals.rule): totals for totals in best}
            await asyncio.sleep(0)
        for key in self._index:
            if len(called) >= MOST_ROWS:
                break
            if key not in called:
                called[key] = self._counters.totals_of(*key)
        if called.keys() != self._rows.keys():
            self._rows = {}
            self._reset = number
            called = {key: called[key] for key in sorted(called, key=self._in_files)}
        for key, totals in called.items():
            self._set(key, totals, number)

    def _in_files(self, key: tuple[str, str]) -> tuple[bool, Place]:
        """The place of a rule among the others: in the order of the files, and after these what requests have named."""
        rule = self._index.get(key)
        return rule is None, NOWHERE if rule is None else rule.place

    def _set(self, key: tuple[str, str], totals: RuleTotals, number: int) -> None:
        row = self._rows.get(key)
        if row is None or row.totals != totals:
            self._rows[key] = _Row(totals, number)

    def json(self, seen: int) -> Iterator[bytes]:
        """The rows that have changed since the refresh `seen`, in pieces of one row each."""
        reset = seen < self._reset or seen == 0
        total = 0 if self._matcher is None else self._matcher.size
        yield f'{{"reset": {json.dumps(reset)}, "total": {total}, "rows": ['.encode()
        changed = [row for row in self._rows.values() if reset or row.changed > seen]
        for i, row in enumerate(changed):
            yield (b", " if i else b"") + json.dumps(self._view(row.totals)).encode()
        yield b"]}"

    def _view(self, totals: RuleTotals) -> dict[str, Any]:
        rule = self._index.get((totals.domain, totals.rule))
        described = (
            {"tier": "", "limit": "named by its requests", "place": ""} if rule is None else self._describe(rule)
        )
        counts = {"calls": totals.calls, "near": totals.near, "shadowed": totals.shadowed}
        denied = totals.over - totals.shadowed
        return {"domain": totals.domain, "rule": totals.rule, "denied": denied} | counts | described

    def _describe(self, rule: Rule) -> dict[str, str]:
        modes = {"shadow mode": rule.shadow_mode, "quota mode": rule.quota_mode}
        limits = " and ".join(dict.fromkeys(map(_limit, rule.limits)))
        file = PurePath(rule.place.file)
        if file.is_relative_to(self._config):
            file = file.relative_to(self._config) if file != self._config else PurePath(file.name)
        return {
            "tier": rule.tier or "",
            "limit": ", ".join([limits, *(name for name, on in modes.items() if on)]),
            "place": f"{file}:{rule.place.line}" if rule.place.line else str(file),
        }


def _limit(limit: Limit) -> str:
    return str(limit) if limit.unlimited else f"{limit}, {limit.algorithm.replace('_', ' ')}"


def _index_anew(unused: list[dict[Any, Any]], matcher: Matcher) -> dict[tuple[str, str], Rule]:
    for table in unused:
        while table:
            table.popitem()
    return index_rules(matcher.rules, matcher.masking)
