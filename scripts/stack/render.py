"""Copies of the shipped configuration for one stack: its ports, and Prometheus's targets of the local mode."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from scripts.stack.ports import Ports


def _mappings(node: object) -> Iterator[dict[str, object]]:
    """Every mapping in a YAML document."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _mappings(child)


def _endpoint(port: int) -> dict[str, object]:
    return {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}


Edit = Callable[[str, dict[str, Any]], None]
"""(file's name, its content) → changed in place."""


def envoy(
    shipped: Path, target: Path, ports: Ports, ratelimit_timeout_s: float | None, edit: Edit = lambda _name, _file: None
) -> None:
    """Write envoy.yaml, cds.yaml and lds.yaml into target: the shipped ones, on other ports and on loopback only."""
    default = Ports.default()
    moved = {
        default.edge: ports.edge,
        default.envoy_admin: ports.envoy_admin,
        default.envoy_stats: ports.envoy_stats,
        default.echo: ports.echo,
    }
    target.mkdir(parents=True, exist_ok=True)
    for source in (shipped / "envoy.yaml", shipped / "local" / "cds.yaml", shipped / "local" / "lds.yaml"):
        document = yaml.safe_load(source.read_text())
        for mapping in _mappings(document):
            if mapping.get("cluster_name") == "extauth" and "endpoints" in mapping:
                mapping["endpoints"] = [{"lb_endpoints": [_endpoint(replica.grpc) for replica in ports.extauth]}]
            if ratelimit_timeout_s is not None:
                # The time for the whole call, and for one try of it.
                for beside, name in (("rate_limit_service", "timeout"), ("base_interval", "max_interval")):
                    if beside in mapping:
                        mapping[name] = f"{ratelimit_timeout_s}s"
            port = mapping.get("port_value")
            if isinstance(port, int) and port in moved:
                mapping.update(address="127.0.0.1", port_value=moved[port])
        edit(source.name, document)
        (target / source.name).write_text(yaml.safe_dump(document, sort_keys=False))


def prometheus(shipped: Path, target: Path, ports: Ports) -> None:
    """Write prometheus.yml, its rules, and the local targets beside it, where it looks for them, into target.

    It looks for replicas in these files alone: no DNS outside of Compose knows them, and it would be asked without end.
    """
    default = Ports.default()
    moved = {default.envoy_stats: ports.envoy_stats, default.prometheus: ports.prometheus}
    replicas = [f"127.0.0.1:{replica.admin}" for replica in ports.extauth]
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(shipped / "rules", target / "rules")
    config = yaml.safe_load((shipped / "prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        job.pop("dns_sd_configs", None)
    (target / "prometheus.yml").write_text(yaml.safe_dump(config, sort_keys=False))
    (target / "targets").mkdir()
    for source in (shipped / "targets" / "local").glob("*.yml"):
        document = yaml.safe_load(source.read_text())
        for group in document:
            ports_there = [int(address.rpartition(":")[2]) for address in group["targets"]]
            if source.stem == "extauth":
                group["targets"] = replicas
            else:
                group["targets"] = [f"127.0.0.1:{moved.get(port, port)}" for port in ports_there]
        (target / "targets" / source.name).write_text(yaml.safe_dump(document))
