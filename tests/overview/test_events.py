"""What the events of `/live` tell of a running service, and that EXTAUTH_PAGE=off leaves none of it."""

import http.client
import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from extauth.explain.request import read_descriptor
from extauth.rls.encode import encode_request
from tests.support.process import Served, served_with
from tests.support.stores import Store

CONFIG = """
domain: api
tiers:
  free: {unit: day, requests_per_unit: 5}
descriptors:
  - {key: api_key, value: a-key-nobody-may-see, tier: free}
  - {key: quiet, rate_limit: {unit: day, requests_per_unit: 5}}
"""
KEY = "api_key=a-key-nobody-may-see"


@pytest.fixture
def serve(own_store: Store) -> Iterator[Callable[..., Served]]:
    with served_with(own_store, CONFIG) as start:
        yield start


class Events:
    """The events of a stream."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response

    def next(self) -> dict[str, Any]:
        while True:
            line = self._response.readline()
            assert line, "the stream has ended"
            if line.startswith(b"data: "):
                event: dict[str, Any] = json.loads(line[6:])
                return event

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event for which it holds; there is one a second."""
        for _ in range(30):
            event = self.next()
            if holds(event):
                return event
        raise AssertionError(event)

    def rest(self) -> bytes:
        return self._response.read()


@contextmanager
def events(served: Served) -> Iterator[Events]:
    connection = http.client.HTTPConnection("127.0.0.1", served.admin_port, timeout=20)
    try:
        connection.request("GET", "/live")
        response = connection.getresponse()
        assert (response.status, response.getheader("content-type")) == (200, "text/event-stream; charset=utf-8")
        yield Events(response)
    finally:
        connection.close()


def call(served: Served, descriptor: str, calls: int) -> None:
    with grpc.insecure_channel(served.address) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
        )
        for _ in range(calls):
            ask(encode_request("api", [read_descriptor(descriptor)]))


def test_an_event_tells_to_the_unit_what_was_asked_and_no_secret(serve: Callable[..., Served]) -> None:
    served = serve(EXTAUTH_ADVERTISE="replica-7.internal:8081")
    served.until_it_answers()
    call(served, KEY, 8)
    call(served, "quiet=x", 2)
    with events(served) as stream:
        rows: dict[str, Any] = {}
        seconds: list[tuple[str, int, int]] = []

        def all_there(event: dict[str, Any]) -> bool:
            rows.update({row["rule"]: row for row in event["rules"]["rows"]})
            seconds.extend(
                (each["tier"], sum(each["allowed"]), sum(each["denied"])) for each in event["history"]["tiers"]
            )
            return len(event["top"]["busiest"]) == 2 and sum(allowed for _, allowed, _ in seconds) == 7

        event = stream.until(all_there)
    assert "nobody-may-see" not in json.dumps(event)
    (name,) = (name for name in rows if name.startswith("api_key_"))
    assert [rows[name][each] for each in ("calls", "denied", "tier", "limit")] == [
        8,
        3,
        "free",
        "5 per day, fixed window",
    ]
    assert rows[name]["place"] == "api.yaml:6"
    assert (rows["quiet"]["calls"], rows["quiet"]["denied"]) == (2, 0)
    (denied,) = event["top"]["denied"]
    assert (denied["rule"], denied["calls"]) == (name, 3)
    assert (event["service"]["replica"], event["service"]["status"]) == ("replica-7.internal:8081", "ready")
    assert (event["store"]["text"], event["store"]["breaker"], event["store"]["policy"]) == ("up", "closed", "local")
    assert event["config"]["ok"]
    assert (event["replicas"]["agree"], event["replicas"]["cut_off"]) == (True, False)
    assert set(event["guards"].values()) == set(event["shed"].values()) == {0}


def test_a_broken_reload_is_told_until_it_is_mended(serve: Callable[..., Served]) -> None:
    served = serve()
    served.until_it_answers()
    config = served.folder / "api.yaml"
    with events(served) as stream:
        loaded = stream.until(lambda event: event["config"]["ok"])["config"]["loaded_s"]
        config.write_text(CONFIG + "  - {key: a, tier: none-such}\n")
        broken = stream.until(lambda event: not event["config"]["ok"])["config"]
        assert (broken["problem_count"], broken["loaded_s"], broken["retained"]) == (1, loaded, ["api"])
        assert "api.yaml:8" in broken["problems"][0]
        config.write_text(CONFIG + "  - {key: a, tier: free}\n")
        mended = stream.until(lambda event: event["config"]["ok"])["config"]
        assert (mended["problems"], mended["rules"]) == ([], 3)
        assert mended["loaded_s"] > loaded


def test_a_store_that_is_away_is_told_with_its_effect(serve: Callable[..., Served], own_store: Store) -> None:
    served = serve()
    served.until_it_answers()
    with events(served) as stream:
        stream.until(lambda event: event["store"]["breaker"] == "closed")
        own_store.stop()
        away = stream.until(
            lambda event: event["store"]["breaker"] != "closed" and event["store"]["away_s"] is not None
        )
        assert away["store"]["text"].startswith("down: ")
        call(served, "quiet=x", 3)
        told = stream.until(lambda event: event["store"]["uncounted"] == 3)
        assert told["without_store"]["local"] == 3
        own_store.start()
        stream.until(lambda event: event["store"]["breaker"] == "closed" and event["store"]["away_s"] is None)


def test_replicas_whose_rules_differ_are_told(serve: Callable[..., Served]) -> None:
    first, second = serve(), serve()
    for served in (first, second):
        served.until_it_answers()
    (second.folder / "api.yaml").write_text(CONFIG.replace("requests_per_unit: 5}}", "requests_per_unit: 6}}"))
    with events(first) as stream:
        told = stream.until(lambda event: event["replicas"]["agree"] is False)["replicas"]
    assert [each["own"] for each in told["list"]] == [True, False]
    assert len({each["rules"] for each in told["list"]}) == 2


def test_replicas_that_reload_together_are_never_said_to_differ(serve: Callable[..., Served]) -> None:
    both = serve(), serve()
    for served in both:
        served.until_it_answers()
    with events(both[0]) as stream:
        before = stream.until(lambda event: len(event["replicas"]["list"]) == 2)
        for served in both:
            (served.folder / "api.yaml").write_text(CONFIG.replace("requests_per_unit: 5}", "requests_per_unit: 6}"))
        said: list[bool | None] = []

        def all_have_others(event: dict[str, Any]) -> bool:
            said.append(event["replicas"]["agree"])
            rules = {each["rules"] for each in event["replicas"]["list"]}
            return len(rules) == 1 and before["config"]["digest"] not in rules

        stream.until(all_have_others)
    assert False not in said
    assert said[-1] is True


def test_a_service_that_ends_ends_its_streams_whole(serve: Callable[..., Served]) -> None:
    served = serve()
    served.until_it_answers()
    with events(served) as stream:
        stream.next()
        served.process.send_signal(signal.SIGTERM)
        stream.rest()  # raises where the last chunk is missing
        assert served.process.wait(20) == 0


def test_the_page_can_be_switched_off(serve: Callable[..., Served]) -> None:
    served = serve(EXTAUTH_PAGE="off")
    served.until_ready()
    assert served.get("/") == (200, "extauth: /metrics /healthz /readyz /rules /top\n")
    assert [served.get(path)[0] for path in ("/live", "/explain")] == [404, 404]
    assert [served.get(path)[0] for path in ("/rules", "/metrics", "/healthz", "/readyz")] == [200] * 4
