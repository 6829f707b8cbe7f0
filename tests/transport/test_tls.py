"""TLS on every gRPC engine, seen by a grpcio client."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc

from extauth.errors import SettingsError
from extauth.transport.batching import Batcher
from extauth.transport.engine import EngineContext
from extauth.transport.grpcio import GrpcioServer
from extauth.transport.h2.frames import SETTINGS
from extauth.transport.h2.server import H2Server
from extauth.transport.health_client import is_serving
from extauth.transport.tls import Tls, TlsFiles
from tests.support.h2_peer import START
from tests.support.ports import free_port
from tests.support.service import decider_of

ENGINES: dict[str, type[GrpcioServer | H2Server]] = {"h2": H2Server, "grpcio": GrpcioServer}


class Authority:
    """A CA, and what it issues."""

    def __init__(self) -> None:
        self._ca = trustme.CA()
        self.pem = self._ca.cert_pem.bytes()

    def issue(self, name: str = "localhost") -> tuple[bytes, bytes]:
        """(key, certificate chain)"""
        issued = self._ca.issue_cert(name)
        return issued.private_key_pem.bytes(), b"".join(part.bytes() for part in issued.cert_chain_pems)


def write(files: TlsFiles, authority: Authority, client_authority: Authority | None = None) -> None:
    """Put a new certificate into the files, each by a rename, as tools do."""
    key, chain = authority.issue()
    contents = {files.key: key, files.cert: chain}
    if files.client_ca is not None and client_authority is not None:
        contents[files.client_ca] = client_authority.pem
    for path, content in contents.items():
        new = path.with_suffix(".new")
        new.write_bytes(content)
        new.replace(path)


@asynccontextmanager
async def serving(kind: str, tls: Tls) -> AsyncIterator[int]:
    decider = decider_of()
    port = free_port()
    context = EngineContext(planner=decider.planner, batcher=Batcher(decider), tls=tls)
    server = ENGINES[kind](f"127.0.0.1:{port}", context)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(1)


async def check(port: int, authority: Authority, client: tuple[bytes, bytes] | None = None) -> int:
    """Ask for the health over a connection of its own."""
    key, chain = client or (None, None)
    credentials = grpc.ssl_channel_credentials(authority.pem, key, chain)
    options = (("grpc.ssl_target_name_override", "localhost"), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int((await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status)


async def unreachable(attempt: Awaitable[int]) -> bool:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await attempt
    return raised.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")


@pytest.fixture
def mutual(tmp_path: Path) -> TlsFiles:
    return TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")


@pytest.mark.parametrize("kind", ENGINES)
async def test_calls_pass_over_tls_alone(kind: str, files: TlsFiles) -> None:
    ours, foreign = Authority(), Authority()
    write(files, ours)
    async with serving(kind, Tls(files)) as port:
        assert await check(port, ours) == 1
        assert await unreachable(check(port, foreign))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            assert await unreachable(stub.Check(health_pb2.HealthCheckRequest(), timeout=10))


@pytest.mark.parametrize("kind", ENGINES)
async def test_clients_must_show_a_certificate_where_their_ca_is_set(kind: str, mutual: TlsFiles) -> None:
    ours, clients, foreign = Authority(), Authority(), Authority()
    write(mutual, ours, clients)
    async with serving(kind, Tls(mutual)) as port:
        assert await check(port, ours, clients.issue("envoy")) == 1
        assert await unreachable(check(port, ours, foreign.issue("envoy")))
        assert await unreachable(check(port, ours))


async def test_clients_certificates_must_be_for_a_name_where_one_is_set(mutual: TlsFiles) -> None:
    ours, clients = Authority(), Authority()
    write(mutual, ours, clients)
    async with serving("h2", Tls(mutual, "envoy.example")) as port:
        assert await check(port, ours, clients.issue("envoy.example")) == 1
        assert await unreachable(check(port, ours, clients.issue("other.example")))
        assert await check(port, ours, clients.issue("*.example")) == 1
        assert await unreachable(check(port, ours))
    async with serving("h2", Tls(mutual, "10.1.2.3")) as port:
        assert await check(port, ours, clients.issue("10.1.2.3")) == 1
        assert await unreachable(check(port, ours, clients.issue("10.1.2.4")))


async def test_another_replica_is_let_in_by_the_certificate_that_both_show(mutual: TlsFiles) -> None:
    ours = Authority()
    write(mutual, ours, ours)
    async with serving("h2", Tls(mutual, "envoy.example")) as port:
        assert await is_serving(f"127.0.0.1:{port}", "", 10, Tls(mutual).client())


@pytest.mark.parametrize("kind", ENGINES)
async def test_files_that_change_are_used_from_the_next_handshake_on(kind: str, mutual: TlsFiles) -> None:
    old, new, old_clients, new_clients = Authority(), Authority(), Authority(), Authority()
    write(mutual, old, old_clients)
    tls = Tls(mutual)
    assert not tls.reload()
    async with serving(kind, tls) as port:
        assert await check(port, old, old_clients.issue("envoy")) == 1
        write(mutual, new, new_clients)
        assert tls.reload()
        assert await check(port, new, new_clients.issue("envoy")) == 1
        assert await unreachable(check(port, new, old_clients.issue("envoy"))), "a CA that is gone trusts nobody"
        assert await unreachable(check(port, old, new_clients.issue("envoy")))
        mutual.cert.write_text("broken")
        with pytest.raises(SettingsError, match=r"EXTAUTH_GRPC_TLS_CERT=.*cert\.pem with .* cannot be used"):
            tls.reload()
        assert await check(port, new, new_clients.issue("envoy")) == 1, "what was loaded stays"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda files: files.cert.unlink(), r"EXTAUTH_GRPC_TLS_CERT=.*: No such file or directory"),
        (lambda files: files.key.write_bytes(Authority().issue()[0]), r"EXTAUTH_GRPC_TLS_KEY=.*cannot be used"),
        (lambda files: files.client_ca.write_text(""), r"EXTAUTH_GRPC_TLS_CLIENT_CA=.*cannot be used"),
    ],
)
def test_files_that_do_not_fit_are_named(mutual: TlsFiles, spoil: Callable[[TlsFiles], object], message: str) -> None:
    write(mutual, Authority(), Authority())
    spoil(mutual)
    with pytest.raises(SettingsError, match=message):
        Tls(mutual)


def handshake(
    port: int, authority: Authority, protocols: list[str], newest: ssl.TLSVersion, sent: bytes = START
) -> tuple[str | None, bytes]:
    """The version of TLS that was agreed on, and what came back."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.maximum_version = newest
    context.set_alpn_protocols(protocols)
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        tls.sendall(sent)
        return tls.version(), tls.recv(4096)


async def test_h2_takes_tls_1_2_and_later_and_no_protocol_but_h2(files: TlsFiles) -> None:
    ours = Authority()
    write(files, ours)
    async with serving("h2", Tls(files)) as port:
        for newest, version in ((ssl.TLSVersion.TLSv1_3, "TLSv1.3"), (ssl.TLSVersion.TLSv1_2, "TLSv1.2")):
            agreed, answer = await asyncio.to_thread(handshake, port, ours, ["h2"], newest)
            assert agreed == version
            assert answer[3] == SETTINGS
        for protocols in (["http/1.1"], []):
            _, answer = await asyncio.to_thread(handshake, port, ours, protocols, ssl.TLSVersion.TLSv1_3)
            assert answer == b"", "closed"
            get = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
            _, answer = await asyncio.to_thread(handshake, port, ours, protocols, ssl.TLSVersion.TLSv1_3, get)
            assert answer.startswith(b"HTTP/1.1 415 ")
