"""How long after its arrival a call's deadline is, by its grpc-timeout."""

import pytest

from extauth.transport.h2.request_head import read_head
from tests.support.h2_peer import PATH

HEAD = {":method": "POST", ":scheme": "http", ":path": PATH, "content-type": "application/grpc"}


@pytest.mark.parametrize(
    ("timeout", "after_s"),
    [
        ("1H", 2700),
        ("1M", 45),
        ("1S", 0.75),
        ("20m", 0.015),  # the least timeout of which a quarter is 5 ms
        ("16m", 0.011),
        ("12500u", 0.0075),
        ("10m", 0.006),  # 5 ms would be more than 40 % of it
        ("1000000n", 0.0006),
        ("0S", 0),
        (None, None),
    ],
)
def test_part_of_the_timeout_is_for_the_way(timeout: str | None, after_s: float | None) -> None:
    fields = HEAD if timeout is None else {**HEAD, "grpc-timeout": timeout}
    head = read_head([(name.encode(), value.encode(), False) for name, value in fields.items()])
    assert head.plain
    assert head.deadline_after_s == (None if after_s is None else pytest.approx(after_s))
