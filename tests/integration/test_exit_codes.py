"""The exit codes of `extauth serve`, which docs/operations.md lists."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from extauth.transport.h2.frames import ACK, END_HEADERS, HEADERS, PING, frame
from tests.support.h2_peer import BLOCK, START, Peer
from tests.support.ports import free_port
from tests.support.process import Served

Serve = Callable[..., Served]


@pytest.fixture
def serve(short_path: Path) -> Iterator[Serve]:
    """Starts services whose counters are in the process, unless the settings say otherwise."""
    started: list[Served] = []

    def start(*arguments: str, config: str = "domain: d\n", **settings: str) -> Served:
        (short_path / "d.yaml").write_text(config)
        settings = {"EXTAUTH_REDIS_URL": "memory:", **settings}
        started.append(Served(short_path, short_path / "d.yaml", *arguments, settings=settings))
        return started[-1]

    yield start
    for served in started:
        served.stop()


@pytest.fixture
def taken() -> Iterator[str]:
    """An address on which another process might listen."""
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_0_a_signal_that_asks_it_to_end(serve: Serve, number: signal.Signals) -> None:
    served = serve()
    served.until_ready()
    served.process.send_signal(number)
    assert served.process.wait(30) == 0


async def test_0_calls_that_are_open_at_the_end_are_cut_off(serve: Serve, short_path: Path) -> None:
    served = serve(EXTAUTH_ENGINE="h2")
    served.until_ready()
    peer = Peer(*await asyncio.open_unix_connection(str(short_path / "grpc")))
    peer.send(START, frame(HEADERS, END_HEADERS, 1, BLOCK), frame(PING, 0, 0, b"12345678"))
    await peer.until(lambda: (ACK, b"12345678") in peer.pings)
    served.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(served.process.wait, 30) == 0
    await peer.gone()
    assert peer.answers == {}
    await peer.close()


@pytest.mark.parametrize(
    ("config", "settings", "reason"),
    [
        ("domain: d\n", {"EXTAUTH_ENGINE": "go"}, "EXTAUTH_ENGINE='go' is not allowed; allowed: h2 or grpcio"),
        ("domain: d\n", {"EXTAUTH_GRPC_TLS_CERT": "/none", "EXTAUTH_GRPC_TLS_KEY": "/none"}, "EXTAUTH_GRPC_TLS_CERT="),
        ("domain: [\n", {}, "d.yaml:2:1: not YAML"),
        ("domain: d\n", {"EXTAUTH_CONFIG": "/none"}, "/none: no such file"),
    ],
    ids=["setting", "certificate", "config", "no config"],
)
def test_1_what_it_is_given_is_wrong(serve: Serve, config: str, settings: dict[str, str], reason: str) -> None:
    served = serve(config=config, **settings)
    assert served.process.wait(30) == 1
    assert reason in served.log.read_text()


@pytest.mark.parametrize("engine", ["h2", "grpcio"])
@pytest.mark.parametrize("name", ["EXTAUTH_GRPC_LISTEN", "EXTAUTH_ADMIN_LISTEN"])
def test_1_an_address_is_taken(serve: Serve, taken: str, name: str, engine: str) -> None:
    served = serve(EXTAUTH_ENGINE=engine, **{name: taken})
    assert served.process.wait(30) == 1
    assert f"{name}={taken}: cannot listen there" in served.log.read_text().splitlines()[-1]


def test_2_the_command_line_is_wrong(serve: Serve) -> None:
    served = serve("--nope")
    assert served.process.wait(30) == 2
    assert "No such option" in served.log.read_text()
