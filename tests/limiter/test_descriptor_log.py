"""What answers hold of a request for the access log."""

from hashlib import blake2b, sha256
from typing import Any

import pytest
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import (
    RateLimitDescriptor,
    RateLimitDescriptorEntry,
    RateLimitDescriptorRateLimitOverride,
)
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse
from envoy_data_plane.envoy.type.v3 import RateLimitUnit

from extauth.counters.local import LocalCounters
from extauth.counters.memory import MemoryCounters
from extauth.errors import StoreError
from extauth.limiter.build import LimiterOptions
from extauth.limiter.counters import TakeResult
from extauth.limiter.modes import NO_MODES, GlobalModes
from extauth.rls.protobuf import bytes_field
from extauth.rls.response import ResponseHeaders
from extauth.rules.model import OnStoreFailure
from tests.limiter.service import Service, descriptor, rule
from tests.support.clock import Clock
from tests.support.codes import OK, OVER_LIMIT
from tests.support.service import planner_of

LOGGED = GlobalModes(log_descriptors=True)
RULES = "descriptors:" + rule("api_key", 1) + rule("path", 9, ", metadata: {a: 1}")


def hashed(value: str, secret: str = "") -> str:
    key = blake2b(secret.encode(), digest_size=32).digest() if secret else b""
    return blake2b(sha256(value.encode()).hexdigest().encode(), digest_size=8, key=key).hexdigest()


async def logged(service: Service, *asked: str | RateLimitDescriptor, hits: int = 0) -> dict[str, Any]:
    metadata = (await service.ask(*asked, hits=hits)).dynamic_metadata
    assert metadata is not None
    log: dict[str, Any] = metadata.to_dict()["log"]
    return log


LONG = "x" * 300
CASES: list[tuple[str, list[str | None]]] = [
    ("path=/hello", ["path", "/hello"]),
    ("path=", ["path", ""]),
    (f"path={'x' * 256}", ["path", "x" * 256]),
    (f"path={LONG}", ["path", "x" * 256, hashed(LONG)]),
    (f"path={'é' * 200}", ["path", "é" * 128, hashed("é" * 200)]),
    (f"path=x{'é' * 200}", ["path", "x" + "é" * 127, hashed("x" + "é" * 200)]),
    ("path=\0#", ["path", "\0#", hashed("\0#")]),
    ("api_key=sesame", ["api_key", None, hashed("sesame")]),
    ("X-Auth-Token=sesame", ["X-Auth-Token", None, hashed("sesame")]),
    ("route/auth/*=route/auth/*", ["route/auth/*", "route/auth/*"]),
    ("route/auth/*=route/auth/", ["route/auth/*", None, hashed("route/auth/")]),
    (f"auth{LONG}=auth{LONG}", ["auth" + LONG, "auth" + "x" * 252, hashed("auth" + LONG)]),
    ("\0auth=\0auth", ["\0auth", "\0auth", hashed("\0auth")]),
]


@pytest.mark.parametrize(("asked", "entry"), CASES, ids=range(len(CASES)))  # mutmut cannot name ids with escapes
async def test_an_entry_is_logged_in_clear_or_hashed(asked: str, entry: list[str | None]) -> None:
    assert await logged(Service(RULES, LOGGED), asked) == {"domain": "d", "descriptors": [{"entries": [entry]}]}


async def test_bytes_that_are_not_utf8_are_hashed() -> None:
    planner = planner_of("domain: d\n" + RULES, LimiterOptions(modes=LOGGED))
    entry = bytes_field(1, b"path") + bytes_field(2, b"\xff/a")
    message = bytes_field(1, b"d") + bytes_field(2, bytes_field(1, entry))
    digest = blake2b(sha256(b"\xff/a").hexdigest().encode(), digest_size=8).hexdigest().encode()
    assert b"/a" in planner.plan(message).log
    assert digest in planner.plan(message).log


async def test_hashes_are_keyed_by_the_secret() -> None:
    options = LimiterOptions(modes=LOGGED, key_secret="s")
    planner = planner_of("domain: d\n" + RULES, options)
    message = bytes_field(1, b"d") + bytes_field(2, bytes_field(1, bytes_field(1, b"api_key") + bytes_field(2, b"k")))
    assert hashed("k", "s").encode() in planner.plan(message).log
    assert hashed("k") != hashed("k", "s")


async def test_a_file_chooses_its_secret_keys() -> None:
    log = await logged(Service("secret: [path]\n" + RULES, LOGGED), "path=/a")
    assert log["descriptors"] == [{"entries": [["path", None, hashed("/a")]]}]
    log = await logged(Service("secret: [path]\n" + RULES, LOGGED), "path=path", "token=token")
    assert log["descriptors"] == [{"entries": [["path", None, hashed("path")]]}, {"entries": [["token", "token"]]}]
    log = await logged(Service("secret: []\n" + RULES, LOGGED), "api_key=k")
    assert log["descriptors"] == [{"entries": [["api_key", "k"]]}]


async def test_numbers_of_the_request_and_its_descriptors_are_logged() -> None:
    override = RateLimitDescriptorRateLimitOverride(requests_per_unit=7, unit=RateLimitUnit.HOUR)
    more = descriptor("a=1", "b=2", limit=override, hits_addend=0)
    negative = RateLimitDescriptor(
        entries=[RateLimitDescriptorEntry(key="c", value="3")], hits_addend=4, is_negative_hits=True
    )
    log = await logged(Service(RULES, LOGGED), more, negative, hits=5)
    assert log == {
        "domain": "d",
        "descriptors": [
            {"entries": [["a", "1"], ["b", "2"]], "limit": [7, "hour"], "hits": 0},
            {"entries": [["c", "3"]], "hits": 4, "negative": True},
        ],
        "hits": 5,
    }


async def test_what_is_too_large_is_left_out() -> None:
    log = await logged(Service(RULES, LOGGED), *(f"path={n:0>300}" for n in range(60)))
    assert log == {"domain": "d", "omitted": "more than 16384 bytes"}


async def test_off_answers_are_as_they_were() -> None:
    assert (await Service(RULES).ask("path=/")).dynamic_metadata is None
    on, off = Service(RULES, LOGGED), Service(RULES, NO_MODES)
    for asked in (["api_key=k", "path=/"], ["api_key=k"], ["none=1"]):
        with_log, without = await on.ask(*asked), await off.ask(*asked)
        with_log.dynamic_metadata = None
        assert with_log == without


@pytest.mark.parametrize("headers", [None, ResponseHeaders("L", "R", "S")])
@pytest.mark.parametrize("metadata", [True, False])
async def test_it_stands_beside_other_metadata(headers: ResponseHeaders | None, metadata: bool) -> None:
    service = Service(RULES, GlobalModes(metadata=metadata, log_descriptors=True), headers=headers)
    for code in (OK, OVER_LIMIT):
        answer = await service.ask("api_key=k", "path=/")
        assert int(answer.overall_code) == code
        assert answer.dynamic_metadata is not None
        told = answer.dynamic_metadata.to_dict()
        assert told.pop("log")["descriptors"][1] == {"entries": [["path", "/"]]}
        assert set(told) == ({"domain", "descriptors", "metadata"} if metadata else set())


class Gone(MemoryCounters):
    """A store that never answers."""

    async def take(self, groups: object) -> list[TakeResult]:
        raise StoreError("timeout", f"no answer to {groups}")


@pytest.mark.parametrize("policy", [OnStoreFailure.LOCAL, OnStoreFailure.ALLOW, OnStoreFailure.DENY])
async def test_answers_without_the_store_have_it_too(policy: OnStoreFailure) -> None:
    clock = Clock()
    service = Service(RULES, LOGGED, counters=Gone(clock), on_store_failure=policy, local=LocalCounters(clock))
    for _ in range(2):
        answer = await service.ask("api_key=k")
        assert answer.dynamic_metadata is not None
        told = answer.dynamic_metadata.to_dict()
        assert told["source"] in {"local", "failure_policy"}
        assert told["log"] == {"domain": "d", "descriptors": [{"entries": [["api_key", None, hashed("k")]]}]}


async def test_a_malformed_descriptor_of_an_unknown_domain_is_answered_without_it() -> None:
    planner = planner_of("domain: d\n" + RULES, LimiterOptions(modes=LOGGED))
    plan = planner.plan(bytes_field(1, b"other") + bytes_field(2, b"\x0a\xff"))
    assert plan.log == b""


async def test_calls_of_one_batch_all_carry_it() -> None:
    service = Service(RULES, LOGGED)
    message = bytes_field(1, b"d") + bytes_field(2, bytes_field(1, bytes_field(1, b"path") + bytes_field(2, b"/")))
    plan = service.planner.plan(message)
    assert plan is service.planner.plan(message)
    decided = await service.limiter.decide({plan: 11})
    answers = [
        RateLimitResponse.parse(answer)
        for answer in service.answers.encode(decided.groups[0])
        if isinstance(answer, bytes)
    ]
    assert [int(answer.overall_code) for answer in answers] == [OK] * 9 + [OVER_LIMIT] * 2
    assert [answer.statuses[0].limit_remaining for answer in answers] == [*range(8, -1, -1), 0, 0]
    for answer in answers:
        assert answer.dynamic_metadata is not None
        assert answer.dynamic_metadata.to_dict()["log"]["descriptors"] == [{"entries": [["path", "/"]]}]
