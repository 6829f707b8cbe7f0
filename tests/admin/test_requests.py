"""How the admin server reads requests over HTTP/1, on both event loops."""

import logging
import socket
from collections.abc import Iterator

import pytest

from extauth.admin.routes import Answer, Audience, Route
from tests.support.admin import GET, ServedAdmin, everything, serving, statuses

POST = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def echo(loop: str) -> Iterator[ServedAdmin]:
    """A server with a path that takes a body."""
    route = Route(lambda request: Answer(request.body + request.query.encode()), Audience.MACHINES, ("POST",))
    with serving(loop, {"/echo": route}) as served:
        yield served
        assert served.errors == []


def test_pipelined_requests_are_answered_in_order(served: ServedAdmin) -> None:
    requests = [b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"] * 200
    client = served.connect(b"".join(requests) + b"BREW / HTTP/1.0\r\n\r\n")
    assert statuses(everything(client)) == [200, 404] * 200 + [405]


@pytest.mark.parametrize("size", [1, 3])
def test_a_request_may_come_in_any_pieces(echo: ServedAdmin, size: int) -> None:
    sent = POST + b"Connection: close\r\n" + CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    client = echo.connect()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(0, len(sent), size):
        client.sendall(sent[at : at + size])
        if at % 7 == 0:
            echo.settle()
    assert everything(client).endswith(b"\r\n\r\nabcde")


def test_a_client_may_half_close_after_its_request(served: ServedAdmin) -> None:
    client = served.connect(GET + b"\r\n")
    client.shutdown(socket.SHUT_WR)
    assert statuses(everything(client)) == [200]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"x\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (GET + b"Host: b\r\n\r\n", 400),
        (GET + b"no colon\r\n\r\n", 400),
        (GET + b"a b: c\r\n\r\n", 400),
        (GET + b"a: \0\r\n\r\n", 400),
        (GET + b"Content-Length: -1\r\n\r\n", 400),
        (GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (GET + CHUNKED + b"x\r\n", 400),
        (GET + CHUNKED + b"1\r\nabc", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"\0" * 20_000, 400),
        (GET + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ],
)
def test_a_malformed_request_is_refused_without_a_line_in_the_log(
    served: ServedAdmin, caplog: pytest.LogCaptureFixture, sent: bytes, status: int
) -> None:
    with caplog.at_level(logging.DEBUG):
        served.settle()
        caplog.clear()
        client = served.connect(sent + GET + b"\r\n")
        got = everything(client)
        served.settle()
    assert statuses(got) == [status], "and no answer to what follows"
    assert b"connection: close" in got.lower()
    assert caplog.records == []


def head_of(size: int) -> bytes:
    start, end = GET + b"Connection: close\r\nx: ", b"\r\n\r\n"
    return start + b"y" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head_of(8192), 200),
        (head_of(8193), 431),
        (head_of(300_000), 431),
        (head_of(300_000)[:-4], 431),
        (GET + b"Connection: close\r\n" + b"x:\r\n" * 98 + b"\r\n", 200),
        (GET + b"Connection: close\r\n" + b"x:\r\n" * 99 + b"\r\n", 431),
        (GET + b"x:\n" * 101, 431),
    ],
    ids=["8192 bytes", "8193", "300,000", "300,000, no end", "100 headers", "101", "101, no end"],
)
def test_a_head_that_is_too_large_is_a_431(served: ServedAdmin, sent: bytes, status: int) -> None:
    client = served.connect()
    try:
        client.sendall(sent)
    except OSError:
        assert status == 431, "it may be refused before it is sent"
    assert statuses(everything(client)) == [status]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (POST + b"Connection: close\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1024, 200),
        (POST + b"Content-Length: 1025\r\n\r\n", 413),
        (POST + b"Content-Length: 99999999\r\n\r\n" + b"x" * 300_000, 413),
        (POST + b"Connection: close\r\n" + CHUNKED + b"1\r\nx\r\n" * 1024 + b"0\r\n\r\n", 200),
        (POST + CHUNKED + b"1\r\nx\r\n" * 1025, 413),
        (GET + b"Content-Length: 1025\r\n\r\n", 413),
    ],
)
def test_a_body_that_is_too_large_is_a_413(echo: ServedAdmin, sent: bytes, status: int) -> None:
    client = echo.connect()
    try:
        client.sendall(sent)
    except OSError:
        assert status == 413, "it may be refused before it is sent"
    got = everything(client)
    assert statuses(got) == [status]
    if status == 200:
        assert got.endswith(b"\r\n\r\n" + b"x" * 1024)


def test_a_body_is_asked_for_where_the_client_waits(echo: ServedAdmin) -> None:
    client = echo.connect(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(1000)
    assert statuses(received) == [100]
    client.sendall(b"abc")
    assert everything(client).endswith(b"\r\n\r\nabc")
