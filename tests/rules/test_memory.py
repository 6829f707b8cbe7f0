"""What very many rules take is bounded, each in bytes."""

import tracemalloc
from collections.abc import Iterator

import pytest

from extauth.rules.model import Limit, Unit

MANY = 2000


@pytest.fixture(autouse=True)
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_limits_take_little_memory() -> None:
    before = tracemalloc.get_traced_memory()[0]
    limits = [Limit(10_000 + i, Unit.HOUR) for i in range(MANY)]
    assert (tracemalloc.get_traced_memory()[0] - before) / len(limits) < 250
