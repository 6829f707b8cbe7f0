"""The command `extauth serve`, as a process."""

import http.client
import json
import signal
import socket
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extauth.rules.masking import Masking
from tests.support.ports import free_port
from tests.support.process import Served, page, served_with
from tests.support.stores import Store

KEY = "a-key-nobody-may-see"
CONFIG = f"""
domain: api
descriptors: [{{key: api_key, value: {KEY}, rate_limit: {{unit: minute, requests_per_unit: 1}}}}]
"""


@pytest.fixture
def serve(own_store: Store) -> Iterator[Callable[..., Served]]:
    with served_with(own_store, CONFIG) as start:
        yield start


def test_admin_pages(serve: Callable[..., Served]) -> None:
    served = serve()
    served.until_ready()
    ready = {"status": "ready", "rules": 1, "store": "up", "breaker": "closed", "replicas": 1, "cut_off": False}
    assert json.loads(served.get("/readyz")[1]) == ready
    assert served.get("/healthz") == (200, "ok\n")
    assert "extauth_rules 1.0" in served.get("/metrics")[1]
    status, rules = served.get("/rules")
    shown = json.loads(rules)["domains"][0]["descriptors"][0]["value"]
    assert (status, shown) == (200, Masking().mask(KEY))
    assert KEY not in rules
    assert served.get("/other")[0] == 404


def test_lines_name_the_replica_as_the_others_know_it(serve: Callable[..., Served]) -> None:
    served = serve(EXTAUTH_LOG_FORMAT="json", EXTAUTH_ADVERTISE="replica-7.internal:8081")
    served.until_ready()
    served.until(lambda: len(served.lines()) > 0)
    assert {line["replica"] for line in served.lines()} == {"replica-7.internal:8081"}


def test_pages_for_people_are_served_under_the_names_of_a_setting(serve: Callable[..., Served]) -> None:
    served = serve(EXTAUTH_ADMIN_HOSTS="admin.internal,extauth")
    served.until_ready()
    for host, status in {"extauth:6070": 200, "admin.internal": 200, "evil.example": 421}.items():
        assert page(served.admin_port, "/rules", Host=host)[0] == status


def test_it_says_once_what_it_serves_and_never_a_key(serve: Callable[..., Served]) -> None:
    served = serve(EXTAUTH_LOG_FORMAT="json", EXTAUTH_REDIS_ULR="x", EXTAUTH_LOG_LEVEL="debug", SHADOW_MODE="true")
    served.until_ready()
    with grpc.insecure_channel(f"unix:{served.folder}/grpc") as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
        )
        entry = b"\x0a\x07api_key\x12" + bytes([len(KEY)]) + KEY.encode()
        descriptor = b"\x0a" + bytes([len(entry)]) + entry
        for _ in range(20):
            ask(b"\x0a\x03api\x12" + bytes([len(descriptor)]) + descriptor)
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(20) == 0
    lines = served.lines()
    assert {(line["version"], line["replica"]) for line in lines} == {(version("extauth"), socket.gethostname())}
    (serving,) = (line for line in lines if line["event"] == "serving")
    assert serving["grpc"] == f"unix:{served.folder}/grpc"
    assert serving["config"] == str(served.folder / "api.yaml")
    assert (serving["domains"], serving["rules"]) == (["api"], 1)
    assert [line["reason"] for line in lines if line["event"] == "unknown_variable"] == [
        "EXTAUTH_REDIS_ULR is no setting; did you mean EXTAUTH_REDIS_URL?"
    ]
    assert [(line["reason"], line["fix"]) for line in lines if line["event"] == "reference_variable"] == [
        (
            "SHADOW_MODE is envoyproxy/ratelimit's; here it is EXTAUTH_SHADOW_MODE",
            "set that, or start `extauth ratelimit`",
        )
    ]
    decisions = [line for line in lines if line["event"] == "decision"]
    assert 1 <= len(decisions) <= 10, "a sample of them"
    assert decisions[0]["descriptors"] == [{"entries": [f"api_key={Masking().mask(KEY)}"]}]
    assert decisions[0]["rules"] == [f"api_key_{Masking().mask(KEY)}"]
    assert (decisions[0]["allowed"], decisions[0]["denied"]) == (1, 0)
    assert len(lines) - len(decisions) == 6, "and store_up, draining, stopped: no line a request"
    assert KEY not in served.log.read_text()


def test_sigterm_tells_health_checks_first(serve: Callable[..., Served]) -> None:
    served = serve(EXTAUTH_DRAIN_DELAY="30")
    served.until_ready()
    with grpc.insecure_channel(f"unix:{served.folder}/grpc") as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def status() -> int:
            return int(health.Check(health_pb2.HealthCheckRequest(), timeout=10).status)

        assert status() == health_pb2.HealthCheckResponse.SERVING
        served.process.send_signal(signal.SIGTERM)
        served.until(lambda: status() == health_pb2.HealthCheckResponse.NOT_SERVING)
    served.until(lambda: served.get("/readyz")[0] == 503)
    assert served.get("/healthz")[0] == 200
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(20) == 0, "a second signal ends the wait"


def test_a_store_that_is_down_is_a_detail(serve: Callable[..., Served], own_store: Store) -> None:
    own_store.stop()
    served = serve(EXTAUTH_LOG_FORMAT="json")
    served.until_ready()
    served.until(lambda: "extauth_store_up 0.0" in served.get("/metrics")[1])
    assert json.loads(served.get("/readyz")[1])["store"].startswith("down: no connection to Redis")
    own_store.start()
    served.until(lambda: json.loads(served.get("/readyz")[1])["store"] == "up")
    served.until(lambda: "store_up" in [line["event"] for line in served.lines()])
    events = [line["event"] for line in served.lines()]
    down = served.lines()[events.index("store_down")]
    assert down["callers_get"] == "each replica counts by itself, from where the store was"
    assert events.index("store_down") < events.index("store_up")


def failure(served: Served) -> str:
    assert served.process.wait(30) == 1
    return served.log.read_text()


def test_wrong_settings_stop_the_start_with_a_line_each(serve: Callable[..., Served]) -> None:
    assert failure(serve(EXTAUTH_ENGINE="go", EXTAUTH_REDIS_TIMEOUT="soon")) == (
        "EXTAUTH_ENGINE='go' is not allowed; allowed: h2 or grpcio\n"
        "EXTAUTH_REDIS_TIMEOUT='soon' is not allowed; allowed: seconds, 0.001 to 60\n"
    )


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "redis://:hush@127.0.0.1:1?encoding=hush",
            "=… is not allowed: the option encoding is unknown; the options are ",
        ),
        ("redis://:hush@127.0.0.1:1?db=hush", "=… is not allowed: the option db must be a number; allowed: redis://"),
        ("rediss://:hush@127.0.0.1:1?db=1&ssl_ciphers=hush", ": the option ssl_ciphers has no value that will do\n"),
        (
            f"rediss://:hush@127.0.0.1:1?ssl_certfile={__file__}",
            ": the option ssl_certfile has no value that will do\n",
        ),
        (
            "rediss://:hush@127.0.0.1:1?ssl_ca_certs=/hush",
            ": the file of the option ssl_ca_certs cannot be read: No such file or directory\n",
        ),
    ],
)
def test_redis_options_that_cannot_work_stop_the_start(serve: Callable[..., Served], url: str, said: str) -> None:
    shown = failure(serve(EXTAUTH_REDIS_URL=url))
    assert shown.startswith(f"EXTAUTH_REDIS_URL{said}")
    assert "hush" not in shown


def test_a_wrong_config_stops_the_start(serve: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("domain: d\ndescripters: []")
    assert failure(serve(EXTAUTH_CONFIG=str(tmp_path))) == (
        f"{tmp_path}/bad.yaml:2:1: unknown key 'descripters'; did you mean 'descriptors'?\n"
    )


def test_a_taken_port_stops_the_start(serve: Callable[..., Served]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"EXTAUTH_ADMIN_LISTEN={address}: cannot listen there: " in failure(serve(EXTAUTH_ADMIN_LISTEN=address))
        assert f"EXTAUTH_GRPC_LISTEN={address}: cannot listen there" in failure(serve(EXTAUTH_GRPC_LISTEN=address))


def test_a_start_with_a_broken_file_goes_on_with_the_others_where_that_is_set(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("domain: bad\ndescripters: []")
    (tmp_path / "good.yaml").write_text("domain: good")
    problem = f"{tmp_path}/bad.yaml:2:1: unknown key 'descripters'; did you mean 'descriptors'?"
    assert failure(serve(EXTAUTH_CONFIG=str(tmp_path))) == f"{problem}\n"
    served = serve(EXTAUTH_CONFIG=str(tmp_path), EXTAUTH_KEEP_GOING="true", EXTAUTH_LOG_FORMAT="json")
    served.until_ready()
    assert [line["problem"] for line in served.lines() if line["event"] == "config_rejected"] == [problem]
    shown = json.loads(served.get("/rules")[1])
    assert [domain["domain"] for domain in shown["domains"]] == ["good"]
    assert shown["problems"] == [problem]
    (tmp_path / "bad.yaml").write_text("domain: bad")
    served.until(lambda: len(json.loads(served.get("/rules")[1])["domains"]) == 2)
    (tmp_path / "good.yaml").write_text("domain: [")
    served.until(lambda: json.loads(served.get("/rules")[1])["problems"] != [])
    kept = {domain["domain"]: "kept" in domain for domain in json.loads(served.get("/rules")[1])["domains"]}
    assert kept == {"bad": False, "good": True}
    (tmp_path / "bad.yaml").write_text("domain: bad\ndescriptors: []")
    served.until(lambda: any(line["event"] == "config_reloaded_in_part" for line in served.lines()))
    reloads = [line for line in served.lines() if str(line["event"]).startswith("config_reloaded")]
    assert [line["event"] for line in reloads] == ["config_reloaded", "config_reloaded_in_part"]
    assert (reloads[1]["reloaded"], reloads[1]["not_reloaded"]) == (["bad"], ["good"])
    assert "extauth_config_last_reload_successful 0.0" in served.get("/metrics")[1]
    (tmp_path / "good.yaml").write_text("domain: good")
    served.until(lambda: "extauth_config_last_reload_successful 1.0" in served.get("/metrics")[1])


@pytest.mark.parametrize("engine", ["h2", "grpcio"])
def test_the_address_of_everywhere_is_both_families(serve: Callable[..., Served], engine: str) -> None:
    grpc_port, admin_port = free_port(), free_port()
    listens = {"EXTAUTH_GRPC_LISTEN": f"[::]:{grpc_port}", "EXTAUTH_ADMIN_LISTEN": f"[::]:{admin_port}"}
    serve(EXTAUTH_ENGINE=engine, **listens)
    for host in ["127.0.0.1", "[::1]"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]:
        with grpc.insecure_channel(f"{host}:{grpc_port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="ratelimit")
            answer = stub.Check(request, timeout=20, wait_for_ready=True)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        admin = http.client.HTTPConnection(host.strip("[]"), admin_port, timeout=10)
        admin.request("GET", "/healthz")
        assert admin.getresponse().status == 200
        admin.close()
