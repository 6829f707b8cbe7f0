"""What Envoy itself refuses, and what it shows to whom."""

import aiohttp
import pytest
from yarl import URL

from tests.e2e.edge import FREE, Edge


async def test_a_header_that_only_looks_like_the_key_is_refused(edge: Edge) -> None:
    assert (await edge.get(headers={"x_api_key": FREE})).status == 400


async def test_escaped_slashes_are_redirected_to_the_plain_spelling(edge: Edge) -> None:
    async with aiohttp.ClientSession() as session:
        url = URL(f"{edge.stack.url}/a%2fb", encoded=True)
        async with session.get(url, allow_redirects=False) as response:
            assert (response.status, response.headers["location"]) == (307, "/a/b")


async def test_the_stats_listener_serves_the_metrics(edge: Edge) -> None:
    await edge.get()
    text = await edge.fetch(edge.stack.ports.envoy_stats, "/stats/prometheus")
    assert "envoy_cluster_ratelimit_ok" in text


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/stats"),
        ("GET", "/stats/prometheus/../../config_dump"),
        ("GET", "/config_dump"),
        ("GET", "/"),
        ("POST", "/quitquitquit"),
        ("POST", "/stats/prometheus"),
    ],
)
async def test_the_stats_listener_serves_nothing_else(edge: Edge, method: str, path: str) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{edge.stack.ports.envoy_stats}{path}"
        async with session.request(method, url) as response:
            assert response.status == 404


async def test_a_body_of_any_method_reaches_the_api(edge: Edge) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"{edge.stack.url}/orders/7?dry=1&tag=a&tag=b"
        async with session.patch(url, data=b"\xffhello", headers={"x-api-key": FREE}) as response:
            seen = await response.json()
    assert (seen["method"], seen["path"], seen["body"]) == ("PATCH", "/orders/7", "\ufffdhello")
    assert seen["query"] == {"dry": "1", "tag": ["a", "b"]}


async def test_a_body_over_the_apis_bound_is_refused(edge: Edge) -> None:
    body, key = bytes(65 * 1024), {"x-api-key": FREE}
    async with aiohttp.ClientSession() as session, session.post(edge.stack.url, data=body, headers=key) as response:
        assert response.status == 413
