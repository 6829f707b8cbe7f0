"""What an algorithm's object says of one limit."""

import pytest

from extauth.limiter.algorithms import algorithm_of
from extauth.rules.model import Algorithm, Limit, Unit
from tests.support.clock import NOON


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("requests", [1, 7, 10, 1_000_003])
def test_the_first_number_at_which_hits_are_used_is_that_of_a_counter_that_has_taken_them(
    algorithm: Algorithm, requests: int
) -> None:
    """Whoever compares a level with it, as the metrics do, must not miss the level that is just reached."""
    counts = algorithm_of(Limit(requests, Unit.MINUTE, algorithm, count_denied=False))
    for hits in range(min(requests, 20) + 1):
        number = counts.first_number(hits)
        assert number == counts.after(counts.level(None, NOON), hits)[0]
