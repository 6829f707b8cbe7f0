"""Requests are replayed in the order in which they began."""

from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from extauth.replay.order import MAX_HELD, in_order


@given(st.lists(st.lists(st.integers(0, 50)), min_size=1, max_size=4))
def test_several_logs_become_one(logs: list[list[int]]) -> None:
    items = [[(time, (number, place)) for place, time in enumerate(log)] for number, log in enumerate(logs)]
    # Of equal times, the log that was named first, and the line that stands first.
    assert list(in_order(items)) == sorted(item for log in items for item in log)


def test_long_logs_are_put_in_order_within_what_is_held() -> None:
    number = MAX_HELD * 3
    shuffled = [(place ^ 1023, place) for place in range(number - number % 1024)]
    assert [time for time, _ in in_order([shuffled])] == list(range(len(shuffled)))


def test_no_more_is_read_ahead_than_is_held() -> None:
    read = [0, 0]

    def endless(log: int) -> Iterator[tuple[int]]:
        while True:
            read[log] += 1
            yield (read[log],)

    items = in_order([endless(0), endless(1)])
    assert [next(items) for _ in range(3)] == [(1,), (1,), (2,)]
    assert sum(read) <= MAX_HELD
