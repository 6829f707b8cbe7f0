"""`extauth inspect` and `extauth reset` on real stores."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis
from click.testing import CliRunner, Result

from extauth.cli import app
from extauth.counters.redis.counters import RedisCounters
from extauth.explain.request import read_descriptor
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counter_names import SHARDS, ShardOf
from extauth.limiter.counters import Group
from extauth.rls.encode import encode_request
from tests.support.service import planner_of
from tests.support.stores import Store

RUN = CliRunner()
CONFIG = """domain: d
tiers:
  anon: {unit: day, requests_per_unit: 4}
  free: {unit: day, requests_per_unit: 10, algorithm: gcra, replaces: [{name: anon}]}
descriptors:
  - {key: gcra, tier: free}
  - {key: fixed, rate_limit: {unit: year, requests_per_unit: 10}}
  - {key: sliding, rate_limit: {unit: day, requests_per_unit: 10, algorithm: sliding_window}}
  - {key: ip, tier: anon}
  - {key: file, value: "a/*", share_threshold: true, rate_limit: {unit: year, requests_per_unit: 10}}
  - {key: several, rate_limits: [{unit: day, requests_per_unit: 3}, {unit: year, requests_per_unit: 9}]}
  - {key: free, rate_limit: {unlimited: true}}
  - {key: shadow, shadow_mode: true, rate_limit: {unit: year, requests_per_unit: 2}}
"""


class Commands:
    """The commands on one store, with counters of their own."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.shards = SHARDS
        self.prefix = f"cli-{uuid4().hex}"
        self.config = folder / "f.yaml"
        self.config.write_text(CONFIG)
        self.environ = {"EXTAUTH_REDIS_URL": store.url, "EXTAUTH_KEY_PREFIX": self.prefix}

    def run(self, command: str, *arguments: str, typed: str | None = None) -> Result:
        argv = [command, "--config", str(self.config), *arguments]
        return RUN.invoke(app, argv, env=self.environ, input=typed)

    def counters(self, *descriptors: str) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = json.loads(self.run("inspect", "--json", "d", *descriptors).stdout)["counters"]
        return told

    def spend(self, calls: int, *descriptors: str) -> None:
        """Ask as the service does."""
        planner = planner_of(self.config.read_text(), LimiterOptions(key_prefix=self.prefix, shards=self.shards))
        plan = planner.plan(encode_request("d", list(map(read_descriptor, descriptors))))

        async def take() -> None:
            counters = RedisCounters(self.store.url, 5)
            await counters.take([Group(plan, calls)])
            await counters.aclose()

        asyncio.run(take())

    def states(self) -> dict[bytes, bytes]:
        with redis.Redis.from_url(self.store.url) as client:
            return {key: client.get(key) for key in client.scan_iter(f"{self.prefix}:*")}


@pytest.fixture
def commands(any_store: Store, tmp_path: Path) -> Commands:
    return Commands(any_store, tmp_path)


@pytest.mark.parametrize("descriptor", ["gcra=1", "fixed=1", "sliding=1", "file=a/b"])
def test_it_looks_and_takes_nothing(commands: Commands, descriptor: str) -> None:
    (untouched,) = commands.counters(descriptor)
    assert (untouched["used"], untouched["remaining"], untouched["reset_s"]) == (0, 10, 0)
    assert commands.states() == {}
    commands.spend(3, descriptor)
    states = commands.states()
    for _ in range(2):
        (counter,) = commands.counters(descriptor)
        assert (counter["used"], counter["remaining"]) == (3, 7)
        assert 0 < counter["reset_s"] <= 366 * 86_400
    assert commands.states() == states
    assert list(states) == [counter["name"].encode()]


def test_what_is_over(commands: Commands) -> None:
    commands.spend(12, "gcra=1")
    commands.spend(12, "fixed=1")  # which counts denied hits, too
    commands.spend(5, "shadow=1")
    told = [(counter["used"], counter["remaining"]) for counter in commands.counters("gcra=1", "fixed=1", "shadow=1")]
    assert told == [(10, 0), (12, 0), (5, 0)]


def test_it_is_told_in_words(commands: Commands) -> None:
    commands.spend(3, "gcra=1")
    result = commands.run("inspect", "d", "gcra=1", "ip=1", "fixed=1")
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == "free: 10 per day, gcra, burst 10; a denied request consumes nothing"
    assert lines[1].startswith("  3 used, 7 left, whole again in 25")
    assert lines[1].endswith(commands.counters("gcra=1")[0]["name"])
    assert lines[3].startswith("  0 used, 10 left, nothing is used; ")
    assert len(lines) == 4  # the anonymous limit is replaced


def test_a_state_in_other_terms_is_put_into_the_limits(commands: Commands) -> None:
    commands.spend(3, "gcra=1")
    commands.config.write_text(CONFIG.replace("requests_per_unit: 10, algorithm: gcra", "requests_per_unit: 20"))
    (counter,) = commands.counters("gcra=1")
    assert (counter["limit"]["algorithm"], counter["used"], counter["remaining"]) == ("fixed_window", 3, 17)


@pytest.mark.parametrize("descriptor", ["free=1", "nothing=1"])
@pytest.mark.parametrize("command", ["inspect", "reset"])
def test_what_counts_nothing(commands: Commands, command: str, descriptor: str) -> None:
    result = commands.run(command, "d", descriptor)
    assert (result.exit_code, result.stdout) == (1, "the request counts nothing\n")


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("shards", [1, 48, 16_384])
def test_counters_are_found_whatever_shards_they_are_spread_over(
    commands: Commands, shards: int, together: bool
) -> None:
    commands.shards = shards
    commands.environ["EXTAUTH_SHARDS"] = str(shards)
    commands.config.write_text(CONFIG.replace("domain: d", f"domain: d\ntogether: {str(together).lower()}"))
    request = ("several=1", "gcra=1", "fixed=1", "shadow=1", "sliding=1")
    commands.spend(2, *request)
    counters = commands.counters(*request)
    assert [counter["used"] for counter in counters] == [2] * 6
    names = [counter["name"] for counter in counters]
    assert commands.states().keys() == {name.encode() for name in names}
    on = {ShardOf(shards)(name.encode()) for name in names}
    assert len(on) == 1 if together or shards == 1 else len(on) > 1
    explained = commands.run("explain", "d", *request).stdout
    assert all(name in explained for name in names)
    assert json.loads(commands.run("reset", "--yes", "--json", "d", *request).stdout)["deleted"] == 6
    assert commands.states() == {}


def test_reset_deletes_exactly_the_counters_of_the_request(commands: Commands) -> None:
    commands.spend(2, "several=1", "gcra=1", "ip=1")
    commands.spend(2, "several=2")
    commands.spend(2, "ip=1")  # alone, so that nothing replaces it
    before = commands.states()
    result = commands.run("reset", "--yes", "--json", "d", "several=1", "gcra=1", "ip=1")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["deleted"]) == (0, 3)
    assert [counter["used"] for counter in told["before"]] == [2, 2, 2]
    assert [counter["used"] for counter in told["after"]] == [0, 0, 0]
    gone = {counter["name"].encode() for counter in told["before"]}
    assert commands.states() == {name: state for name, state in before.items() if name not in gone}
    assert len(before) == 6


def test_reset_asks_first(commands: Commands) -> None:
    commands.spend(3, "fixed=1")
    refused = commands.run("reset", "d", "fixed=1", typed="n\n")
    assert refused.exit_code == 1
    assert "nothing was deleted" in refused.stdout
    unanswered = commands.run("reset", "d", "fixed=1", typed="")
    assert unanswered.exit_code == 2
    assert "nothing was deleted; answer y, or pass --yes" in unanswered.stderr
    assert commands.counters("fixed=1")[0]["used"] == 3
    agreed = commands.run("reset", "d", "fixed=1", typed="y\n")
    assert agreed.exit_code == 0
    assert "Delete it? [y/N]" in agreed.stderr
    assert agreed.stdout.index("3 used, 7 left") < agreed.stdout.index("deleted 1 counter\n")
    assert commands.counters("fixed=1")[0]["used"] == 0


def test_reset_asks_nothing_where_nothing_is_used(commands: Commands) -> None:
    result = commands.run("reset", "d", "fixed=1", "gcra=1", typed="")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "nothing is used, so there is nothing to delete"
    told = json.loads(commands.run("reset", "--json", "d", "fixed=1", typed="").stdout)
    assert (told["deleted"], told["before"]) == (0, told["after"])
    assert [counter["remaining"] for counter in told["after"]] == [10]


def test_all_values_of_a_wildcard_may_share_one(commands: Commands) -> None:
    commands.spend(3, "file=a/b")
    assert commands.counters("file=a/c")[0]["used"] == 3
    assert commands.run("reset", "--yes", "d", "file=a/d").exit_code == 0
    assert commands.states() == {}


@pytest.mark.parametrize("command", ["inspect", "reset"])
def test_a_store_that_is_not_there(command: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(CONFIG)
    environ = {"EXTAUTH_REDIS_URL": f"unix://user:secret@{tmp_path}/none"}
    argv = [command, "--config", str(tmp_path), "--json", "d", "fixed=1"]
    result = RUN.invoke(app, argv, env=environ)
    assert result.exit_code == 2
    assert "no connection to Redis" in json.loads(result.stdout)["error"]
    assert result.stderr.count("\n") == 1
    assert "secret" not in result.output


def test_a_setting_that_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(CONFIG)
    argv = ["inspect", "--config", str(tmp_path), "d", "fixed=1"]
    result = RUN.invoke(app, argv, env={"EXTAUTH_KEY_PREFIX": "a b"})
    assert result.exit_code == 2
    assert "EXTAUTH_KEY_PREFIX='a b' is not allowed" in result.stderr


@pytest.mark.parametrize("command", ["inspect", "reset"])
def test_counters_in_another_process_cannot_be_asked(tmp_path: Path, command: str) -> None:
    (tmp_path / "f.yaml").write_text(CONFIG)
    argv = [command, "--config", str(tmp_path), "--json", "d", "fixed=1"]
    result = RUN.invoke(app, argv, env={"EXTAUTH_REDIS_URL": "memory:"})
    assert result.exit_code == 2
    assert "keeps the counters inside the process of `extauth serve`" in json.loads(result.stdout)["error"]
