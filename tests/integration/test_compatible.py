"""`extauth ratelimit` in the place of envoyproxy/ratelimit: the deployments of others, as processes here.

The environments are those of Istio's sample, Contour's example and Envoy Gateway, but for folders, ports and Redis.
"""

import json
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extauth.rls.response import Code
from tests.support.compatible import CALL, CONFIG, CONTOUR, ISTIO, LOCAL, Process, ask, certificates, mount
from tests.support.go_xds import GoXds, ServerFiles
from tests.support.ports import free_port
from tests.support.stores import Store


@pytest.fixture
def start(own_store: Store, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def run(environ: Mapping[str, str], **given: Sequence[str]) -> Process:
        started.append(Process(own_store, tmp_path, environ, **given))
        return started[-1]

    yield run
    for each in started:
        each.process.kill()
        each.process.wait()


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
    process = start(ISTIO | {"EXTAUTH_ENGINE": "h2", "EXTAUTH_WORKERS": "2"})
    process.until_healthy()
    assert [process.post(CALL)[0] for _ in range(3)] == [200, 200, 429]
    assert process.post('{"descriptors": []}')[0] == 400
    assert "echo-ratelimit.PATH_/: " in process.get(process.debug, "/rlconfig")[1]


@pytest.mark.parametrize(
    ("demanded", "workers"), [(False, 1), (True, 1), (True, 2)], ids=["no demand", "demanded", "of workers"]
)
def test_it_starts_without_rules_and_is_healthy_unless_they_are_demanded(
    start: Callable[..., Process], tmp_path: Path, demanded: bool, workers: int
) -> None:
    environ = ISTIO | LOCAL | {"EXTAUTH_ENGINE": "h2", "EXTAUTH_WORKERS": str(workers)}
    process = start(environ | {"HEALTHY_WITH_AT_LEAST_ONE_CONFIG_LOADED": str(demanded)})
    expected = (503, "without_rules") if demanded else (200, "ready")

    def ready() -> tuple[int, str]:
        status, detail = process.get(process.debug, "/readyz")
        return status, json.loads(detail)["status"]

    process.until(lambda: ready() == expected)
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


def test_clients_certificates_must_be_for_the_name_that_is_set(start: Callable[..., Process], tmp_path: Path) -> None:
    mount(tmp_path / "data/ratelimit/config", CONFIG)
    authority, environ = certificates(tmp_path)
    environ = {name: value for name, value in environ.items() if name.startswith("GRPC_SERVER_")}
    environ |= {
        "GRPC_CLIENT_TLS_CACERT": str(tmp_path / "certs/ca.crt"),
        "GRPC_CLIENT_TLS_SAN": "envoy",
        "EXTAUTH_ENGINE": "h2",
    }
    process = start(ISTIO | environ)
    process.until_healthy()

    def credentials(name: str) -> grpc.ChannelCredentials:
        issued = authority.issue_cert(name)
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        return grpc.ssl_channel_credentials(authority.cert_pem.bytes(), issued.private_key_pem.bytes(), chain)

    assert ask(f"127.0.0.1:{process.grpc}", credentials("envoy")) is Code.OK
    with pytest.raises(grpc.RpcError) as refused:
        ask(f"127.0.0.1:{process.grpc}", credentials("other"), wait=False)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


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


def test_envoy_gateways_deployment_follows_its_xds_server(start: Callable[..., Process], tmp_path: Path) -> None:
    authority, environ = certificates(tmp_path)
    certs = tmp_path / "certs"
    server = GoXds(ServerFiles(certs / "tls.crt", certs / "tls.key", certs / "ca.crt"))
    try:
        limit = {"unit": "day", "requests_per_unit": 1}
        server.push(
            "1", {"domain": "echo-ratelimit", "descriptors": [{"key": "PATH", "value": "/", "rate_limit": limit}]}
        )
        process = start(environ | {"CONFIG_GRPC_XDS_SERVER_URL": f"localhost:{server.port}"})
        process.until_healthy()
        process.until(lambda: "PATH_/: unit=DAY" in process.get(process.debug, "/rlconfig")[1])
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        codes = [ask(f"127.0.0.1:{process.grpc}", credentials) for _ in range(3)]
        assert codes == [Code.OK, Code.OVER_LIMIT, Code.OVER_LIMIT]
        series = 'ratelimit_service_rate_limit_over_limit{domain="echo-ratelimit",key1="PATH_/"} 2'
        process.until(lambda: series in process.get(process.metrics, "/metrics")[1])
        server.push("2")
        process.until(lambda: process.get(process.debug, "/rlconfig") == (200, ""))
        assert ask(f"127.0.0.1:{process.grpc}", credentials) is Code.OK
    finally:
        server.stop()


def test_the_http_port_refuses_what_it_does_not_serve(start: Callable[..., Process], tmp_path: Path) -> None:
    mount(tmp_path / "data/ratelimit/config", CONFIG)
    process = start(ISTIO)
    process.until_healthy()
    assert [process.get(process.http, path)[0] for path in ("/json", "/", "/metrics", "/rlconfig")] == [
        405,
        404,
        404,
        404,
    ]
    assert process.post(json.dumps({"domain": "x" * 40_000}))[0] == 413
    assert process.post(CALL)[0] == 200


def test_a_program_of_its_name_passes_arguments_over(start: Callable[..., Process], tmp_path: Path) -> None:
    mount(tmp_path / "data/ratelimit/config", CONFIG)
    process = start(CONTOUR, argv=["-c", "from extauth.cli import ratelimit; ratelimit()", "--flag", "argument"])
    process.until_healthy()
    assert process.post(CALL)[0] == 200


def test_the_ports_are_for_normal_mode_too(start: Callable[..., Process], tmp_path: Path) -> None:
    mount(tmp_path / "data/ratelimit/config", CONFIG, "limits")
    http, metrics = free_port(), free_port()
    settings = {
        "EXTAUTH_CONFIG": str(tmp_path / "data/ratelimit"),
        "EXTAUTH_CONFIG_FILES": "visible:config",
        "EXTAUTH_HTTP_LISTEN": f"127.0.0.1:{http}",
        "EXTAUTH_METRICS_LISTEN": f"127.0.0.1:{metrics}",
        "EXTAUTH_METRICS_PATH": "/m",
        "EXTAUTH_ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        "EXTAUTH_GRPC_LISTEN": f"127.0.0.1:{free_port()}",
        "EXTAUTH_REDIS_URL": "memory:",
    }
    process = start(settings, argv=["-m", "extauth", "serve"])
    process.until(lambda: process.get(http, "/healthcheck") == (200, "OK"))
    process.http = http
    assert [process.post(CALL)[0] for _ in range(3)] == [200, 200, 429]
    assert "extauth_decisions_total" in process.get(metrics, "/m")[1]
