"""Costs that responses name, such as a language model's tokens: from an xDS server's rules to Envoy's answers.

Envoy and the service are set up as Envoy Gateway and Envoy AI Gateway set them up; only the model is a stand-in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e import lone_envoy
from tests.support.compatible import LOCAL, Process, certificates
from tests.support.go_xds import GoXds, ServerFiles
from tests.support.ports import free_port
from tests.support.stores import Store
from tests.support.wait import until_async

CONFIG = Path(__file__).with_name("token_costs.yaml")
DOMAIN = "default/ai/http"
ROUTE = "httproute/default/chat/rule/0/match/0/ai_example_com"
SERIES = f'ratelimit_service_rate_limit_total_hits{{domain="{DOMAIN}",key1="{ROUTE}_{ROUTE}",key2="rule-0-match-0"}} '
RULES = {
    "domain": DOMAIN,
    "descriptors": [
        {
            "key": ROUTE,
            "value": ROUTE,
            "descriptors": [{"key": "rule-0-match-0", "rate_limit": {"unit": "day", "requests_per_unit": 21}}],
        }
    ],
}


@dataclass
class Gateway:
    """Envoy at `edge`, and the rate limit service behind it."""

    edge: str
    service: Process

    async def ask(self, user: str) -> tuple[int, int]:
        """One request: its status, and how many tokens were left before its cost was known."""
        return await lone_envoy.ask(self.edge, "/v1/chat/completions", {"x-user-id": user})

    async def until_taken(self, tokens: int) -> None:
        """Return once the limit has taken so many tokens."""
        await until_async(lambda: self.taken() == tokens, self.taken, every_s=0.02)

    def taken(self) -> float:
        """The tokens that the limit has taken so far, those of all users together; 0 before any call."""
        _, page = self.service.get(self.service.metrics, "/metrics")
        return float(page.partition(SERIES)[2].partition("\n")[0] or 0)


@pytest.fixture
def gateway(own_store: Store, short_path: Path, _programs: None) -> Iterator[Gateway]:
    _, environ = certificates(short_path)
    certs = short_path / "certs"
    xds = GoXds(ServerFiles(certs / "tls.crt", certs / "tls.key", certs / "ca.crt"))
    xds.push("1", RULES)
    service = Process(own_store, short_path, environ | LOCAL | {"CONFIG_GRPC_XDS_SERVER_URL": f"localhost:{xds.port}"})
    edge = free_port()
    config = CONFIG.read_text().replace("/certs/", f"{certs}/")
    try:
        with lone_envoy.started(config, {8080: edge, 8081: service.grpc, 8090: free_port()}, short_path):
            service.until_healthy()
            service.until(lambda: "unit=DAY requests_per_unit=21" in service.get(service.debug, "/rlconfig")[1])
            yield Gateway(f"http://127.0.0.1:{edge}", service)
    finally:
        service.process.terminate()
        service.process.wait(20)
        xds.stop()


async def test_tokens_are_checked_first_and_taken_when_the_response_is_complete(gateway: Gateway) -> None:
    await until_async(lambda: lone_envoy.answers(gateway.edge, "/ready", {}))
    for left, taken in ((21, 10), (11, 20), (1, 30)):
        assert await gateway.ask("ann") == (200, left)
        await gateway.until_taken(taken)
    assert await gateway.ask("ann") == (429, 0), "9 tokens in debt"
    assert await gateway.ask("bob") == (200, 21)
