"""Counters' names in the store."""

import re
from collections import Counter

import pytest
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitRequest
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from extauth.limiter.counter_names import SHARDS, SLOTS, KeyNamer, ShardOf, tags
from tests.limiter.service import descriptor
from tests.support.service import planner_of


def test_a_name_shows_prefix_domain_and_keys_but_no_value() -> None:
    name = KeyNamer("extauth")("api", [("api_key", "free-tier-key"), ("path", "")])
    assert re.fullmatch(rb"extauth:\{\w{3}\}:3:api,7:api_key=[\w-]{22},4:path=[\w-]{22}", name)
    assert b"free" not in name


@pytest.mark.parametrize("shards", [1, 2, 3, 16, 48, 64, 1000, SLOTS])
def test_tags_share_the_slots_of_a_cluster_out_evenly(shards: int) -> None:
    slots = [key_slot(tag.encode()) for tag in tags(shards)]
    assert slots == [i * REDIS_CLUSTER_HASH_SLOTS // shards for i in range(shards)]


def test_tags_stay_what_they_are() -> None:
    """They are golden: another one is a fresh allowance for the callers whose counters it names."""
    assert " ".join(tags(16)) == "la2 dlj 5nw qbw lp0 l0x qw5 qsu fjl ng4 joy jk9 nrv nv6 bwc sq3"
    assert tags(1) == ("la2",)
    assert " ".join(tags(5)) == "la2 0UG 2MH 4eY 5M5"
    assert tags(32)[::2] == tags(16)


NINE = [("a", "b")] * 9


@pytest.mark.parametrize(
    ("namer", "entries", "shared", "name"),
    [
        (KeyNamer("x"), [("api_key", "free-tier-key")], [], b"x:{1Z7}:3:api,7:api_key=VplfxeijoK0CDW86F4SsdQ:60"),
        (KeyNamer("x", "s"), [("api_key", "free-tier-key")], [], b"x:{4SG}:3:api,7:api_key=Ii08UqsZ7Pd_5sHj65OCeQ:60"),
        (
            KeyNamer("x"),
            [("a", "b"), ("c", "")],
            [],
            b"x:{1x3}:3:api,1:a=lhcrTFM3LNEPrdyCG_4DGA,1:c=yuZpQdnvvUBOTYh1jqZ2cA:60",
        ),
        (KeyNamer("x"), [("a", "b1")], ["b*"], b"x:{4BE}:3:api,1:a~0TnRA1J-5NnvSnbGZpjptg:60"),
        (KeyNamer("x"), NINE, [], b"x:{1Z7}:3:api,#s5sws_xBais64eRVLxW-nA:60"),
        (KeyNamer("x"), NINE, ["b*"] * 9, b"x:{4SG}:3:api,#zZw2CCrBuvm0M1o_BjbpFg:60"),
        (KeyNamer("x"), [("a\0", "b"), *NINE], [], b"x:{1K5}:3:api,#Ou6MMyMHafQpgPxyoOehDg:60"),
    ],
)
def test_names_stay_what_they_are(
    namer: KeyNamer, entries: list[tuple[str, str]], shared: list[str], name: bytes
) -> None:
    """They are golden as the tags are: a counter by another name begins anew."""
    assert namer("api", entries, shared, "60") == name


@pytest.mark.parametrize("shards", [1, 16, 100])
def test_a_name_says_on_which_shard_its_counter_lies(shards: int) -> None:
    namer, shard_of = KeyNamer("x:y", shards=shards), ShardOf(shards)
    on = Counter(shard_of(namer("d", [("a", str(value))], (), "60")) for value in range(100 * shards))
    assert on.keys() == set(range(shards))
    for value in map(str, range(100)):
        name = namer("d", [("a", value)])
        assert key_slot(name) == shard_of(name) * SLOTS // shards


@pytest.mark.parametrize("secret", ["", "s"])
def test_counters_lie_evenly_on_the_tags(secret: str) -> None:
    namer = KeyNamer("x", secret)
    slots = Counter(key_slot(namer("api", [("api_key", str(caller))])) for caller in range(1000 * SHARDS))
    assert len(slots) == SHARDS
    assert all(850 < callers < 1150 for callers in slots.values()), "four standard deviations from 1000, and more"


def test_all_counters_of_a_descriptor_lie_in_one_slot() -> None:
    namer = KeyNamer("x")
    for value in map(str, range(50)):
        counters = {namer("d", [("a", value)], (), which) for which in ("", "60", "3600", "override-60")}
        assert len(counters) == 4
        assert len(set(map(key_slot, counters))) == 1


def test_a_secret_keys_the_hash() -> None:
    plain, keyed, other = (KeyNamer("x", secret).fingerprint("free-tier-key") for secret in ("", "s", "t"))
    assert len({plain, keyed, other}) == 3
    assert {len(plain), len(keyed)} == {22}
    assert KeyNamer("y", "s").fingerprint("free-tier-key") == keyed, "the same in every replica"
    assert KeyNamer("y", "s" * 1000).fingerprint("v"), "of any length"


def test_names_are_bounded() -> None:
    namer = KeyNamer("x")
    for entries in ([("k" * 62_000, "v")], [("k", "v")] * 100, [("k" * 500, "v" * 500)] * 100):
        assert len(namer("d", entries)) < 600
        assert namer("d", entries) == namer("d", tuple(entries), [None] * len(entries))


def test_names_with_shared_patterns_never_meet_others() -> None:
    namer = KeyNamer("x")
    for entries in (1, 9):
        own, shared, other = [("a", "b*")] * entries, ["b*"] * entries, ["c*"] * entries
        names = {namer("d", own), namer("d", own, shared), namer("d", own, other), namer("d", own, [None] * entries)}
        assert len(names) == 3
        assert namer("d", own, shared) == namer("d", [("a", "bx")] * entries, shared)


def test_names_never_meet() -> None:
    namer = KeyNamer("x")
    descriptors = [
        ("d", [("a", "b"), ("c", "d")]),
        ("d", [("a", "b,1:c=d")]),
        ("d", [("a_b", "")]),
        ("d", [("a", "_b")]),
        ("d", [("a", "b")]),
        ("d,1:a", [("b", "")]),
        ("d", [("a", "")]),
        ("d", []),
        ("", [("d", "")]),
        ("d", [("a", "\udcff")]),
        ("d:60", []),
        ("d:60", [("a", "b")]),
        ("d", [("a:60", "b")]),
        *[("d", [("a", "b")] * entries) for entries in (8, 9, 10)],
        ("d", [("a", "b")] * 8 + [("a\0b", "")]),
        ("d", [("a", "b")] * 8 + [("a", "b\0")]),
        ("d", [("a", "b")] * 8 + [("a", "\udcff")]),
        *[("d", [("a" * length, value)]) for length in (63, 64, 65, 470, 490, 62_000) for value in ("", "b")],
    ]
    names = {namer(domain, entries, (), which) for domain, entries in descriptors for which in ("", "60", "60.2")}
    assert len(names) == 3 * len(descriptors)


def test_a_key_that_is_no_utf8_is_named_by_its_own_bytes() -> None:
    assert b"1:\xff=" in KeyNamer("x")("d", [("\udcff", "value")])


def test_the_counters_of_one_rule_end_in_their_periods() -> None:
    """That is golden, too; of several limits of one period the later ones have their place beside it."""
    limits = ", ".join(f"{{unit: {unit}, requests_per_unit: 9}}" for unit in ("second", "minute", "minute", "hour"))
    planner = planner_of(f"domain: d\ndescriptors: [{{key: a, rate_limits: [{limits}]}}]")
    names = planner.plan(bytes(RateLimitRequest(domain="d", descriptors=[descriptor("a=x")]))).names
    assert [name.rpartition(b":")[2] for name in names] == [b"1", b"60", b"60.2", b"3600"]
