"""One Envoy with a listener before each service."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.engines import free_ports, until_listening
from bench.peers.services import Service, start
from scripts.stack import programs
from scripts.stack.upstream import UPSTREAM


@contextmanager
def envoy_before(services: tuple[Service, ...], folder: Path) -> Iterator[dict[str, int]]:
    """Start one Envoy with a listener before each service; yields the listeners' ports by the services' names."""
    admin, upstream, *ports = free_ports(2 + len(services))
    listeners = dict(zip((service.name for service in services), ports, strict=True))
    config = folder / "envoy.yaml"
    parts = [(service, listeners[service.name]) for service in services]
    config.write_text(
        UPSTREAM.replace("admin: {}", ADMIN.replace("PORT", str(admin))).replace("PORT", str(upstream))
        + "".join(_fill(LISTENER, service, port) for service, port in parts)
        + CLUSTERS.replace("UPSTREAM", str(upstream))
        + "".join(_fill(CLUSTER, service, port) for service, port in parts)
    )
    argv = [programs.envoy(), "-c", config, "--log-level", "error", "--disable-hot-restart", "--concurrency", 2]
    with ExitStack() as stack:
        process = start(stack, "envoy", argv, admin, folder=folder, env={})
        for port in ports:
            until_listening(port, process)
        yield listeners


def _fill(text: str, service: Service, port: int) -> str:
    return text.replace("NAME", service.name).replace("LISTEN", str(port)).replace("SERVICE", str(service.port))


ADMIN = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: PORT}}}"

# The path is the API key, so that a load generator that knows only URLs can ask for many keys.
LISTENER = """\
  - address: {socket_address: {address: 127.0.0.1, port_value: LISTEN}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          http_filters:
          - name: envoy.filters.http.ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
              domain: api
              timeout: 5s
              failure_mode_deny: true
              rate_limit_service:
                transport_api_version: V3
                grpc_service: {envoy_grpc: {cluster_name: "NAME"}}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              rate_limits:
              - actions: [{request_headers: {header_name: ":path", descriptor_key: api_key}}]
              - actions: [{masked_remote_address: {}}]
              - actions: [{generic_key: {descriptor_key: path, descriptor_value: /}}]
              routes: [{match: {prefix: /}, route: {cluster: upstream}}]
"""

CLUSTERS = """\
  clusters:
  - name: upstream
    load_assignment:
      cluster_name: upstream
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: UPSTREAM}}}}]}]
"""

CLUSTER = """\
  - name: "NAME"
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment:
      cluster_name: "NAME"
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: SERVICE}}}}]}]
"""
