"""Whether the store is said to count."""

import pytest

from extauth.counters.health import StoreHealth
from extauth.errors import StoreError


class Checked:
    """A store's health, whose probe does what the test says, and the changes that were heard of."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.changes: list[str | None] = []
        self.health = StoreHealth(self._probe, lambda error: self.changes.append(str(error) if error else None))

    async def _probe(self) -> None:
        if self.fails is not None:
            raise self.fails


async def test_it_is_unknown_until_it_is_probed() -> None:
    checked = Checked()
    assert str(checked.health) == "not checked yet"
    await checked.health.check()
    assert str(checked.health) == "up"


@pytest.mark.parametrize(
    ("error", "said"),
    [(StoreError("reply", "it is full"), "it is full"), (KeyError("k"), "asking the store failed: KeyError: 'k' in ")],
)
async def test_a_probe_that_fails_makes_it_down(error: Exception, said: str) -> None:
    checked = Checked()
    checked.fails = error
    await checked.health.check()
    assert str(checked.health).startswith(f"down: {said}")


async def test_down_stays_down_until_a_probe_works_and_each_change_is_told_once() -> None:
    checked = Checked()
    await checked.health.check()
    for reason in ("a", "b"):
        checked.health.failed(StoreError("timeout", reason))
    assert [str(checked.health) for _ in range(3)] == ["down: b"] * 3
    checked.fails = StoreError("reply", "c")
    await checked.health.check()
    assert str(checked.health) == "down: c"
    checked.fails = None
    for _ in range(2):
        await checked.health.check()
    assert str(checked.health) == "up"
    assert checked.changes == [None, "a", None]
