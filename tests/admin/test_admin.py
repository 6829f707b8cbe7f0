"""The admin server's pages over HTTP, on both event loops."""

import http.client
import json
import socket
import time
from collections.abc import Iterator

import pytest

from extauth.admin.http import STOP_GRACE_S, HttpServer
from extauth.admin.routes import Answer, Audience, Request, Route
from extauth.admin.server import Readiness
from extauth.errors import SettingsError
from tests.support.admin import GET, METRICS_TYPE, ServedAdmin, everything, is_closed, reply, serving, statuses
from tests.support.ports import free_port
from tests.support.wait import until

TEXT = "text/plain; charset=utf-8"
JSON = "application/json; charset=utf-8"
PATHS = {
    "/": (TEXT, b"extauth: /metrics /healthz /readyz /rules /top\n"),
    "/metrics": (METRICS_TYPE, b"a 1\nb 2\n"),
    "/healthz": (TEXT, b"ok\n"),
    "/readyz": (JSON, b'{"status": "ready"}'),
    "/rules": (JSON, b'{"domains": []}'),
    "/top": (JSON, b'{"replicas": 1, "all": {}}'),
}


def test_each_path_has_its_type_and_text(served: ServedAdmin) -> None:
    for path, (content_type, body) in PATHS.items():
        for target in (path, f"{path}?a=b", f"http://127.0.0.1:{served.port}{path}"):
            got = served.get(target)
            assert (got.status, got.headers["content-type"], got.body) == (200, content_type, body)
            assert "date" in got.headers


def test_head_is_the_head_of_get(served: ServedAdmin) -> None:
    for path in PATHS:
        get, head = served.get(path), served.get(path, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert {**head.headers, "date": ""} == {**get.headers, "date": ""}


def test_not_being_ready_is_a_503(loop: str) -> None:
    with serving(loop, readiness=lambda: Readiness(False, {"status": "draining"})) as served:
        got = served.get("/readyz")
    assert (got.status, json.loads(got.body)) == (503, {"status": "draining"})


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "BREW"])
def test_another_method_is_a_405_with_those_that_are_allowed(served: ServedAdmin, method: str) -> None:
    for path in PATHS:
        got = served.get(path, method)
        assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("target", ["/other", "/metrics/", "/METRICS", "*", "//", "a:1"])
def test_another_path_is_a_404(served: ServedAdmin, target: str) -> None:
    for method in ("GET", "POST", "CONNECT"):
        got = everything(served.connect(f"{method} {target} HTTP/1.0\r\n\r\n".encode()))
        assert statuses(got) == [404]


def test_a_connection_is_kept_alive(served: ServedAdmin) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    connection.connect()
    kept = connection.sock
    for path, (_, body) in [*PATHS.items(), ("/other", ("", b"404: Not Found\n"))] * 2:
        connection.request("GET", path)
        assert reply(connection.getresponse()).body == body
        assert connection.sock is kept
    connection.request("GET", "/healthz", headers={"Connection": "close"})
    assert reply(connection.getresponse()).headers["connection"] == "close"
    connection.close()


def test_http_1_0_is_answered_without_chunks_and_closed(served: ServedAdmin) -> None:
    for path, (_, body) in PATHS.items():
        head, _, got = everything(served.connect(f"GET {path} HTTP/1.0\r\n\r\n".encode())).partition(b"\r\n\r\n")
        assert got == body
        assert b"chunked" not in head


@pytest.mark.parametrize(
    ("host", "served_there"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3:6070", True),
        ("[::1]", True),
        ("[2001:db8::1]:6070", True),
        ("[fe80::1%25eth0]:6070", True),
        ("localhost", True),
        ("LocalHost.:6070", True),
        ("admin.internal", True),
        ("ADMIN.internal:80", True),
        ("Other", True),
        ("", True),
        ("evil.example", False),
        ("evil.example:6070", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("admin", False),
        ("localhost@evil.example", False),
        ("[evil.example]", False),
        ("::1", False),
        ("1.2.3", False),
        ("[127.0.0.1]", False),
        ("localhost:6070:evil", False),
    ],
)
def test_pages_for_people_are_served_under_names_that_somebody_here_chose(host: str, served_there: bool) -> None:
    with serving("uvloop", hosts=("admin.internal", "other")) as served:
        for path in PATHS:
            for got in (served.get(path, Host=host), served.get(f"http://{host}{path}", Host="evil.example")):
                if path in {"/", "/rules", "/top"} and not served_there:
                    assert got.status == 421
                    assert b"EXTAUTH_ADMIN_HOSTS" in got.body
                else:
                    assert (got.status, got.body) == (200, PATHS[path][1])
        assert served.get("/rules", "HEAD", Host=host).status == (200 if served_there else 421)


def test_the_name_that_it_listens_on_is_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(_host: str, port: int, *_: int, **_options: int) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with serving("asyncio", listen="Admin.internal") as served:
        assert served.get("/", Host="evil.example").status == 421
        assert served.get("/", Host=f"admin.internal:{served.port}").status == 200


def test_an_error_in_making_an_answer_is_a_500_and_reported(loop: str) -> None:
    def handler(_request: Request) -> Answer:
        raise ZeroDivisionError

    def pieces() -> Iterator[bytes]:
        yield from []
        raise ZeroDivisionError

    routes = {
        "/handler": Route(handler, Audience.PEOPLE),
        "/pieces": Route(lambda _: Answer(pieces()), Audience.MACHINES),
    }
    with serving(loop, routes) as served:
        assert [served.get(path).status for path in routes] == [500, 500]
        assert [type(error["exception"]) for error in served.errors] == [ZeroDivisionError] * 2
        served.settle()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_answer_that_breaks_off_does_not_look_whole(loop: str, version: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise ZeroDivisionError

    with serving(loop, {"/": Route(lambda _: Answer(pieces()), Audience.MACHINES)}) as served:
        client = served.connect(f"GET / HTTP/{version}\r\nHost: a\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            everything(client)
        assert [type(error["exception"]) for error in served.errors] == [ZeroDivisionError]


def test_stopping_finishes_answers_and_closes_the_rest(loop: str) -> None:
    more = [b"z" * 10_000] * 100

    def pieces() -> Iterator[bytes]:
        while more:
            yield more.pop()

    with serving(loop, {"/": Route(lambda _: Answer(pieces()), Audience.PEOPLE)}) as served:
        silent, half, kept = served.connect(), served.connect(GET), served.connect(GET + b"\r\n")
        page = served.connect(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", read_buffer=32_768)
        first = page.recv(10)
        served.settle()
        served.stop()
        until(lambda: is_closed(silent) and is_closed(half))
        assert statuses(everything(kept)) == [200]
        began = time.monotonic()
        whole = first + everything(page)
        assert time.monotonic() - began < STOP_GRACE_S, "it is closed once it is answered"
        assert whole.count(b"z") == 1_000_000
        assert whole.endswith(b"\r\n0\r\n\r\n")
        with pytest.raises(ConnectionRefusedError):
            served.connect()
        assert served.errors == []


def test_stopping_does_not_wait_for_answers_that_never_end(loop: str) -> None:
    def pieces() -> Iterator[bytes]:
        while True:
            yield b""

    with serving(loop, {"/": Route(lambda _: Answer(pieces()), Audience.PEOPLE)}) as served:
        client = served.connect(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        served.settle()
        served.stop()
        everything(client)


async def test_an_address_that_cannot_be_had_is_named_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingsError, match=rf"EXTAUTH_ADMIN_LISTEN={address}: cannot listen there: .*in use"):
            await HttpServer(address, {}).start()
    for host in ("a..b", "nowhere.invalid"):
        with pytest.raises(SettingsError, match=f"EXTAUTH_ADMIN_LISTEN={host}:80: cannot listen there: "):
            await HttpServer(f"{host}:80", {}).start()


async def test_a_server_that_could_not_start_can_be_stopped() -> None:
    await HttpServer(f"127.0.0.1:{free_port()}", {}).stop()
