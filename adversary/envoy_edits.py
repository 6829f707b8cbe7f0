"""Changes to the configuration of Envoy, as functions of a file's name and its content."""

from typing import Any


def widen(name: str, file: dict[str, Any]) -> None:
    """Give Envoy's edge the defaults for what a client may send, tracing, and descriptors that quote the path."""
    if name != "envoy.yaml":
        return
    edge = file["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    del edge["max_request_headers_kb"]
    edge["tracing"] = {
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": "nowhere"}, "timeout": "0.25s"},
                "service_name": "edge",
            },
        }
    }
    actions = [{"request_headers": {"header_name": ":path", "descriptor_key": key}} for key in ("path_a", "path_b")]
    limits = edge["route_config"]["virtual_hosts"][0]["routes"][-1]["route"]["rate_limits"]
    limits += [{"actions": [action]} for action in actions]
    file["static_resources"]["clusters"].append(
        {
            "name": "nowhere",
            "type": "STATIC",
            "connect_timeout": "0.1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }
            },
            "load_assignment": {
                "cluster_name": "nowhere",
                "endpoints": [
                    {
                        "lb_endpoints": [
                            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}}
                        ]
                    }
                ],
            },
        }
    )


def bare(name: str, file: dict[str, Any]) -> None:
    """Take away what protects Envoy's connection to extauth from resets, which leaves Envoy's own defaults."""
    if name == "envoy.yaml":
        del file["layered_runtime"]
        edge = file["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        del edge["http2_protocol_options"]["max_concurrent_streams"]
    elif name == "cds.yaml":
        cluster = file["resources"][0]
        options = cluster["typed_extension_protocol_options"]
        http2 = next(iter(options.values()))["explicit_http_config"]["http2_protocol_options"]
        del http2["max_outbound_control_frames"], http2["max_outbound_frames"]
        del cluster["circuit_breakers"]
