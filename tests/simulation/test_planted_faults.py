"""What requests over several shards could do wrong, each planted on purpose: schedules of clusters find it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from random import Random

import pytest

from extauth.counters.redis.cluster.guard import ClusterGuard
from extauth.counters.redis.cluster.runs import WriteRun
from extauth.counters.sharded_request import ShardedRequest
from extauth.counters.shards import Shards
from extauth.limiter.counters import Return
from simulation.faults import cuts_of
from simulation.run import FAULTS_END_S, Schedule, run

SCHEDULES = 8

_give_back, _surplus, _take_up = ClusterGuard.give_back, ShardedRequest.surplus, ShardedRequest.take_up


async def _twice(self: Shards, shard: int, returns: Sequence[Return]) -> None:
    for _ in range(2):
        await _give_back(self, shard, returns)  # type: ignore[arg-type]


async def _never(_self: Shards, _shard: int, _returns: Sequence[Return]) -> None:
    pass


def _all_of_it(self: ShardedRequest, _admitted: int) -> Iterable[tuple[int, Return]]:
    return _surplus(self, 0)


def _whoever_denies(self: ShardedRequest, *what: object) -> None:
    before = self.admitted
    _take_up(self, *what)  # type: ignore[arg-type]
    self.admitted = before


PLANTED = [
    (ClusterGuard, "give_back", _twice, "were given back that were not taken"),
    (ClusterGuard, "give_back", _never, "gave 0 of "),
    (ShardedRequest, "surplus", _all_of_it, "were admitted"),
    (ShardedRequest, "take_up", _whoever_denies, "was admitted without being counted"),
]


@pytest.mark.parametrize(("of", "what", "wrongly", "found"), PLANTED)
def test_what_is_wrong_is_found(
    monkeypatch: pytest.MonkeyPatch, of: type, what: str, wrongly: Callable[..., object], found: str
) -> None:
    monkeypatch.setattr(of, what, wrongly)
    schedules = [replace(Schedule.of_cluster(seed), faults=[]) for seed in range(SCHEDULES)]
    assert any(found in wrong for schedule in schedules for wrong in run(schedule).wrong)


def test_what_is_sent_again_over_a_new_connection_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As takes are, and give-backs must not be."""
    monkeypatch.setattr(WriteRun, "again", True)
    schedules = [
        replace(Schedule.of_cluster(seed), faults=cuts_of(Random(seed), FAULTS_END_S, 200))  # noqa: S311
        for seed in range(SCHEDULES)
    ]
    assert any("were given back that were not taken" in wrong for each in schedules for wrong in run(each).wrong)
