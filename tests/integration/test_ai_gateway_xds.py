"""The quotas that Envoy AI Gateway pushes to a second rate limit service: from a go-control-plane server, in clear."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy_data_plane.envoy.service.ratelimit.v3 import RateLimitResponse

from extauth.rls.encode import encode_request
from extauth.rls.request import SERVICE, Descriptor, Entry
from tests.support.codes import OK, OVER_LIMIT
from tests.support.compatible import COMMON, LOCAL, Process
from tests.support.go_xds import GoXds
from tests.support.stores import Store

NODE = "envoy-ai-gateway-ratelimit"
DOMAIN = "ai-gateway-quota"
ENVIRONMENT = COMMON | LOCAL | {"CONFIG_TYPE": "GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_NODE_ID": NODE}
ENVIRONMENT |= {"FORCE_START_WITHOUT_INITIAL_CONFIG": "true", "USE_STATSD": "false", "LOG_LEVEL": "info"}
ENVIRONMENT |= {"RESPONSE_DYNAMIC_METADATA": "true"}
BACKENDS = ("provisioned", "on-demand")


def of_backend(name: str, requests: int, **more: object) -> dict[str, Any]:
    """The limit of a model at a backend."""
    limit = {"unit": "day", "requests_per_unit": requests}
    model = {"key": "model_name_override", "value": "gpt-4", "rate_limit": limit, **more}
    return {"key": "backend_name", "value": f"default/{name}", "descriptors": [model]}


@pytest.fixture
def xds() -> Iterator[GoXds]:
    server = GoXds(node=NODE)
    yield server
    server.stop()


@pytest.fixture
def service(own_store: Store, short_path: Path, xds: GoXds) -> Iterator[Process]:
    process = Process(own_store, short_path, ENVIRONMENT | {"CONFIG_GRPC_XDS_SERVER_URL": xds.address})
    yield process
    process.process.kill()
    process.process.wait()


def ask(service: Process) -> tuple[int, list[int], dict[str, Any]]:
    """The codes of an answer to a call for both backends, overall and of each, and the metadata of their rules."""
    entries = [(Entry("backend_name", f"default/{name}"), Entry("model_name_override", "gpt-4")) for name in BACKENDS]
    message = encode_request(DOMAIN, [Descriptor(each) for each in entries])
    with grpc.insecure_channel(f"127.0.0.1:{service.grpc}") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")
        answer = RateLimitResponse.parse(call(message, timeout=20, wait_for_ready=True))
    assert answer.dynamic_metadata is not None
    metadata = answer.dynamic_metadata.to_dict().get("metadata", {})
    return int(answer.overall_code), [int(status.code) for status in answer.statuses], metadata


def test_quotas_and_metadata_are_in_force(xds: GoXds, service: Process) -> None:
    service.until(lambda: bool(xds.requests()))
    assert xds.requests()[0]["node"] == NODE
    provisioned, on_demand = {"pool": {"provisioned": "yes"}}, {"pool": {"on-demand": "yes"}}
    xds.push(
        "1",
        {
            "domain": DOMAIN,
            "descriptors": [
                of_backend("provisioned", 1, quota_mode=True, metadata=provisioned),
                of_backend("on-demand", 2, quota_mode=True, metadata=on_demand),
            ],
        },
    )
    assert xds.answer_to("1")["error"] == ""
    assert [ask(service) for _ in range(3)] == [
        (OK, [OK, OK], {"pool": {"provisioned": "yes", "on-demand": "yes"}}),
        (OK, [OVER_LIMIT, OK], on_demand),  # one quota with room left is enough
        (OVER_LIMIT, [OVER_LIMIT, OVER_LIMIT], {}),
    ]
    xds.push("2", {"domain": DOMAIN, "descriptors": [of_backend("provisioned", 1), of_backend("on-demand", 9)]})
    assert xds.answer_to("2")["error"] == ""
    assert ask(service) == (OVER_LIMIT, [OVER_LIMIT, OK], {})  # a limit that is no quota denies by itself
