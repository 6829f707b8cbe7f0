"""`extauth ratelimit` as a process, with the environments and the files that others deploy."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import trustme

from extauth.rls.encode import encode_request
from extauth.rls.request import SERVICE, Descriptor, Entry
from extauth.rls.response import Code, code_of
from tests.support.environ import INHERITED
from tests.support.ports import free_port
from tests.support.process import ROOT, page, until_of
from tests.support.stores import Store

CONFIG = """
domain: echo-ratelimit
descriptors:
  - {key: PATH, value: /, rate_limit: {unit: day, requests_per_unit: 2}}
  - {key: api_key, value: hush-hush, rate_limit: {unit: day, requests_per_unit: 100}}
"""
CALL = json.dumps({"domain": "echo-ratelimit", "descriptors": [{"entries": [{"key": "PATH", "value": "/"}]}]})
COMMON = {"REDIS_SOCKET_TYPE": "unix", "RUNTIME_SUBDIRECTORY": "ratelimit", "RUNTIME_IGNOREDOTFILES": "true"}
ISTIO = COMMON | {"LOG_LEVEL": "debug", "USE_STATSD": "false", "RUNTIME_WATCH_ROOT": "false"}
ISTIO |= {"HOST": "::", "GRPC_HOST": "::"}
CONTOUR = COMMON | {"USE_STATSD": "false", "LOG_LEVEL": "debug", "RUNTIME_WATCH_ROOT": "false"}
LOCAL = {"HOST": "127.0.0.1", "GRPC_HOST": "127.0.0.1"}
CERTIFICATES = {"GRPC_SERVER_USE_TLS": "true", "GRPC_SERVER_TLS_CERT": "/certs/tls.crt"}
CERTIFICATES |= {"GRPC_SERVER_TLS_KEY": "/certs/tls.key", "GRPC_SERVER_TLS_CA_CERT": "/certs/ca.crt"}
XDS = {"CONFIG_TYPE": "GRPC_XDS_SOTW", "CONFIG_GRPC_XDS_NODE_ID": "envoy-ratelimit"}
XDS |= {"CONFIG_GRPC_XDS_SERVER_USE_TLS": "true", "CONFIG_GRPC_XDS_CLIENT_TLS_CERT": "/certs/tls.crt"}
XDS |= {"CONFIG_GRPC_XDS_CLIENT_TLS_KEY": "/certs/tls.key", "CONFIG_GRPC_XDS_SERVER_TLS_CACERT": "/certs/ca.crt"}
GATEWAY = COMMON | CERTIFICATES | XDS | {"RUNTIME_WATCH_ROOT": "false", "LOG_LEVEL": "info", "USE_STATSD": "false"}
GATEWAY |= {"FORCE_START_WITHOUT_INITIAL_CONFIG": "true", "USE_PROMETHEUS": "true"}
GATEWAY |= {"PROMETHEUS_MAPPER_YAML": "/etc/statsd-exporter/conf.yaml"}


RATELIMIT = ("-m", "extauth", "ratelimit")


class Process:
    """`extauth ratelimit` with an environment, on free ports; its files are below `folder`/data."""

    def __init__(self, store: Store, folder: Path, environ: Mapping[str, str], argv: Sequence[str] = RATELIMIT) -> None:
        self.log = folder / "log"
        self.http, self.grpc, self.debug, self.metrics = (free_port() for _ in range(4))
        given = {
            **INHERITED,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "RUNTIME_ROOT": str(folder / "data"),
            "REDIS_URL": str(store.socket),
            "PORT": str(self.http),
            "GRPC_PORT": str(self.grpc),
            "DEBUG_PORT": str(self.debug),
            "PROMETHEUS_ADDR": f":{self.metrics}",
            "LOG_FORMAT": "json",
            "EXTAUTH_DRAIN_DELAY": "0",
            **environ,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([sys.executable, *argv], env=given, stdout=log, stderr=log)

    def get(self, port: int, path: str, **headers: str) -> tuple[int, str]:
        return page(port, path, **headers)

    def until(self, holds: Callable[[], bool]) -> None:
        until_of(self.process, self.log, holds)

    def until_healthy(self) -> None:
        self.until(lambda: self.get(self.http, "/healthcheck") == (200, "OK"))

    def post(self, body: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=10)
        connection.request("POST", "/json", body)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, json.loads(text) if response.headers["Content-Type"] == "application/json" else text

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.log.read_text().splitlines()) if line["event"] == event]

    def fails(self) -> str:
        """Wait until it has ended because it cannot start; returns what it said."""
        assert self.process.wait(30) == 1
        return self.log.read_text()


def mount(folder: Path, text: str, name: str = "config.yaml") -> None:
    """Put a ConfigMap's file into the folder, or switch to another, as Kubernetes does."""
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("..2*")))
    data = folder / f"..2026_{number}"
    data.mkdir()
    (data / name).write_text(text)
    new = folder / "..data_tmp"
    new.symlink_to(data.name)
    new.rename(folder / "..data")
    if number == 0:
        (folder / name).symlink_to(f"..data/{name}")


def certificates(folder: Path) -> tuple[trustme.CA, dict[str, str]]:
    """A CA, and Envoy Gateway's environment with a certificate that it has issued in `folder`/certs."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "envoy-ratelimit")
    certs = folder / "certs"
    certs.mkdir()
    issued.private_key_pem.write_to_path(certs / "tls.key")
    (certs / "tls.crt").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    authority.cert_pem.write_to_path(certs / "ca.crt")
    return authority, {name: value.replace("/certs", str(certs)) for name, value in GATEWAY.items()}


def ask(address: str, credentials: grpc.ChannelCredentials | None = None, *, wait: bool = True) -> Code:
    """The code of a gRPC call, as Envoy makes it."""
    options = (("grpc.ssl_target_name_override", "localhost"),)
    channel = (
        grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials, options)
    )
    with channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")
        entry = Descriptor((Entry("PATH", "/"),), None, None, False)
        return code_of(call(encode_request("echo-ratelimit", [entry]), timeout=20, wait_for_ready=wait))
