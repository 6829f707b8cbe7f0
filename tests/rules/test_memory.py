"""What very many rules take is bounded, each in bytes."""

import gc
import tracemalloc
from collections.abc import Iterator

import pytest

from extauth.rules.matcher import Matcher
from extauth.rules.model import Domain, Kind, Limit, Rule, RuleSet, Unit

MANY = 2000


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    gc.collect()  # tuples that Python keeps to use them again would not be counted
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_limits_take_little_memory() -> None:
    before = tracemalloc.get_traced_memory()[0]
    limits = [Limit(10_000 + i, Unit.HOUR) for i in range(MANY)]
    assert (tracemalloc.get_traced_memory()[0] - before) / len(limits) < 200


def test_what_finds_rules_takes_little_memory() -> None:
    limits = (Limit(10, Unit.HOUR),)
    rules = tuple([Rule("api_key", kind=Kind.VALUE, value=f"key-{i:08d}", limits=limits) for i in range(MANY)])
    rule_set = RuleSet({"d": Domain("d", rules=rules)})
    before = tracemalloc.get_traced_memory()[0]
    matcher = Matcher(rule_set)
    assert (tracemalloc.get_traced_memory()[0] - before) / matcher.size < 365
