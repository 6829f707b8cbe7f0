"""The pages in docs/deploy: that what they show can be used as it stands."""

import copy
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from extauth.compat.environment import translate
from extauth.config.sources.files import FileSource
from extauth.settings import read_settings
from scripts.stack import programs
from tests.deploy.charts import helm
from tests.deploy.pages import PAGES, Block, blocks, container_on, only


@pytest.mark.parametrize("page", ["istio", "contour"])
def test_a_deployment_of_envoyproxy_ratelimit_needs_its_image_alone(page: str, tmp_path: Path) -> None:
    one = container_on(page)
    assert one["command"] == ["/bin/ratelimit"]
    environ = {variable["name"]: variable["value"] for variable in one["env"]}
    [mount] = one["volumeMounts"]
    read = read_settings(translate(environ).variables)
    assert str(read.config) == mount["mountPath"]
    host, redis = environ.get("GRPC_HOST", "0.0.0.0"), environ["REDIS_URL"]
    assert read.grpc_listen == (f"[{host}]:8081" if ":" in host else f"{host}:8081")
    assert redis in read.redis_url.get_secret_value()


def test_the_rules_of_istio_s_page_load(tmp_path: Path) -> None:
    for name, text in only("istio", "ConfigMap")["data"].items():
        (tmp_path / name).write_text(text)
    rules = FileSource(tmp_path, merge=False).read()
    assert (len(rules), rules.problems) == (2, ())


def test_the_values_on_the_page_of_the_chart_are_some(tmp_path: Path) -> None:
    [values] = blocks("kubernetes")
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    done = helm("-f", str(file))
    assert done.returncode == 0, done.stderr


def validate(config: Block, tmp_path: Path) -> None:
    file = tmp_path / "envoy.yaml"
    file.write_text(yaml.safe_dump(config))
    command = [str(programs.envoy()), "--mode", "validate", "-c", str(file), "--log-level", "error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def with_rate_limit(config: Block, name: str, rate_limit: Block, rate_limits: list[Block]) -> Block:
    """An Envoy configuration with another filter, descriptors and name for the cluster that it asks."""
    changed = copy.deepcopy(config)
    resources = changed["static_resources"]
    manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"][0] = rate_limit
    manager["route_config"]["virtual_hosts"][0]["rate_limits"] = rate_limits
    cluster = resources["clusters"][1]
    cluster["name"] = cluster["load_assignment"]["cluster_name"] = name
    return changed


def in_folder(block: Any, folder: Path) -> Any:  # noqa: ANN401 - any YAML
    """With /certs/ in another folder."""
    return yaml.safe_load(yaml.safe_dump(block).replace("/certs/", f"{folder}/"))


def test_envoy_takes_its_page(tmp_path: Path) -> None:
    config, tls = blocks("envoy")
    validate(config, tmp_path)
    authority = trustme.CA()
    certificate = authority.issue_cert("envoy")
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "tls.crt"))
    certificate.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    config["static_resources"]["clusters"][1] |= in_folder(tls, tmp_path)
    validate(config, tmp_path)


def test_envoy_takes_what_istio_s_page_adds(tmp_path: Path) -> None:
    added, actions = (patch["patch"]["value"] for patch in only("istio", "EnvoyFilter")["spec"]["configPatches"])
    envoy = added["typed_config"]["rate_limit_service"]["grpc_service"]["envoy_grpc"]
    validate(with_rate_limit(blocks("envoy")[0], envoy["cluster_name"], added, actions["rate_limits"]), tmp_path)


def changed_lines() -> Iterator[tuple[str, str]]:
    for path in sorted(PAGES.glob("*.md")):
        for line in re.findall(r"^ *(.*) # this line$", path.read_text(), re.MULTILINE):
            yield path.stem, line


def test_one_line_changes_the_image() -> None:
    assert list(changed_lines()) == [
        ("contour", "image: registry.example/extauth:0.1.0"),
        ("envoy-gateway", "image: registry.example/extauth:0.1.0"),
        ("envoy-gateway", "image: registry.example/extauth:0.1.0"),
        ("istio", "image: registry.example/extauth:0.1.0"),
    ]
    config, values, _ = blocks("envoy-gateway")
    assert config["provider"]["kubernetes"]["rateLimitDeployment"]["container"]["image"]
    assert values["global"]["images"]["ratelimit"]["image"]
