"""The space-saving sketch, beside exact counts."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.telemetry.sketch import SpaceSaving

KEYS = st.integers(0, 20).map(lambda i: b"%d" % i)
ADDITIONS = st.lists(st.tuples(KEYS, st.integers(1, 50), st.booleans()), max_size=200)


@given(capacity=st.integers(1, 12), additions=ADDITIONS)
def test_every_count_is_within_its_error(capacity: int, additions: list[tuple[bytes, int, bool]]) -> None:
    sketch = SpaceSaving(capacity)
    exact: Counter[bytes] = Counter()
    for now_s, (key, weight, aside) in enumerate(additions):
        exact[key] += weight
        known = sketch.entries.get(key)
        if known is not None and weight % 2:  # as whoever adds to known keys directly
            known.count += weight
        else:
            entry = sketch.add(key, weight, now_s)
            if aside:
                sketch.set_aside(entry)
        entries = list(sketch)
        assert len(entries) == len(sketch) == min(capacity, len(exact)) == len({entry.key for entry in entries})
        for entry in entries:
            assert entry.count - entry.error <= exact[entry.key] <= entry.count
            assert sketch.find(entry.key) is entry
            assert entry.error <= sketch.floor
        assert sketch.floor * capacity <= exact.total()
        assert all(sketch.find(each) is not None for each, total in exact.items() if total > sketch.floor)


@given(additions=ADDITIONS)
def test_with_room_for_all_it_is_exact(additions: list[tuple[bytes, int, bool]]) -> None:
    sketch = SpaceSaving(21)
    exact: Counter[bytes] = Counter()
    for key, weight, _ in additions:
        exact[key] += weight
        sketch.add(key, weight, 0)
    assert {entry.key: (entry.count, entry.error) for entry in sketch} == {
        key: (weight, 0) for key, weight in exact.items()
    }


def test_the_instants_and_the_note_are_those_of_the_first_addition() -> None:
    sketch = SpaceSaving(2)
    sketch.add(b"a", 1, 10.0, "first")
    entry = sketch.add(b"a", 1, 20.0, "second")
    assert (entry.first_s, entry.last_s, entry.note) == (10.0, 20.0, "first")


def test_a_key_that_is_set_aside_goes_on_counting() -> None:
    sketch = SpaceSaving(2)
    entry = sketch.add(b"a", 3, 1)
    sketch.set_aside(entry)
    assert b"a" not in sketch.entries
    assert sketch.add(b"a", 4, 2) is entry
    assert sketch.entries[b"a"].count == 7


@pytest.mark.parametrize("aside", [False, True])
def test_a_new_key_takes_the_place_of_the_least(aside: bool) -> None:
    sketch = SpaceSaving(2)
    least = sketch.add(b"a", 3, 1)
    sketch.add(b"b", 5, 1)
    if aside:
        sketch.set_aside(least)
    entry = sketch.add(b"c", 1, 1)
    assert (entry.count, entry.error, sketch.floor) == (4, 3, 4)
    assert sketch.find(b"a") is None
