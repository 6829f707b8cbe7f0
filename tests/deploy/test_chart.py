"""The Helm chart: that what it deploys is what extauth, its alerts and its health pages mean."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauth.config.sources.files import FileSource
from extauth.settings import Settings, read_settings, unknown_variables
from tests.deploy.charts import CHART, helm

ROOT = Path(__file__).parents[2]
STOP_GRACE_S = 5
SENTINELS = [f"redis-node-{i}.redis-headless:26379" for i in range(3)]
NODES = [f"redis-cluster-{i}.redis-cluster-headless:6379" for i in range(2)]
Manifest = dict[str, Any]


def made(*options: str) -> dict[str, Manifest]:
    """The manifests that the chart makes, by their kinds."""
    done = helm(*options)
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}


def pod(manifests: dict[str, Manifest]) -> Manifest:
    spec: Manifest = manifests["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(manifests: dict[str, Manifest]) -> Manifest:
    one: Manifest
    [one] = pod(manifests)["containers"]
    return one


def environment(manifests: dict[str, Manifest]) -> dict[str, str]:
    """The variables, with references to others filled in as Kubernetes does; a Secret's value is `from NAME/KEY`."""
    environ = {"POD_IP": "10.1.2.3"}
    for variable in container(manifests)["env"]:
        name, source = variable["name"], variable.get("valueFrom", {})
        if "secretKeyRef" in source:
            environ[name] = f"from-{source['secretKeyRef']['name']}-{source['secretKeyRef']['key']}"
        elif "fieldRef" not in source:
            for known, value in environ.items():
                variable["value"] = variable["value"].replace(f"$({known})", value)
            environ[name] = variable["value"]
    return environ


def settings(*options: str) -> Settings:
    """What extauth reads in the pod."""
    environ = environment(made(*options))
    assert unknown_variables(environ) == []
    return read_settings(environ)


def url(*options: str) -> str:
    return settings(*options).redis_url.get_secret_value()


def test_what_it_sets_is_what_extauth_reads() -> None:
    read = settings("--set", "settings.EXTAUTH_ON_STORE_FAILURE=deny")
    assert (read.grpc_listen, read.admin_listen, read.advertise) == ("0.0.0.0:8081", "0.0.0.0:6070", "10.1.2.3:8081")
    assert str(read.config) == "/etc/extauth"
    assert read.on_store_failure == "deny"
    assert settings("--set", "ipv6=true").advertise == "[10.1.2.3]:8081"


def test_numbers_and_flags_arrive_as_they_are_written(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        "settings: {EXTAUTH_MEMORY_BYTES: 1073741824, EXTAUTH_REDIS_TIMEOUT: 0.05, EXTAUTH_SHADOW_MODE: true}"
    )
    read = settings("-f", str(values))
    assert (read.memory_bytes, read.redis_timeout, read.shadow_mode) == (1_073_741_824, 0.05, True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "redis://redis:6379"),
        (
            ["--set", "redis.tls=true,redis.db=2,redis.options=ssl_check_hostname=false"],
            "rediss://redis:6379/2?ssl_check_hostname=false",
        ),
        (["--set", "redis.username=u,redis.passwordSecret.name=s"], "redis://u:from-s-password@redis:6379"),
        (["--set", "redis.urlSecret.name=s"], "from-s-url"),
        (
            ["-f", str(CHART / "values-sentinel.yaml")],
            "redis+sentinel://:from-redis-redis-password@" + ",".join(SENTINELS) + "/mymaster",
        ),
        (
            ["-f", str(CHART / "values-cluster.yaml")],
            "redis+cluster://:from-redis-cluster-redis-password@" + ",".join(NODES),
        ),
    ],
)
def test_redis(options: list[str], expected: str) -> None:
    environ = environment(made(*options))
    assert environ["EXTAUTH_REDIS_URL"] == expected
    if "//" in expected:
        assert url(*options) == expected


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("redis.mode=sentinel", "redis.master"),
        ("redis.mode=cluster,redis.db=1", "redis.db"),
        ("redis.hosts={a:1,b:2}", "redis.hosts"),
        ("redis.hosts={a}", "/redis/hosts/0"),
        ("redis.username=u", "redis.passwordSecret"),
        ("redis.pasword=u", "pasword"),
        ("settings.extauth_workers=2", "extauth_workers"),
        ("drainDelay=301", "drainDelay"),
        ("service.type=LoadBalancer", "service.headless"),
    ],
)
def test_a_mistake_is_named(options: str, said: str) -> None:
    done = helm("--set", options)
    assert done.returncode != 0
    assert said in done.stderr


def test_the_pod_has_no_rights_and_writes_nothing() -> None:
    manifests = made()
    assert pod(manifests)["securityContext"]["runAsNonRoot"]
    assert pod(manifests)["securityContext"]["runAsUser"] == 65534
    assert container(manifests)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert all(mount["readOnly"] for mount in container(manifests)["volumeMounts"])
    assert not pod(manifests)["automountServiceAccountToken"]


@pytest.mark.parametrize("delay", ["0", "2.5", "60"])
def test_it_has_time_to_drain(delay: str) -> None:
    manifests = made("--set-json", f"drainDelay={delay}")
    read = read_settings(environment(manifests))
    assert read.drain_delay == float(delay)
    assert pod(manifests)["terminationGracePeriodSeconds"] > read.drain_delay + STOP_GRACE_S


def test_the_probes_ask_what_the_admin_port_answers() -> None:
    one = container(made())
    ports = {port["name"]: port["containerPort"] for port in one["ports"]}
    paths = {probe: one[f"{probe}Probe"]["httpGet"] for probe in ("liveness", "readiness", "startup")}
    assert {each["path"] for each in paths.values()} == {"/healthz", "/readyz"}
    assert paths["liveness"]["path"] == "/healthz", "draining, or a store that is away, is no reason for a restart"
    assert {ports[each["port"]] for each in paths.values()} == {6070}


def test_the_rules_load_and_an_edit_of_them_reaches_the_pods_without_a_restart(tmp_path: Path) -> None:
    manifests = made()
    for name, text in manifests["ConfigMap"]["data"].items():
        (tmp_path / name).write_text(text)
    rules = FileSource(tmp_path, merge=False).read()
    assert not rules.problems
    assert len(rules) > 0
    [mount] = container(manifests)["volumeMounts"]
    assert "subPath" not in mount
    edited = made("--set-string", "config.other\\.yaml=domain: other")
    assert edited["ConfigMap"] != manifests["ConfigMap"]
    assert edited["Deployment"] == manifests["Deployment"]
    named = made("--set", "existingConfigMap=mine")
    assert "ConfigMap" not in named
    assert pod(named)["volumes"] == [{"name": "config", "configMap": {"name": "mine"}}]


def test_the_alerts_are_those_of_observability() -> None:
    shipped = [
        group
        for path in sorted((ROOT / "observability/rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    assert made("--set", "prometheusRule.enabled=true")["PrometheusRule"]["spec"] == {"groups": shipped}
    elsewhere = made("--set", "prometheusRule.enabled=true,prometheusRule.runbook=https://wiki.example/x")
    text = str(elsewhere["PrometheusRule"])
    assert "https://wiki.example/x#extauthfailopen" in text
    assert "docs/runbook.md" not in text


def test_scrapes_carry_the_job_that_alerts_and_dashboards_ask_for() -> None:
    manifests = made("--set", "serviceMonitor.enabled=true")
    [endpoint] = manifests["ServiceMonitor"]["spec"]["endpoints"]
    assert {"targetLabel": "job", "replacement": "extauth"} in endpoint["relabelings"]
    assert endpoint["port"] in {port["name"] for port in manifests["Service"]["spec"]["ports"]}
    labels = manifests["Service"]["metadata"]["labels"]
    assert manifests["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_replicas_reach_one_another_where_a_network_policy_names_the_clients() -> None:
    policy = made("--set", "networkPolicy.enabled=true,networkPolicy.clients[0].namespaceSelector.matchLabels.a=b")[
        "NetworkPolicy"
    ]["spec"]
    labels = policy["podSelector"]["matchLabels"]
    replicas = {"podSelector": {"matchLabels": labels}}
    assert policy["ingress"][0]["from"] == [{"namespaceSelector": {"matchLabels": {"a": "b"}}}, replicas]
    assert {"ports": [{"port": 8081, "protocol": "TCP"}], "to": [replicas]} in policy["egress"]


def test_its_version_is_that_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == version("extauth")
    assert container(made())["image"] == f"extauth:{version('extauth')}"


def test_all_select_the_pods() -> None:
    manifests = made("--set", "networkPolicy.enabled=true,autoscaling.enabled=true")
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        manifests["Deployment"]["spec"]["selector"]["matchLabels"],
        manifests["Service"]["spec"]["selector"],
        manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert "replicas" not in manifests["Deployment"]["spec"], "or each upgrade would undo the autoscaler's number"
    target = manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
    assert target == manifests["Deployment"]["metadata"]["name"]
