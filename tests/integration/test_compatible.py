"""`extauth ratelimit` in the place of envoyproxy/ratelimit: the deployments of others, as processes here.

The environments are those of Istio's sample, Contour's example and Envoy Gateway, but for folders, ports and Redis.
"""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extauth.rls.encode import encode_request
from extauth.rls.request import SERVICE, Descriptor, Entry
from extauth.rls.response import Code, code_of
from tests.support.environ import INHERITED
from tests.support.ports import free_port
from tests.support.process import ROOT, page
from tests.support.stores import Store
from tests.support.wait import until

CONFIG = """
domain: echo-ratelimit
descriptors:
  - {key: PATH, value: /, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: api_key, value: hush-hush, rate_limit: {unit: day, requests_per_unit: 100}}
"""
CALL = json.dumps({"domain": "echo-ratelimit", "descriptors": [{"entries": [{"key": "PATH", "value": "/"}]}]})
COMMON = {"REDIS_SOCKET_TYPE": "unix", "RUNTIME_SUBDIRECTORY": "ratelimit", "RUNTIME_IGNOREDOTFILES": "true"}
ISTIO = COMMON | {"LOG_LEVEL": "debug", "USE_STATSD": "false", "RUNTIME_WATCH_ROOT": "false"}
ISTIO |= {"HOST": "::", "GRPC_HOST": "::"}
CONTOUR = COMMON | {"USE_STATSD": "false", "LOG_LEVEL": "debug", "RUNTIME_WATCH_ROOT": "false"}
LOCAL = {"HOST": "127.0.0.1", "GRPC_HOST": "127.0.0.1"}


class Process:
    """`extauth ratelimit` with an environment, on free ports; its files are below `folder`/data."""

    def __init__(self, store: Store, folder: Path, environ: Mapping[str, str]) -> None:
        self.log = folder / "log"
        self.http, self.grpc, self.debug, self.metrics = (free_port() for _ in range(4))
        given = {
            **INHERITED,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "RUNTIME_ROOT": str(folder / "data"),
            "REDIS_URL": str(store.socket),
            "PORT": str(self.http),
            "GRPC_PORT": str(self.grpc),
            "DEBUG_PORT": str(self.debug),
            "PROMETHEUS_ADDR": f":{self.metrics}",
            "LOG_FORMAT": "json",
            "EXTAUTH_DRAIN_DELAY": "0",
            **environ,
        }
        with self.log.open("wb") as log:
            argv = [sys.executable, "-m", "extauth", "ratelimit"]
            self.process = subprocess.Popen(argv, env=given, stdout=log, stderr=log)

    def get(self, port: int, path: str, **headers: str) -> tuple[int, str]:
        return page(port, path, **headers)

    def until(self, holds: Callable[[], bool]) -> None:
        def now() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return holds()
            except OSError:
                return False

        until(now, self.log.read_text)

    def until_healthy(self) -> None:
        self.until(lambda: self.get(self.http, "/healthcheck") == (200, "OK"))

    def post(self, body: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=10)
        connection.request("POST", "/json", body)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, json.loads(text) if response.headers["Content-Type"] == "application/json" else text

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.log.read_text().splitlines()) if line["event"] == event]

    def fails(self) -> str:
        """Wait until it has ended because it cannot start; returns what it said."""
        assert self.process.wait(30) == 1
        return self.log.read_text()


@pytest.fixture
def start(own_store: Store, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def run(environ: Mapping[str, str], store: Store = own_store) -> Process:
        started.append(Process(store, tmp_path, environ))
        return started[-1]

    yield run
    for each in started:
        each.process.kill()
        each.process.wait()


def mount(folder: Path, text: str, name: str = "config.yaml") -> None:
    """Put a ConfigMap's file into the folder, or switch to another, as Kubernetes does."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("..2*")))
    data = folder / f"..2026_{number}"
    data.mkdir()
    (data / name).write_text(text)
    new = folder / "..data_tmp"
    new.symlink_to(data.name)
    new.rename(folder / "..data")
    if number == 0:
        (folder / name).symlink_to(f"..data/{name}")


def ask(address: str, credentials: grpc.ChannelCredentials | None = None, name: str = "localhost") -> Code:
    """The code of a gRPC call, as Envoy makes it."""
    options = (("grpc.ssl_target_name_override", name),)
    channel = (
        grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials, options)
    )
    with channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")
        entry = Descriptor((Entry("PATH", "/"),), None, None, False)
        return code_of(call(encode_request("echo-ratelimit", [entry]), timeout=20, wait_for_ready=True))


@pytest.mark.parametrize("environ", [ISTIO, CONTOUR], ids=["Istio", "Contour"])
def test_a_deployment_with_a_config_map_answers_on_all_ports(
    start: Callable[..., Process], tmp_path: Path, environ: Mapping[str, str]
) -> None:
    mount(tmp_path / "data/ratelimit/config", CONFIG)
    process = start(environ)
    process.until_healthy()
    status, answer = process.post(CALL)
    assert (status, answer["overallCode"]) == (200, "OK")
    assert answer["statuses"][0]["currentLimit"] == {"requestsPerUnit": 2, "unit": "DAY"}
    assert answer["statuses"][0]["limitRemaining"] == 1
    assert ask(f"127.0.0.1:{process.grpc}") is Code.OK
    status, answer = process.post(CALL)
    assert (status, answer["overallCode"]) == (429, "OVER_LIMIT")
    assert ask(f"127.0.0.1:{process.grpc}") is Code.OVER_LIMIT
    assert process.post("{")[0] == 400
    with grpc.insecure_channel(f"127.0.0.1:{process.grpc}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        found = health.Check(health_pb2.HealthCheckRequest(service="ratelimit"), timeout=10).status
    assert found == health_pb2.HealthCheckResponse.SERVING
    # Its debug port is for scripts, which call it by the name of its Service.
    shown = process.get(process.debug, "/rlconfig", Host="ratelimit.istio-system:6070")
    line = "echo-ratelimit.PATH_/: unit=DAY requests_per_unit=2, shadow_mode: false, quota_mode: false\n"
    assert shown[0] == 200
    assert line in shown[1]
    assert "hush" not in shown[1]
    process.until(lambda: "over_limit: 2\n" in process.get(process.debug, "/stats")[1])
    assert "/rlconfig: " in process.get(process.debug, "/")[1]
    assert [process.get(process.debug, path)[0] for path in ("/top", "/live", "/metrics", "/other")] == [
        *(404, 404, 200, 404)
    ]
    (compatible,) = process.lines("compatible_mode")
    understood = [each.partition(":")[0] for each in compatible["understood"]]
    assert {"LOG_LEVEL", "REDIS_URL", "RUNTIME_ROOT", "PORT", "GRPC_PORT"} <= set(understood)
    mount(tmp_path / "data/ratelimit/config", CONFIG.replace("requests_per_unit: 2", "requests_per_unit: 3"))
    process.until(lambda: "requests_per_unit=3" in process.get(process.debug, "/rlconfig")[1])
    assert process.post(CALL)[0] == 429, "what was used stays used, denied hits too"


def test_healthchecks_fail_while_it_drains(start: Callable[..., Process], tmp_path: Path) -> None:
    mount(tmp_path / "data/ratelimit/config", CONFIG)
    process = start(ISTIO | {"EXTAUTH_DRAIN_DELAY": "30"})
    process.until_healthy()
    process.process.send_signal(signal.SIGTERM)
    process.until(lambda: process.get(process.http, "/healthcheck")[0] == 500)
    assert ask(f"127.0.0.1:{process.grpc}") is Code.OK
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(20) == 0


def test_healthchecks_do_not_depend_on_the_store(
    start: Callable[..., Process], own_store: Store, tmp_path: Path
) -> None:
    mount(tmp_path / "data/ratelimit/config", CONFIG)
    own_store.stop()
    process = start(ISTIO)
    process.until_healthy()
    assert [process.post(CALL)[0] for _ in range(3)] == [200, 200, 429], "it counts by itself"


def test_calls_in_json_fail_where_the_policy_says_so(
    start: Callable[..., Process], own_store: Store, tmp_path: Path
) -> None:
    mount(tmp_path / "data/ratelimit/config", CONFIG)
    own_store.stop()
    process = start(ISTIO | {"EXTAUTH_ON_STORE_FAILURE": "error"})
    process.until_healthy()
    assert process.post(CALL) == (500, "500: Internal Server Error\nthe counters' store does not answer\n")


def test_several_workers_answer_calls_in_json(start: Callable[..., Process], tmp_path: Path) -> None:
    mount(tmp_path / "data/ratelimit/config", CONFIG)
    process = start(ISTIO | {"EXTAUTH_WORKERS": "2"})
    process.until_healthy()
    assert [process.post(CALL)[0] for _ in range(3)] == [200, 200, 429]
    assert process.post('{"descriptors": []}')[0] == 400
    assert "echo-ratelimit.PATH_/: " in process.get(process.debug, "/rlconfig")[1]


@pytest.mark.parametrize("demanded", [False, True], ids=["without", "with HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED"])
def test_it_starts_without_rules_and_is_healthy_unless_they_are_demanded(
    start: Callable[..., Process], tmp_path: Path, demanded: bool
) -> None:
    process = start(ISTIO | LOCAL | {"HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED": str(demanded)})
    process.until(lambda: process.get(process.debug, "/readyz")[0] == 200)
    assert process.get(process.http, "/healthcheck")[0] == (500 if demanded else 200)
    with grpc.insecure_channel(f"127.0.0.1:{process.grpc}") as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def serving() -> bool:
            found = health.Check(health_pb2.HealthCheckRequest(service="ratelimit"), timeout=10, wait_for_ready=True)
            return bool(found.status == health_pb2.HealthCheckResponse.SERVING)

        process.until(lambda: serving() is not demanded)
        assert process.post(CALL)[0] == 200, "a domain that nobody defines is not limited"
        mount(tmp_path / "data/ratelimit/config", CONFIG)
        process.until(lambda: process.get(process.http, "/healthcheck")[0] == 200)
        process.until(serving)
    process.until(lambda: process.post(CALL)[0] == 429)


CERTIFICATES = {"GRPC_SERVER_USE_TLS": "true", "GRPC_SERVER_TLS_CERT": "/certs/tls.crt"}
CERTIFICATES |= {"GRPC_SERVER_TLS_KEY": "/certs/tls.key", "GRPC_SERVER_TLS_CA_CERT": "/certs/ca.crt"}
XDS = {"CONFIG_TYPE": "GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_NODE_ID": "envoy-ratelimit"}
XDS |= {"CONFIG_GRPC_XDS_SERVER_USE_TLS": "true", "CONFIG_GRPC_XDS_CLIENT_TLS_CERT": "/certs/tls.crt"}
XDS |= {"CONFIG_GRPC_XDS_CLIENT_TLS_KEY": "/certs/tls.key", "CONFIG_GRPC_XDS_SERVER_TLS_CACERT": "/certs/ca.crt"}
GATEWAY = COMMON | CERTIFICATES | XDS | {"RUNTIME_WATCH_ROOT": "false", "LOG_LEVEL": "info", "USE_STATSD": "false"}
GATEWAY |= {"FORCE_START_WITHOUT_INITIAL_CONFIG": "true", "USE_PROMETHEUS": "true"}
GATEWAY |= {"PROMETHEUS_MAPPER_YAML": "/etc/statsd-exporter/conf.yaml"}


def certificates(folder: Path) -> tuple[trustme.CA, dict[str, str]]:
    """A CA, and Envoy Gateway's environment with a certificate that it has issued in `folder`/certs."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "envoy-ratelimit")
    certs = folder / "certs"
    certs.mkdir()
    issued.private_key_pem.write_to_path(certs / "tls.key")
    (certs / "tls.crt").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(certs / "ca.crt")
    return authority, {name: value.replace("/certs", str(certs)) for name, value in GATEWAY.items()}


def test_envoy_gateways_deployment_starts_before_its_xds_server_is_there(
    start: Callable[..., Process], tmp_path: Path
) -> None:
    authority, environ = certificates(tmp_path)
    process = start(environ | {"CONFIG_GRPC_XDS_SERVER_URL": f"localhost:{free_port()}"})
    process.until_healthy()
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    assert ask(f"127.0.0.1:{process.grpc}", credentials) is Code.OK
    status, metrics = process.get(process.metrics, "/metrics")
    assert status == 200
    assert 'ratelimit_service_total_requests{grpc_method="ShouldRateLimit"} 1' in metrics
    assert process.get(process.metrics, "/other")[0] == 404
    (compatible,) = process.lines("compatible_mode")
    assert "GRPC_SERVER_TLS_CA_CERT" in str(compatible["no_effect"])


@pytest.mark.parametrize("engine", ["h2", "grpcio"])
def test_without_that_switch_it_waits_for_the_xds_server(
    start: Callable[..., Process], tmp_path: Path, engine: str
) -> None:
    _, environ = certificates(tmp_path)
    environ |= {"CONFIG_GRPC_XDS_SERVER_URL": f"localhost:{free_port()}", "FORCE_START_WITHOUT_INITIAL_CONFIG": "false"}
    process = start(environ | {"EXTAUTH_ENGINE": engine})
    process.until(lambda: process.get(process.http, "/healthcheck")[0] == 500)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (
            {"BACKEND_TYPE": "memcache"},
            "BACKEND_TYPE='memcache' is not supported: set BACKEND_TYPE=redis, and REDIS_URL",
        ),
        ({"REDIS_TYPE": "X", "SHADOW_MODE": "maybe"}, "SHADOW_MODE='maybe' is not allowed; allowed: true or false"),
        (
            {"REDIS_URL": "redis://u:hush@h:x", "REDIS_SOCKET_TYPE": "tcp"},
            "REDIS_URL cannot be used: EXTAUTH_REDIS_URL=…",
        ),
        ({"PORT": "99999"}, "PORT cannot be used: EXTAUTH_HTTP_LISTEN="),
    ],
    ids=["memcache", "two", "Redis", "port"],
)
def test_what_is_refused_stops_the_start(start: Callable[..., Process], environ: Mapping[str, str], said: str) -> None:
    told = start(MappingProxyType({**ISTIO, **environ})).fails()
    assert said in told
    assert "hush" not in told
    assert "Traceback" not in told


def test_a_taken_port_is_named_by_its_setting(start: Callable[..., Process], tmp_path: Path) -> None:
    mount(tmp_path / "data/ratelimit/config", CONFIG)
    first = start(ISTIO)
    first.until_healthy()
    told = start(ISTIO | {"PORT": str(first.http)}).fails()
    assert f"EXTAUTH_HTTP_LISTEN=[::]:{first.http}: cannot listen there" in told


def test_the_page_is_there_where_only_this_host_reaches_it(start: Callable[..., Process], tmp_path: Path) -> None:
    mount(tmp_path / "data/ratelimit/config", CONFIG)
    process = start(ISTIO | {"DEBUG_HOST": "127.0.0.1"})
    process.until_healthy()
    assert "<html" in process.get(process.debug, "/")[1]
    assert process.get(process.debug, "/top")[0] == 200
