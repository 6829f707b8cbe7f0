"""The environment in which Envoy Gateway runs envoyproxy/ratelimit, with rules from a server of go-control-plane."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from extauth.explain.request import read_descriptor
from extauth.rls.encode import encode_request
from extauth.rls.protobuf import fields
from extauth.rls.request import SERVICE
from tests.integration.test_envoy_gateway_xds import DOMAIN, ROUTE, Certificates, gateway, limited
from tests.support.codes import OK, OVER_LIMIT
from tests.support.compatible import GATEWAY
from tests.support.environ import INHERITED
from tests.support.go_xds import NODE, GoXds
from tests.support.ports import free_port
from tests.support.process import ROOT
from tests.support.stores import Store
from tests.support.wait import until


class Ratelimit:
    """A process that is started as Envoy Gateway starts the service, but with other addresses and folders."""

    def __init__(self, folder: Path, xds: GoXds, store: Store) -> None:
        self.port = free_port()
        self.log = folder / "ratelimit.log"
        self.ca = (folder / "ca.crt").read_bytes()
        here = {
            "HOST": "127.0.0.1",
            "PORT": str(free_port()),
            "GRPC_HOST": "127.0.0.1",
            "GRPC_PORT": str(self.port),
            "DEBUG_HOST": "127.0.0.1",
            "DEBUG_PORT": str(free_port()),
            "PROMETHEUS_ADDR": f"127.0.0.1:{free_port()}",
            "CONFIG_GRPC_XDS_SERVER_TLS_SAN": "envoy-gateway",  # there, the host is called so
            "LOG_FORMAT": "json",
        }
        environ = GATEWAY | {  # there, Redis is at an address
            "REDIS_URL": str(store.socket),
            "RUNTIME_ROOT": "/data",
            "CONFIG_GRPC_XDS_SERVER_URL": xds.address,
            "CONFIG_GRPC_XDS_NODE_ID": NODE,
            "GRPC_SERVER_TLS_CERT": str(folder / "server.crt"),
            "GRPC_SERVER_TLS_KEY": str(folder / "server.key"),
            "GRPC_SERVER_TLS_CA_CERT": str(folder / "ca.crt"),
            "CONFIG_GRPC_XDS_CLIENT_TLS_CERT": str(folder / "client.crt"),
            "CONFIG_GRPC_XDS_CLIENT_TLS_KEY": str(folder / "client.key"),
            "CONFIG_GRPC_XDS_SERVER_TLS_CACERT": str(folder / "ca.crt"),
        }
        argv = [sys.executable, "-m", "extauth", "ratelimit"]
        process = {**INHERITED, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, env=process | environ | here, stdout=log, stderr=log)

    def ask(self, key: str) -> object:
        """The code of an answer."""
        credentials = grpc.ssl_channel_credentials(self.ca)
        options = [("grpc.ssl_target_name_override", "envoy-gateway")]
        message = encode_request(DOMAIN, [read_descriptor(f"{ROUTE}={ROUTE},{key}={key}")])
        with grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, options) as channel:
            ask: Any = channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")
            answer = ask(message, timeout=30, wait_for_ready=True)
        return dict(fields(answer))[1]


@pytest.fixture
def xds(short_path: Path) -> Iterator[GoXds]:
    server = GoXds(Certificates(short_path).server())
    yield server
    server.stop()


def test_it_follows_the_rules_of_the_control_plane(short_path: Path, own_store: Store, xds: GoXds) -> None:
    service = Ratelimit(short_path, xds, own_store)
    try:
        assert service.ask("rule-0-match-0") == OK, service.log.read_text()  # it need not wait for rules
        until(xds.requests, service.log.read_text)
        xds.push("1", gateway(limited("rule-0-match-0", 0)))
        assert xds.answer_to("1")["error"] == ""
        assert service.ask("rule-0-match-0") == OVER_LIMIT
    finally:
        service.process.kill()
        service.process.wait()
