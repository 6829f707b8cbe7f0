"""`extauth top`, over real replicas."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from extauth.cli import app
from extauth.commands.top_table import top_lines
from extauth.explain.request import read_descriptor
from extauth.rls.encode import encode_request
from extauth.rls.request import SERVICE
from extauth.telemetry.top import Caller, RuleTop, Top, TopOfAll
from tests.support.environ import INHERITED
from tests.support.ports import free_port
from tests.support.process import Served, served_with
from tests.support.stores import Store
from tests.support.wait import PATIENCE_S, until

ROOT = Path(__file__).parents[2]
RUN = CliRunner()
CONFIG = """
domain: d
descriptors:
  - {key: ip, rate_limit: {unit: year, requests_per_unit: 2}}
  - {key: api_key, rate_limit: {unit: year, requests_per_unit: 3}}
"""


def run(*arguments: str, redis_url: str = "memory:", prefix: str = "extauth") -> Result:
    environ = {"EXTAUTH_REDIS_URL": redis_url, "EXTAUTH_KEY_PREFIX": prefix, "EXTAUTH_CONFIG": "nowhere"}
    return RUN.invoke(app, ["top", *arguments], env=environ)


def call(served: Served, descriptor: str, calls: int) -> None:
    with grpc.insecure_channel(served.address) as channel:
        ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/ShouldRateLimit")
        for _ in range(calls):
            ask(encode_request("d", [read_descriptor(descriptor)]), timeout=20)


@pytest.fixture
def replicas(own_store: Store) -> Iterator[list[Served]]:
    """Two replicas, at which callers were denied."""
    with served_with(own_store, CONFIG) as start:
        both = [start(), start()]
        for served in both:
            served.until_it_answers()
        call(both[0], "ip=192.0.2.1", 5)
        call(both[1], "ip=192.0.2.1", 4)
        call(both[1], "api_key=a-secret-key", 8)
        yield both


def denied(result: Result) -> dict[str, int]:
    assert result.exit_code == 0, result.output
    view = json.loads(result.stdout)
    return {each["caller"]: each["calls"] for rule in view["rules"] for each in rule["denied"]}


MASKED = "api_key=a-***~"


def test_both_sources_show_the_callers_of_all_replicas(own_store: Store, replicas: list[Served]) -> None:
    ways = [(f"--admin=http://{replicas[0].admin}",), (f"--admin={replicas[1].admin}",), ()]
    for arguments in ways:
        until(lambda: sum(denied(run("--json", *arguments, redis_url=own_store.url)).values()) == 12)  # noqa: B023
        result = run("--json", *arguments, redis_url=own_store.url)
        found = denied(result)
        assert found["ip=192.0.2.1"] == 7
        assert [calls for caller, calls in found.items() if caller.startswith(MASKED)] == [5]
        assert json.loads(result.stdout).items() >= {"replicas": 2, "unknown": 0, "problem": None}.items()
        table = run(*arguments, redis_url=own_store.url).stdout.splitlines()
        assert table[0].startswith("2 replicas, calls since ")
        assert re.fullmatch(r"     7  [\d:]{8}  [\d:]{8}  d ip +ip=192\.0\.2\.1", table[3])
        assert re.fullmatch(r"     5  [\d:]{8}  [\d:]{8}  d api_key  api_key=a-\*\*\*~\w{6}", table[4])
        assert "secret" not in "".join(table)


def test_in_a_terminal_it_is_refreshed_until_it_is_interrupted(replicas: list[Served]) -> None:
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "extauth", "top", "--admin", replicas[0].admin]
    environ = {**INHERITED, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(argv, env=environ, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    told = bytearray()

    def read() -> None:
        with os.fdopen(master, "rb", 0) as terminal:
            try:
                while part := terminal.read(4096):
                    told.extend(part)
            except OSError:  # the other end is closed
                pass

    reading = threading.Thread(target=read)
    reading.start()
    until(lambda: b"ip=192.0.2.1" in told, told.decode)
    call(replicas[0], "ip=198.51.100.9", 4)
    until(lambda: b"ip=198.51.100.9" in told, told.decode)
    replicas[0].stop()
    until(lambda: b"not refreshed since" in told, told.decode)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 0
    reading.join()
    assert told.count(b"\x1b[H\x1b[J") >= 3
    assert b"Traceback" not in told


def test_a_redis_without_replicas(own_store: Store) -> None:
    result = run("--once", redis_url=own_store.url, prefix="other")
    assert result.exit_code == 2
    assert "no replica reports its callers" in result.stderr
    assert "under the key other:replicas; check EXTAUTH_REDIS_URL and EXTAUTH_KEY_PREFIX" in result.stderr


def test_a_redis_that_is_not_there(tmp_path: Path) -> None:
    result = run("--json", redis_url=f"unix://user:secret@{tmp_path}/none")
    assert result.exit_code == 2
    assert "no connection to Redis" in json.loads(result.stdout)["error"]
    assert "secret" not in result.output


def test_counters_in_memory_are_shown_by_their_service_alone() -> None:
    result = run("--once")
    assert result.exit_code == 2
    assert "give its admin port, such as --admin http://127.0.0.1:6070" in result.stderr


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body + self.path.encode())

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>", "is no page of extauth's admin server, or of another version"),
        (200, b'{"replicas": 1}', "is no page of extauth's admin server"),
        (421, b"\x1b[2Jnot here: ", "answers 421: "),
    ],
)
def test_what_is_no_admin_port(status: int, body: bytes, said: str) -> None:
    with answering(status, body) as url:
        result = run("--admin", f"{url}/behind/")
    assert result.exit_code == 2
    assert f"{url}/behind/top {said}" in result.stderr
    assert "\x1b" not in result.stderr


NO_ADDRESSES = [
    "",
    "ftp://127.0.0.1:1",
    "http://",
    "http://u:pass@127.0.0.1:1",
    "127.0.0.1:1/?x",
    "127.0.0.1:x",
    "[::1",
]


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_what_is_no_address(url: str) -> None:
    result = run("--admin", url)
    assert result.exit_code == 2
    assert "write http://HOST:PORT of a replica's admin port" in result.stderr
    assert "pass" not in result.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "https://127.0.0.1:{port}/behind", "127.0.0.1:99999", "a..b"])
def test_an_address_at_which_nobody_answers(address: str) -> None:
    result = run("--admin", address.format(port=free_port()))
    assert result.exit_code == 2
    assert "does not answer: " in result.stderr


def test_one_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extauth.commands.top_source.TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = run("--admin", f"127.0.0.1:{server.getsockname()[1]}")
    assert (result.exit_code, "timed out" in result.stderr) == (2, True)


def test_the_table_says_what_is_not_exact_and_has_the_most_first() -> None:
    a = RuleTop("d", "a", (Caller("x", 9, 2, 0), Caller("y", 4, 0, 1)), (Caller("x", 12),))
    b = RuleTop("d", "b", (Caller("z", 7, 3, 5),), ())
    top = Top(0, 1, 0.5, (a, b))
    lines = top_lines(TopOfAll(top, top, 1, 2, "it is away"), rows=2)
    assert lines[1] == "2 other replicas not counted: it is away"
    assert [line.split()[0] for line in lines[3:] if line] == ["denied", "9-2", "7-3+5", "calls", "~12"]
    assert [line.split()[-1] for line in lines[4:6]] == ["x", "z"]


def test_the_table_of_nobody() -> None:
    top = Top(0, 1, 1, ())
    assert top_lines(TopOfAll(top, top, 1))[1:] == ["", "denied: none", "", "calls: none"]
