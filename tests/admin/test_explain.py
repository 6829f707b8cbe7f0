"""What `/explain` answers: the rules and limits of a request, what is left out, and what is left, counting nothing."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from extauth.admin.explain import BODY_BYTES, MOST_DESCRIPTORS, Explainer
from extauth.admin.routes import Answer, Audience, Route
from extauth.counters.memory import MemoryCounters
from extauth.errors import StoreError
from extauth.explain.request import read_descriptor
from extauth.limiter.counters import Counters, Group, TakeResult
from extauth.limiter.planner import Planner
from extauth.rls.encode import encode_request
from tests.support.admin import Reply, ServedAdmin, serving
from tests.support.clock import Clock
from tests.support.service import planner_of

CONFIG = """
domain: api
algorithm: gcra
tiers:
  anonymous: {unit: minute, requests_per_unit: 2}
  free: {unit: minute, requests_per_unit: 10, replaces: [{name: anonymous}]}
descriptors:
  - {key: api_key, value: free-tier-key, tier: free}
  - {key: api_key, value: other-tier-key, tier: free}
  - {key: masked_remote_address, tier: anonymous}
"""
REQUEST = ("api_key=free-tier-key", "masked_remote_address=192.0.2.1/32")


@contextmanager
def explaining(
    counters: Counters | None = None, away: str | None = None, planner: Planner | None = None
) -> Iterator[ServedAdmin]:
    counters = MemoryCounters(Clock()) if counters is None else counters
    explainer = Explainer(planner or planner_of(CONFIG), counters, lambda: away)
    routes = {
        "/explain": Route(explainer.answer, Audience.PEOPLE, ("POST",), body_bytes=BODY_BYTES),
        "/healthz": Route(lambda _: Answer(b"ok"), Audience.MACHINES),
    }
    with serving("uvloop", routes) as served:
        yield served
        assert served.errors == []


def post(served: ServedAdmin, body: object, content_type: str = "application/json; charset=utf-8") -> Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return served.get("/explain", "POST", data, **{"Content-Type": content_type})


def asked(*descriptors: str, domain: str = "api") -> dict[str, Any]:
    return {"domain": domain, "descriptors": list(descriptors)}


def test_it_tells_rule_limits_what_is_left_out_and_what_is_left() -> None:
    with explaining() as served:
        got = post(served, asked(*REQUEST))
    told = json.loads(got.body)
    assert (got.status, got.headers["cache-control"]) == (200, "no-store")
    key, address = told["descriptors"]
    assert (key["outcome"], key["rule"], key["tier"]) == ("limited", "f.yaml:8", "free")
    assert key["limits"][0]["in_words"].startswith("10 per minute, gcra")
    assert (address["outcome"], address["rule"]) == ("replaced", "f.yaml:10")
    assert address["limits"][0]["replaced_by"] == [{"descriptor": 1, "limit": "'free'"}]
    assert [(left["remaining"], left["used"]) for left in told["left"]] == [(10, 0)]


def test_it_counts_nothing() -> None:
    counters = MemoryCounters(Clock())
    with explaining(counters) as served:
        first, *others = [json.loads(post(served, asked(*REQUEST)).body) for _ in range(30)]
    assert all(other == first for other in others)


def test_values_of_other_rules_for_a_secret_key_stay_masked() -> None:
    with explaining() as served:
        body = post(served, asked("api_key=a-guess")).body
    told = json.loads(body)["descriptors"][0]
    assert told["outcome"] == "nothing"
    assert "f.yaml:8" in [other["rule"] for other in told["steps"][0]["others"]]
    assert b"tier-key" not in body


def test_an_unknown_domain_is_explained() -> None:
    with explaining() as served:
        got = post(served, asked("a=b", domain="aip"))
    told = json.loads(got.body)
    assert (got.status, told["left"]) == (200, [])
    assert told["descriptors"][0]["why"] == "no config file defines domain 'aip'; did you mean 'api'?"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "the body is no JSON"),
        (b"{", "the body is no JSON"),
        (b"[" * 8000, "the body is no JSON"),
        (b'{"domain": "api", "descriptors": ["a=\\ud800"]}', "the body is no JSON"),
        ([], "has not the form that is needed; send"),
        ({"domain": "api"}, "has not the form that is needed"),
        ({"domain": 1, "descriptors": ["a=b"]}, "has not the form that is needed"),
        (asked(), "at least one descriptor is needed"),
        (asked("a=b", domain=""), "the domain must not be empty"),
        (asked("a"), "'a' is no descriptor"),
        (asked(*["a=b"] * (MOST_DESCRIPTORS + 1)), "21 descriptors are too many"),
    ],
)
def test_a_mistake_is_a_400_that_says_what_is_wrong(body: object, error: str) -> None:
    with explaining() as served:
        got = post(served, body)
    assert got.status == 400
    assert error in json.loads(got.body)["error"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_page_of_another_site_cannot_ask(content_type: str) -> None:
    """Its browser sends these types without asking, and JSON only if the answer to OPTIONS allows it."""
    with explaining() as served:
        assert post(served, asked("a=b"), content_type).status == 415
        assert served.get("/explain", "OPTIONS").status == 405
        assert served.get("/explain", "POST", b"{}", Host="evil.example").status == 421


def test_get_changes_nothing_since_it_is_not_served() -> None:
    with explaining() as served:
        got = served.get("/explain?domain=api")
    assert (got.status, got.headers["allow"]) == (405, "POST")


def test_a_body_may_have_8_kib() -> None:
    def request(size: int) -> bytes:
        return json.dumps(asked("a=b")).encode().ljust(size)

    with explaining() as served:
        assert post(served, request(BODY_BYTES)).status == 200
        assert post(served, request(BODY_BYTES + 1)).status == 413


class Failing(MemoryCounters):
    """A store that answers nothing."""

    async def take(self, groups: Any) -> list[TakeResult]:  # noqa: ANN401
        del groups
        raise StoreError("timeout", "no answer from Redis")


@pytest.mark.parametrize(
    ("counters", "away"), [(None, "no answer from Redis"), (Failing(Clock()), None)], ids=["open", "fails"]
)
def test_without_the_store_the_rules_are_explained_all_the_same(counters: Counters | None, away: str | None) -> None:
    with explaining(counters, away) as served:
        told = json.loads(post(served, asked(*REQUEST)).body)
    assert (told["left"], told["left_unknown"]) == (None, "no answer from Redis")
    assert told["descriptors"][0]["rule"] == "f.yaml:8"


def test_what_is_left_is_what_calls_have_left() -> None:
    counters, planner = MemoryCounters(Clock()), planner_of(CONFIG)
    plan = planner.plan(encode_request("api", tuple(map(read_descriptor, REQUEST))))
    asyncio.run(counters.take([Group(plan, 3)]))
    with explaining(counters) as served:
        (left,) = json.loads(post(served, asked(*REQUEST)).body)["left"]
    assert (left["used"], left["remaining"]) == (3, 7)


def test_the_loop_goes_on_while_a_request_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its 8 KiB take many times as long as a turn of the loop may."""
    planner, planning, free = planner_of(CONFIG), threading.Event(), threading.Event()
    apart, freed = planner.apart, list[bool]()

    def slow() -> Planner:
        planning.set()
        freed.append(free.wait(10))
        return apart()

    monkeypatch.setattr(planner, "apart", slow)
    with explaining(planner=planner) as served:
        asking = threading.Thread(target=post, args=(served, asked(*REQUEST)))
        asking.start()
        try:
            assert planning.wait(20)
            assert served.get("/healthz").body == b"ok"
        finally:
            free.set()
            asking.join()
    assert freed == [True], "the other answer came first"
