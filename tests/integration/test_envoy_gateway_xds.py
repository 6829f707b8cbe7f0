"""The rules that Envoy Gateway makes, from a server of go-control-plane over mutual TLS."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extauth.explain.request import read_descriptor
from extauth.rls.encode import encode_request
from tests.support.codes import OK, OVER_LIMIT
from tests.support.go_xds import NODE, GoXds, ServerFiles
from tests.support.h2_peer import START, Peer, call
from tests.support.process import Served
from tests.support.wait import until
from tests.transport.test_tls import Authority

DOMAIN = "default/eg/http"
ROUTE = "httproute/default/shop/rule/0/match/0/www_example_com"
CIDR = "192.168.0.0/16"


def limited(key: str, requests: int, value: str | None = None, **more: object) -> dict[str, Any]:
    """A descriptor with a limit an hour; as Envoy Gateway has it, the value is the key's name again, or any."""
    limit = {"unit": "hour", "requests_per_unit": requests}
    return {"key": key, "value": key if value is None else value, "rate_limit": limit, **more}


def chain(*keys: str, last: dict[str, Any], **flags: object) -> dict[str, Any]:
    """Descriptors inside one another."""
    for key in reversed(keys):
        name, _, value = key.partition("=")
        last = {"key": name, "value": value or name, "descriptors": [last], **flags}
    return last


def gateway(*rules: dict[str, Any], domain: str = DOMAIN) -> dict[str, Any]:
    return {"domain": domain, "descriptors": [{"key": ROUTE, "value": ROUTE, "descriptors": list(rules)}]}


RULES = gateway(
    chain("rule-0-match-0", "rule-0-method", "rule-0-path", last=limited("masked_remote_address", 2, CIDR)),
    chain(f"masked_remote_address=invert:{CIDR}", last=limited("remote_address", 1, "")),
    chain("rule-2-match-0", last=limited("rule-2-match-1", 0, shadow_mode=True), shadow_mode=True),
    limited("rule-3-match-0", 0),
    limited("rule-4-match-0", 21, ""),
)


class Certificates:
    """Files of a CA that both sides trust: the server's certificate is for `envoy-gateway`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.issue()

    def issue(self) -> None:
        """Make a new CA and new certificates."""
        authority = Authority()
        for side, name in (("server", "envoy-gateway"), ("client", "envoy-rate-limit")):
            key, chain_of = authority.issue(name)
            for part, content in (("key", key), ("crt", chain_of)):
                self._replace(f"{side}.{part}", content)
        self._replace("ca.crt", authority.pem)

    def _replace(self, name: str, content: bytes) -> None:
        part = self.folder / f"{name}.new"
        part.write_bytes(content)
        part.replace(self.folder / name)

    def server(self) -> ServerFiles:
        return ServerFiles(self.folder / "server.crt", self.folder / "server.key", self.folder / "ca.crt")

    def settings(self) -> dict[str, str]:
        return {
            "EXTAUTH_XDS_TLS_CA": str(self.folder / "ca.crt"),
            "EXTAUTH_XDS_TLS_CERT": str(self.folder / "client.crt"),
            "EXTAUTH_XDS_TLS_KEY": str(self.folder / "client.key"),
            "EXTAUTH_XDS_TLS_SAN": "envoy-gateway",
        }


@pytest.fixture
def certificates(short_path: Path) -> Certificates:
    return Certificates(short_path)


@pytest.fixture
def xds(certificates: Certificates) -> Iterator[GoXds]:
    server = GoXds(certificates.server())
    yield server
    server.stop()


@pytest.fixture
def served(short_path: Path, certificates: Certificates, xds: GoXds) -> Iterator[Served]:
    settings = {
        "EXTAUTH_CONFIG": f"xdss://{xds.address}",
        "EXTAUTH_XDS_NODE_ID": NODE,
        "EXTAUTH_REDIS_URL": "memory:",
        "EXTAUTH_LOG_FORMAT": "json",
    }
    service = Served(short_path, short_path, settings=settings | certificates.settings())
    yield service
    service.stop()


def ask(served: Served, *entries: str, domain: str = DOMAIN, hits: int = 1) -> int:
    """The code of the answer to a call with a descriptor of the route and these entries."""
    descriptor = ",".join([f"{ROUTE}={ROUTE}", *(each if "=" in each else f"{each}={each}" for each in entries)])
    message = encode_request(domain, [read_descriptor(descriptor)], hits)

    async def answer() -> int:
        peer = Peer(*await asyncio.open_unix_connection(served.address.removeprefix("unix:")))
        peer.send(START + call(1, message))
        (found,) = await peer.answered(1)
        await peer.close()
        return found.code

    return asyncio.run(answer())


def asks(served: Served, calls: int, *entries: str) -> list[int]:
    return [ask(served, *entries) for _ in range(calls)]


def events(served: Served, name: str) -> list[dict[str, object]]:
    return [line for line in served.lines() if line["event"] == name]


def test_the_shapes_of_rules_that_envoy_gateway_makes(xds: GoXds, served: Served) -> None:
    until(xds.requests, served.log.read_text)
    assert xds.requests()[0]["node"] == NODE
    xds.push("1", RULES)
    served.until_ready()
    route = ("rule-0-match-0", "rule-0-method", "rule-0-path", f"masked_remote_address={CIDR}")
    assert asks(served, 3, *route) == [OK, OK, OVER_LIMIT]
    outside = f"masked_remote_address=invert:{CIDR}"
    assert asks(served, 2, outside, "remote_address=10.0.0.1") == [OK, OVER_LIMIT]
    assert asks(served, 1, outside, "remote_address=10.0.0.2") == [OK]  # each address has a counter of its own
    assert asks(served, 2, "rule-2-match-0", "rule-2-match-1") == [OK, OK]  # shadow mode
    assert asks(served, 2, "rule-3-match-0") == [OVER_LIMIT, OVER_LIMIT]  # blocked
    assert asks(served, 1, "rule-9-match-0") == [OK]
    assert xds.answer_to("1")["error"] == ""
    assert not events(served, "config_warning")


def test_costs_are_counted_as_they_come(xds: GoXds, served: Served) -> None:
    xds.push("1", RULES)
    served.until_ready()
    costs = [(10, OK), (10, OK), (1, OK), (1, OVER_LIMIT)]  # 21 → 11 → 1 → 0
    assert [ask(served, "rule-4-match-0=user", hits=cost) for cost, _ in costs] == [code for _, code in costs]


def test_rules_are_changed_broken_mended_and_emptied_live(xds: GoXds, served: Served) -> None:
    xds.push("1", gateway(limited("a", 1)), gateway(limited("a", 1), domain="other"))
    served.until_ready()
    assert asks(served, 2, "a") == [OK, OVER_LIMIT]
    xds.push("2", gateway(limited("a", 2)), gateway(limited("a", 1), domain="other"))
    assert xds.answer_to("2")["error"] == ""
    assert asks(served, 2, "a") == [OVER_LIMIT, OVER_LIMIT]  # three were counted
    xds.push("3", gateway(limited("b", 1)), gateway(limited("a", 1), limited("a", 1), domain="other"))
    refusal = xds.answer_to("3")
    assert "xds:other#descriptors[0].descriptors[1]: a descriptor with this key and value" in refusal["error"]
    assert asks(served, 2, "b") == [OK, OVER_LIMIT]
    assert [ask(served, "a", domain="other") for _ in range(2)] == [OK, OVER_LIMIT]  # as before
    xds.push("4", gateway(limited("b", 1)), gateway(limited("c", 0), domain="other"))
    assert xds.answer_to("4")["error"] == ""
    assert [ask(served, "c", domain="other"), ask(served, "a", domain="other")] == [OVER_LIMIT, OK]
    xds.push("5")
    assert xds.answer_to("5")["error"] == ""
    assert asks(served, 1, "b") == [OK]
    assert len(events(served, "config_rejected")) == 1


def test_a_refusal_is_sent_once(xds: GoXds, served: Served) -> None:
    xds.push("1", gateway(limited("a", 1)), {"domain": "bad", "descriptors": [{"key": ""}]})
    served.until_ready()
    assert xds.answer_to("1")["error"] != ""
    xds.push("2", gateway(limited("b", 0)))
    assert xds.answer_to("2")["error"] == ""
    assert ask(served, "b") == OVER_LIMIT
    assert [(each["version"], each["error"] != "") for each in xds.requests()] == [
        ("", False),
        ("1", True),
        ("2", False),
    ]


def test_a_control_plane_that_starts_again_counts_its_versions_anew_and_may_have_other_certificates(
    xds: GoXds, served: Served, certificates: Certificates
) -> None:
    xds.push("7", gateway(limited("a", 1)))
    served.until_ready()
    xds.answer_to("7")
    xds.stop()
    until(lambda: events(served, "xds_away"), served.log.read_text)
    assert asks(served, 2, "a") == [OK, OVER_LIMIT]
    certificates.issue()
    again = GoXds(certificates.server(), xds.port)
    try:
        until(again.requests, served.log.read_text)  # there is no snapshot yet
        assert asks(served, 1, "a") == [OVER_LIMIT]
        again.push("1", gateway(limited("b", 0)))
        assert again.answer_to("1")["error"] == ""
        assert (ask(served, "a"), ask(served, "b")) == (OK, OVER_LIMIT)
        until(lambda: len(events(served, "xds_connected")) == 2, served.log.read_text)
        again.forget()
        assert ask(served, "b") == OVER_LIMIT
    finally:
        again.stop()


def test_a_server_that_is_not_trusted_gives_no_rules(
    short_path: Path, served: Served, certificates: Certificates
) -> None:
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(20)
    other = short_path / "other"
    other.mkdir()
    stranger = GoXds(Certificates(other).server())
    settings = {"EXTAUTH_CONFIG": f"xdss://{stranger.address}", "EXTAUTH_LOG_FORMAT": "json"} | certificates.settings()
    service = Served(short_path, short_path, settings=settings)
    try:
        until(lambda: service.log.exists() and events(service, "xds_away"), service.log.read_text)
        assert "UNAVAILABLE" in str(events(service, "xds_away")[0]["reason"])
        assert stranger.requests() == []
    finally:
        service.stop()
        stranger.stop()
