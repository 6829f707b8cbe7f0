"""`extauth check`, and what else a running service shows on the command line."""

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import trustme
from click.testing import CliRunner
from envoy_data_plane.envoy.config.core.v3 import HeaderValue
from envoy_data_plane.envoy.service.ratelimit.v3 import (
    RateLimitRequest,
    RateLimitResponse,
    RateLimitResponseCode,
    RateLimitResponseDescriptorStatus,
    RateLimitResponseRateLimit,
    RateLimitResponseRateLimitUnit,
)

from extauth.cli import app
from extauth.rules.masking import Masking
from tests.support.process import Served
from tests.support.stores import Store

RUN = CliRunner()
CONFIG = """domain: api
algorithm: gcra
tiers: {free: {unit: day, requests_per_unit: 3}}
descriptors:
  - {key: api_key, tier: free}
"""


@pytest.fixture
def serve(own_store: Store) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def start(config: str, *arguments: str, **settings: str) -> Served:
        folder = own_store.folder / "config"
        folder.mkdir()
        for i, text in enumerate(config.split("---\n")):
            (folder / f"{i}.yaml").write_text(text)
        started.append(Served(own_store, folder, *arguments, settings=settings))
        return started[-1]

    yield start
    for served in started:
        served.stop()


def test_an_answer_without_the_store_is_marked(serve: Callable[..., Served], own_store: Store) -> None:
    """It goes on where the store was: one of three was used."""
    served = serve(CONFIG)
    served.until_it_answers()
    ask = ["check", "--address", served.address, "api", "api_key=k"]
    assert RUN.invoke(app, ask).stdout.splitlines()[0] == "OK"
    own_store.stop()
    marked = RUN.invoke(app, ask).stdout.splitlines()
    assert marked[0] == "OK (without the store: local)"
    assert "to the client, x-ratelimit-source: local" in marked
    assert "dynamic metadata: {'source': 'local'}" in marked
    assert json.loads(RUN.invoke(app, [*ask, "--json"]).stdout)["answers"][0]["without_store"] == "local"
    denied = RUN.invoke(app, [*ask, "--repeat", "2"])
    assert [line.split("  ")[1] for line in denied.stdout.splitlines()[:2]] == [
        "OVER_LIMIT (without the store: local)"
    ] * 2


def test_until_the_limit(serve: Callable[..., Served]) -> None:
    served = serve(CONFIG)
    served.until_it_answers()
    ask = ["check", "--address", served.address, "api", "api_key=k", "path=/x"]
    first = RUN.invoke(app, ask)
    assert first.exit_code == 0
    assert first.stdout.splitlines() == [
        "OK",
        "descriptor 1: OK, 2 left of 3 per day (free), resets in 28800 s",
        "descriptor 2: OK, no limit",
        "upstream, x-ratelimit-tier: free",
    ]
    repeated = RUN.invoke(app, [*ask, "--repeat", "3"])
    *lines, summary = repeated.stdout.splitlines()
    assert [line.split("  ")[1] for line in lines] == ["OK", "OK", "OVER_LIMIT"]
    assert summary.startswith("2 OK, 1 not, in ")
    assert repeated.exit_code == 1
    denied = RUN.invoke(app, ask)
    assert denied.exit_code == 1
    assert denied.stdout.startswith("OVER_LIMIT\ndescriptor 1: OVER_LIMIT, 0 left of 3 per day (free)")
    assert "to the client, content-type: application/json\n" in denied.stdout
    assert 'body: {"error": "rate_limited"' in denied.stdout


def test_hits_and_json(serve: Callable[..., Served]) -> None:
    served = serve(CONFIG, EXTAUTH_DYNAMIC_METADATA="true")
    served.until_it_answers()
    argv = ["check", "--address", served.address, "--json", "--hits", "2", "--repeat", "2", "api", r"api_key=a\,b"]
    result = RUN.invoke(app, argv)
    told = json.loads(result.stdout)
    assert (result.exit_code, told["ok"], told["not_ok"]) == (1, 1, 1)
    status = {"code": "OK", "limit": "3 per day", "name": "free", "remaining": 1, "reset_s": 57600.0}
    assert told["answers"][0]["statuses"] == [status]
    masked = f"api_key={Masking().mask('a,b')}"
    assert told["answers"][0]["metadata"]["descriptors"] == [{"entries": [masked]}]
    assert told["answers"][0]["request_headers"] == [["x-ratelimit-tier", "free"]]
    assert ["content-type", "application/json"] in told["answers"][1]["response_headers"]


def test_keep_going_starts_with_what_loads(serve: Callable[..., Served]) -> None:
    served = serve(CONFIG + "---\ndomain: broken\nkee: 1\n", "--keep-going")
    served.until_it_answers()
    assert RUN.invoke(app, ["check", "--address", served.address, "api", "api_key=k"]).exit_code == 0


def test_without_it_does_not_start(serve: Callable[..., Served]) -> None:
    served = serve(CONFIG + "---\ndomain: broken\nkee: 1\n")
    assert served.process.wait(30) == 1
    assert "1.yaml:2:1: unknown key 'kee'" in served.log.read_text()


class Another:
    """A RateLimitService of someone else's: answers with `response`, and remembers what it was asked."""

    def __init__(self, response: bytes) -> None:
        self.asked: list[RateLimitRequest] = []
        self.response = response
        self.server = grpc.server(ThreadPoolExecutor(1))
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._answer)
        service = "envoy.service.ratelimit.v3.RateLimitService"
        self.server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {"ShouldRateLimit": handler}),)
        )

    def _answer(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.asked.append(RateLimitRequest.parse(message))
        if not self.response:
            context.abort(grpc.StatusCode.INTERNAL, "no counters\ntoday")
        return self.response


@pytest.fixture
def another() -> Iterator[Callable[..., tuple[Another, str]]]:
    with ThreadPoolExecutor(1):
        servers: list[Another] = []

        def start(response: bytes, credentials: grpc.ServerCredentials | None = None) -> tuple[Another, str]:
            servers.append(other := Another(response))
            if credentials is None:
                port = other.server.add_insecure_port("127.0.0.1:0")
            else:
                port = other.server.add_secure_port("127.0.0.1:0", credentials)
            other.server.start()
            return other, f"127.0.0.1:{port}"

        yield start
        for other in servers:
            other.server.stop(None).wait()


def test_any_server_of_the_service(another: Callable[..., tuple[Another, str]]) -> None:
    limit = RateLimitResponseRateLimit(requests_per_unit=5, unit=RateLimitResponseRateLimitUnit.HOUR, name="n")
    response = RateLimitResponse(
        overall_code=RateLimitResponseCode.OVER_LIMIT,
        statuses=[
            RateLimitResponseDescriptorStatus(code=RateLimitResponseCode.OVER_LIMIT, current_limit=limit),
            RateLimitResponseDescriptorStatus(code=RateLimitResponseCode.OK),
        ],
        response_headers_to_add=[HeaderValue(key="x-a", value="1"), HeaderValue(key="x-b", raw_value=b"\x1b2")],
        raw_body=b"no\n",
    )
    other, address = another(bytes(response))
    result = RUN.invoke(app, ["check", "--address", address, "--hits", "7", "d", "a=1,b=2", "c=3"])
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "OVER_LIMIT",
        "descriptor 1: OVER_LIMIT, 0 left of 5 per hour (n)",
        "descriptor 2: OK, no limit",
        "to the client, x-a: 1",
        "to the client, x-b: \\x1b2",
        "body: no\\n",
    ]
    (asked,) = other.asked
    assert (asked.domain, asked.hits_addend) == ("d", 7)
    entries = [[(entry.key, entry.value) for entry in descriptor.entries] for descriptor in asked.descriptors]
    assert entries == [[("a", "1"), ("b", "2")], [("c", "3")]]


def test_tls(another: Callable[..., tuple[Another, str]], tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("ratelimit.example")
    for name, pem in (("ca", authority.cert_pem), ("key", issued.private_key_pem), ("cert", issued.cert_chain_pems[0])):
        (tmp_path / name).write_bytes(pem.bytes())
    pair = ((tmp_path / "key").read_bytes(), (tmp_path / "cert").read_bytes())
    credentials = grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), require_client_auth=True)
    _, address = another(bytes(RateLimitResponse(overall_code=RateLimitResponseCode.OK)), credentials)
    ask = ["check", "--address", address, "--timeout", "10", "d", "a=1"]
    named = ["--tls-ca", f"{tmp_path}/ca", "--tls-name", "ratelimit.example"]
    mutual = [*named, "--tls-cert", f"{tmp_path}/cert", "--tls-key", f"{tmp_path}/key"]
    assert RUN.invoke(app, [*ask, *mutual]).exit_code == 0
    assert RUN.invoke(app, [*ask, *mutual[:2], *mutual[4:]]).exit_code == 2  # another name than the certificate's
    assert RUN.invoke(app, [*ask, *named]).exit_code == 2
    assert RUN.invoke(app, ask).exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--address", "nowhere"], "'nowhere' is no address; write HOST:PORT, [IPV6]:PORT or unix:PATH"),
        (["--tls-cert", "c"], "--tls-cert and --tls-key go together"),
        (["--tls-ca", "/nowhere.pem"], "/nowhere.pem cannot be read: No such file or directory"),
    ],
)
def test_what_cannot_be_asked(options: list[str], message: str) -> None:
    result = RUN.invoke(app, ["check", *options, "d", "a=1"])
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"extauth: {message}\n")


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    result = RUN.invoke(app, ["check", "--address", f"unix:{tmp_path}/none", "--json", "d", "a=1"])
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error.startswith(f"cannot ask unix:{tmp_path}/none: UNAVAILABLE: ")
    assert result.stderr == f"extauth: {error}\n"


def test_a_server_that_fails_or_talks_nonsense(another: Callable[..., tuple[Another, str]]) -> None:
    _, address = another(b"")
    result = RUN.invoke(app, ["check", "--address", address, "d", "a=1"])
    assert (result.exit_code, result.stderr) == (2, f"extauth: cannot ask {address}: INTERNAL: no counters today\n")
    _, address = another(b"\x08")
    result = RUN.invoke(app, ["check", "--address", address, "d", "a=1"])
    assert (result.exit_code, result.stderr) == (2, f"extauth: {address} answered with no RateLimitResponse\n")


def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        result = RUN.invoke(app, ["check", "--address", address, "--timeout", "0.05", "d", "a=1"])
    assert (result.exit_code, result.stderr) == (2, f"extauth: cannot ask {address}: no answer within 0.05 s\n")
