"""Requests through Envoy, as clients send them."""

import contextlib
import http.client
import json
import sys
from urllib.parse import urlsplit

import pytest

from tests.e2e.edge import BULK, FREE, PREMIUM, Edge


@pytest.mark.parametrize(("key", "limit"), [(None, 2), (FREE, 10), (PREMIUM, 20)])
async def test_a_tier_admits_its_limit(edge: Edge, key: str | None, limit: int) -> None:
    assert await edge.statuses(limit + 1, key=key) == [200] * limit + [429]


@pytest.mark.parametrize(("key", "tier", "limit"), [(None, "anonymous", 2), (FREE, "free", 10)])
async def test_an_admitted_request_tells_client_and_api_what_applies(
    edge: Edge, key: str | None, tier: str, limit: int
) -> None:
    first, second = await edge.get_many(2, key=key)

    assert json.loads(first.text)["headers"]["x-ratelimit-tier"] == tier
    assert first.headers["x-ratelimit-limit"].startswith(f"{limit}, {limit};w=86400")
    assert [answer.headers["x-ratelimit-remaining"] for answer in (first, second)] == [str(limit - 1), str(limit - 2)]
    # Until the bucket is full again: one request's refill after the first, rounded up.
    assert first.headers["x-ratelimit-reset"] == str(86400 // limit)


async def test_a_denied_request_says_why_and_when_to_come_back(edge: Edge) -> None:
    denied = (await edge.get_many(11, key=FREE))[-1]

    assert denied.status == 429
    assert denied.headers["content-type"] == "application/json"
    assert denied.headers["x-envoy-ratelimited"] == "true"
    assert denied.headers["x-ratelimit-remaining"] == "0"
    body = json.loads(denied.text)
    assert body.keys() == {"error", "message", "tier", "limit", "retry_after_s"}
    assert (body["error"], body["tier"], body["limit"]) == ("rate_limited", "free", "10 per day")
    assert body["message"]
    assert denied.headers["retry-after"] == str(body["retry_after_s"])
    assert 86400 / 10 - 60 < body["retry_after_s"] <= 86400 / 10
    assert FREE not in denied.text


async def test_invented_keys_share_the_allowance_of_their_address(edge: Edge) -> None:
    answers = [await edge.get(key=key) for key in ("invented-1", "invented-2", "invented-3")]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert json.loads(answers[0].text)["headers"]["x-ratelimit-tier"] == "anonymous"
    assert await edge.statuses(1) == [429]  # and so do requests without one


@pytest.mark.parametrize("key", ["", f"{FREE},{PREMIUM}", FREE.upper(), f"{FREE}x"])
async def test_what_is_not_quite_a_key_is_counted_by_address(edge: Edge, key: str) -> None:
    assert await edge.statuses(3, key=key) == [200, 200, 429]


@pytest.mark.parametrize(
    ("headers", "seen", "tier"),
    [
        (["X-API-Key: free-tier-key", "X-API-Key: premium-tier-key"], FREE, "free"),
        (["x-api-key: premium-tier-key", "X-Api-KEY: free-tier-key"], PREMIUM, "premium"),
        (["x-api-key: invented", "x-api-key: premium-tier-key", "x-api-key: free-tier-key"], "invented", "anonymous"),
        (["x-api-key:", "x-api-key: premium-tier-key"], "", "anonymous"),
        (["x-api-key: premium-tier-key", "x-api-key:"], PREMIUM, "premium"),
        (["x-api-key: invented,premium-tier-key", "x-api-key: free-tier-key"], f"invented,{PREMIUM}", "anonymous"),
        (["x-api-key: \xff%REQ(host)%", "x-api-key: premium-tier-key"], "\udcff%REQ(host)%", "anonymous"),
        (["x-api-key: "], "", "anonymous"),
        ([], None, "anonymous"),
    ],
)
async def test_the_api_sees_exactly_the_key_that_was_counted(
    edge: Edge, headers: list[str], seen: str | None, tier: str
) -> None:
    url = urlsplit(edge.stack.url)
    with contextlib.closing(http.client.HTTPConnection(url.netloc, timeout=10)) as connection:
        connection.putrequest("GET", "/")
        for name, _, value in (header.partition(":") for header in headers):
            connection.putheader(name, value.strip().encode("latin-1"))
        connection.endheaders()
        response = connection.getresponse()
        echoed = json.loads(response.read())["headers"]
    assert response.status == 200
    assert (echoed.get("x-api-key"), echoed["x-ratelimit-tier"]) == (seen, tier)


async def test_a_key_that_is_no_text_is_counted_by_address(edge: Edge) -> None:
    """Bytes that are no UTF-8 must not make the call to extauth fail: failed calls are let through."""
    url = urlsplit(edge.stack.url)
    with contextlib.closing(http.client.HTTPConnection(url.netloc, timeout=10)) as connection:
        statuses = []
        for key in (b"\xff", b"\xc3(", b"free-tier-key\xff"):
            connection.request("GET", "/", headers={"x-api-key": key})
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
    assert statuses == [200, 200, 429]


async def test_a_known_key_leaves_the_allowance_of_its_address_alone(edge: Edge) -> None:
    assert await edge.statuses(11, key=FREE) == [200] * 10 + [429]
    assert await edge.statuses(3) == [200, 200, 429]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers on all of 127.0.0.0/8")
async def test_each_address_has_an_allowance_of_its_own(edge: Edge) -> None:
    for source in ("127.0.0.2", "127.0.0.3"):
        answers = await edge.get_many(3, source=source)
        assert [answer.status for answer in answers] == [200, 200, 429]


async def test_a_forged_address_changes_nothing(edge: Edge) -> None:
    forged = [
        await edge.get(headers={header: f"203.0.113.{n}"})
        for n, header in enumerate(("x-forwarded-for", "x-real-ip", "x-envoy-external-address", "forwarded"))
    ]
    assert [answer.status for answer in forged] == [200, 200, 429, 429]


@pytest.mark.parametrize("name", ["x-ratelimit-tier", "X-RateLimit-Tier"])
async def test_a_forged_tier_does_not_reach_the_api(edge: Edge, name: str) -> None:
    limited = await edge.get(headers={name: "premium"})
    assert json.loads(limited.text)["headers"]["x-ratelimit-tier"] == "anonymous"

    unlimited = await edge.get("/healthz", headers={name: "premium"})
    assert unlimited.status == 200


async def test_health_probes_are_not_counted(edge: Edge) -> None:
    probes = await edge.get_many(30, "/healthz")

    assert {probe.status for probe in probes} == {200}
    assert not any(name.lower().startswith("x-ratelimit") for probe in probes for name in probe.headers)
    assert await edge.statuses(3) == [200, 200, 429]


async def test_no_other_spelling_of_a_path_escapes_its_limit(edge: Edge) -> None:
    for path in ("/healthz/", "/healthz/x", "/healthz;x", "/HEALTHZ"):
        limited = await edge.get(path, key=FREE)
        assert "x-ratelimit-limit" in limited.headers, path


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/hello", "/hello"),
        ("/orders", "/orders"),
        ("/orders/7?dry=1", "/orders"),
        ("/search?q=x", "/search"),
        ("/", "/"),
        ("/hello/x", "/"),
        ("/orders-7", "/"),
        ("/HELLO", "/"),
        # Other spellings of a route's path.
        ("//search", "/search"),
        ("/x/../hello", "/hello"),
        ("/%68ello", "/hello"),
    ],
)
async def test_a_request_is_limited_and_labelled_by_its_route(edge: Edge, path: str, route: str) -> None:
    async def counted() -> float:
        return sum(await edge.metric("http_requests_total", tier="anonymous", path=route))

    before = await counted()
    with contextlib.closing(http.client.HTTPConnection(urlsplit(edge.stack.url).netloc, timeout=10)) as connection:
        answers = []
        for _ in range(3):
            connection.request("GET", path)
            response = connection.getresponse()
            answers.append((response.status, json.loads(response.read()).get("route")))
    assert answers == [(200, route), (200, route), (429, None)], "the API's routes are Envoy's"
    assert await counted() - before == 3


async def test_two_replicas_keep_one_truth(edge: Edge) -> None:
    before = await edge.metric("http_requests_total")
    statuses = await edge.statuses(200, key=BULK, at_once=200)
    after = await edge.metric("http_requests_total")

    assert (statuses.count(200), statuses.count(429)) == (100, 100)
    shares = [now - then for now, then in zip(after, before, strict=True)]
    assert sum(shares) == 200
    assert all(share > 0 for share in shares)


async def test_the_replicas_metrics_add_up_to_what_was_sent(edge: Edge) -> None:
    sent = {("free", "allowed"): 10, ("free", "denied"): 3, ("anonymous", "allowed"): 2, ("anonymous", "denied"): 1}

    async def counted() -> dict[tuple[str, str], float]:
        return {
            (tier, status): sum(await edge.metric("http_requests_total", tier=tier, status=status, path="/"))
            for tier, status in sent
        }

    before = await counted()
    await edge.get_many(13, "/some/where?q=1", key=FREE)
    await edge.get_many(3)
    after = await counted()

    assert {labels: after[labels] - before[labels] for labels in sent} == sent


async def test_a_flushed_script_cache_is_filled_within_the_same_call(edge: Edge) -> None:
    assert await edge.statuses(1) == [200]
    with edge.redis() as store:
        store.script_flush()
    assert await edge.statuses(2) == [200, 429]
    assert await edge.metric("extauth_store_errors_total") == [0, 0]


async def test_keys_stand_in_no_log_no_counter_and_no_admin_page(edge: Edge) -> None:
    for key in (FREE, "sk-invented-0123456789"):
        await edge.get_many(11, f"/?api_key={key}", key=key)
    await edge.get("/last")

    async def access_log_is_written() -> bool:
        return "/last" in edge.stack.logs()["envoy"].read_text()

    await edge.until(access_log_is_written, "Envoy writes its access log")
    with edge.redis() as store:
        shown = {"counters": b"\n".join(store.keys()).decode()}
    for n, replica in enumerate(edge.stack.ports.extauth):
        for page in ("/metrics", "/rules", "/readyz"):
            shown[f"{page} of {n}"] = await edge.fetch(replica.admin, page)
    for name, log in edge.stack.logs().items():
        shown[f"log of {name}"] = log.read_text()

    assert shown["counters"]
    assert {name for name, text in shown.items() if FREE in text or "sk-invented" in text} == set()


async def test_the_access_log_names_the_tier_of_an_admitted_request_and_the_limit_of_a_denied_one(edge: Edge) -> None:
    await edge.get_many(11, "/access-log", key=FREE)
    lines: list[dict[str, object]] = []

    async def all_are_logged() -> bool:
        text = edge.stack.logs()["envoy"].read_text()
        lines[:] = [json.loads(line) for line in text.splitlines() if '"/access-log"' in line and line.endswith("}")]
        return len(lines) == 11

    await edge.until(all_are_logged, "Envoy logs all eleven requests")
    limit = '10, 10;w=86400;name="free"'
    logged = sorted((line["status"], line["tier"], line["limit"]) for line in lines)
    assert logged == [(200, "free", limit)] * 10 + [(429, None, limit)]
