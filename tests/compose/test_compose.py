"""The whole system in containers, as `docker compose up --build` starts it. What it does, not how fast."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter

import pytest
from docker.models.containers import Container

from tests.compose.project import SERVICES, Project, service
from tests.support.wait import until

# On a machine that has built no image yet the first test waits minutes for them.
pytestmark = pytest.mark.timeout(600)

API = "http://127.0.0.1:8080/"
PROMETHEUS = "http://127.0.0.1:9090"


def statuses(count: int, key: str | None = None) -> list[int]:
    """The status of each of `count` requests through Envoy."""

    def ask() -> int:
        request = urllib.request.Request(API, headers={"x-api-key": key} if key else {})
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    return [ask() for _ in range(count)]


def page(port: int) -> tuple[int, str]:
    """Status and type of the page at a port of this machine."""
    with urllib.request.urlopen(f"http://localhost:{port}/", timeout=5) as response:
        return response.status, response.headers["content-type"]


def inside(container: Container, *command: str) -> tuple[int, str]:
    """Exit code and output of a command in the container."""
    done = container.exec_run(list(command))
    assert done.exit_code is not None
    assert isinstance(done.output, bytes)
    return done.exit_code, done.output.decode()


def query(promql: str) -> dict[str, float]:
    """Instance to value of an instant query."""
    url = f"{PROMETHEUS}/api/v1/query?{urllib.parse.urlencode({'query': promql})}"
    with urllib.request.urlopen(url, timeout=5) as response:
        rows = json.load(response)["data"]["result"]
    return {row["metric"].get("instance", ""): float(row["value"][1]) for row in rows}


def test_all_are_up_and_extauth_twice(project: Project) -> None:
    assert Counter(service(one) for one in project.containers()) == {**dict.fromkeys(SERVICES, 1), "extauth": 2}
    assert {one.health for one in project.containers()} == {"healthy"}


@pytest.mark.parametrize(("key", "limit"), [(None, 2), ("free-tier-key", 10), ("premium-tier-key", 20)])
def test_a_tier_admits_its_limit(project: Project, key: str | None, limit: int) -> None:
    assert statuses(limit + 1, key) == [200] * limit + [429]


def test_an_edit_in_the_mounted_folder_is_live(project: Project) -> None:
    rules = project.folder / "envoy/descriptors/api.yaml"
    shipped = rules.read_text()
    assert statuses(11, "free-tier-key")[-1] == 429
    try:
        # Saved as many editors do, under another name that then takes the place of the old.
        edited = rules.with_name(".api.yaml.new")
        edited.write_text(shipped.replace("value: free-tier-key, tier: free", "value: free-tier-key, tier: premium"))
        edited.replace(rules)
        until(lambda: statuses(1, "free-tier-key") == [200], "the eleventh request passes")
    finally:
        rules.write_text(shipped)


def test_published_is_the_api_and_on_loopback_prometheus_grafana_and_the_live_pages(project: Project) -> None:
    published = {
        (service(one), binding["HostIp"], port, binding["HostPort"])
        for one in project.containers()
        for port, bindings in one.attrs["HostConfig"]["PortBindings"].items()
        for binding in bindings
    }
    assert published == {
        ("envoy", "", "8080/tcp", "8080"),
        ("prometheus", "127.0.0.1", "9090/tcp", "9090"),
        ("extauth", "127.0.0.1", "6070/tcp", "6070-6071"),
    }
    assert {page(port) for port in (6070, 6071)} == {(200, "text/html; charset=utf-8")}
    config = json.loads(project.compose("config", "--format", "json"))
    declared = {
        (name, port.get("host_ip", ""), port["target"], port["published"])
        for name, options in config["services"].items()
        for port in options.get("ports", [])
    }
    assert declared == {
        ("envoy", "", 8080, "8080"),
        ("prometheus", "127.0.0.1", 9090, "9090"),
        ("grafana", "127.0.0.1", 3000, "3000"),
        ("extauth", "127.0.0.1", 6070, "6070-6071"),
    }


def test_containers_can_do_little(project: Project) -> None:
    for one in project.containers():
        code, status = inside(one, "cat", "/proc/1/status")
        assert code == 0, one.name
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert "0" not in fields["Uid"].split(), f"{one.name} runs as root"
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, f"{one.name} holds capabilities"
        assert fields["NoNewPrivs"] == "1", f"{one.name} may gain privileges"
        code, output = inside(one, "touch", "/written")
        assert code != 0, one.name
        assert "Read-only file system" in output, one.name
        limits = one.attrs["HostConfig"]
        assert limits["Memory"] > 0, one.name
        assert limits["PidsLimit"] > 0, one.name


def test_only_what_must_talk_can(project: Project) -> None:
    config = json.loads(project.compose("config", "--format", "json"))
    networks = {name: set(options["networks"]) for name, options in config["services"].items()}
    conversations = {
        frozenset((one, other))
        for one, its in networks.items()
        for other, others in networks.items()
        if one < other and its & others
    }
    assert conversations == {
        frozenset(pair)
        for pair in (
            ("envoy", "extauth"),
            ("envoy", "echo"),
            ("extauth", "redis"),
            ("prometheus", "extauth"),
            ("prometheus", "envoy"),
            ("grafana", "prometheus"),
        )
    }
    [redis] = project.containers("redis")
    [store] = redis.attrs["NetworkSettings"]["Networks"].values()
    reach_redis = ("timeout", "2", "bash", "-c", f"exec 3<>/dev/tcp/{store['IPAddress']}/6379")
    reached = {service(one): inside(one, *reach_redis)[0] == 0 for one in project.containers() if one != redis}
    assert reached == {"extauth": True, "envoy": False, "echo": False, "prometheus": False}


def test_prometheus_reaches_both_replicas_and_envoy(project: Project) -> None:
    until(lambda: sorted(query('up{job="extauth"}').values()) == [1, 1], "both replicas are up")
    until(lambda: query('up{job="envoy"}') == {"envoy:9902": 1}, "envoy is up")
    assert statuses(1) == [200]
    until(lambda: sum(query("http_requests_total").values()) >= 1, "the request is counted")


def test_a_replica_stops_cleanly_and_is_not_missed(project: Project) -> None:
    stopped = project.containers("extauth")[0]
    stopped.stop(timeout=20)
    try:
        stopped.reload()
        assert stopped.attrs["State"]["ExitCode"] == 0, stopped.logs(tail=20).decode()
        assert statuses(11, "free-tier-key") == [200] * 10 + [429]
    finally:
        # `up`, since the reply of `docker start` does not wait for health.
        project.compose("up", "--detach", "--wait", "--wait-timeout", "60", "--no-build", "extauth")


def test_redis_refuses_writes_rather_than_evict_and_keeps_nothing_on_disk(project: Project) -> None:
    [redis] = project.containers("redis")
    for setting, value in (
        ("maxmemory-policy", "noeviction"),
        ("maxmemory", str(256 * 2**20)),
        ("appendonly", "no"),
        ("save", ""),
    ):
        assert inside(redis, "redis-cli", "config", "get", setting)[1].split("\n")[:2] == [setting, value]
