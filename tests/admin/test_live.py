"""The streams of `/live`, and where they stand among the places of the admin server."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from extauth.admin.connection import PLACES, STALL_S
from extauth.admin.http import STOP_GRACE_S
from extauth.admin.live import MOST_STREAMS, LiveStreams
from extauth.admin.routes import Answer, Audience, Route
from tests.admin.clients import PROBE
from tests.support.admin import ServedAdmin, everything, serving, statuses
from tests.support.wait import until

LIVE = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
PROBES = ("/healthz", "/metrics")


class Numbers:
    """A feed of numbers, each of which is one more than the one that the stream has had."""

    def __init__(self, padding: int = 0) -> None:
        self.made = 0
        self.fail = False
        self._padding = b"x" * padding

    async def event(self, seen: object) -> tuple[Iterator[bytes], object]:
        if self.fail:
            raise ZeroDivisionError
        self.made += 1
        seen = seen if isinstance(seen, int) else 0
        return iter([json.dumps({"seen": seen}).encode(), self._padding]), seen + 1


@contextmanager
def serving_live(loop: str, feed: Numbers, every_s: float = 0.01) -> Iterator[ServedAdmin]:
    """A server of a feed, which ends its streams as it stops."""
    streams = LiveStreams(feed, every_s=every_s)
    routes = {
        "/live": Route(streams.answer, Audience.PEOPLE, ("GET",), lasting=True),
        "/metrics": Route(lambda _: Answer(iter([b"a 1\n"])), Audience.MACHINES),
    }
    with serving(loop, routes, before_stop=streams.end) as served:
        yield served


def begun(served: ServedAdmin) -> socket.socket:
    """A client that has got the first byte of an answer."""
    client = served.connect(LIVE, read_buffer=4096)
    assert client.recv(1) == b"H"
    return client


def read_until(client: socket.socket, text: bytes) -> bytes:
    received = b""
    while text not in received:
        data = client.recv(65_536)
        assert data, received
        received += data
    return received


def test_a_stream_goes_on_from_what_it_has_had(loop: str) -> None:
    with serving_live(loop, Numbers()) as served:
        client = served.connect(LIVE)
        received = read_until(client, b'data: {"seen": 4}\n\n')
        head, _, rest = received.partition(b"\r\n\r\n")
        assert b"Content-Type: text/event-stream; charset=utf-8\r\n" in head
        assert b"Cache-Control: no-store" in head
        assert [rest.count(b'data: {"seen": %d}\n\n' % i) for i in range(5)] == [1] * 5
        assert served.errors == []


def test_the_17th_stream_is_refused_while_probes_are_answered(loop: str) -> None:
    with serving_live(loop, Numbers()) as served:
        clients = [begun(served) for _ in range(MOST_STREAMS)]
        refused = served.get("/live")
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert b"16 streams" in refused.body
        assert [served.get(path).status for path in PROBES] == [200, 200]
        clients.pop().close()
        until(lambda: statuses(served.connect(LIVE).recv(100)) == [200], "one that is closed makes room")


def test_streams_make_room_for_probes(loop: str) -> None:
    """Beside more half-sent requests than there are places."""
    with serving_live(loop, Numbers()) as served:
        streams = [begun(served) for _ in range(MOST_STREAMS)]
        waiting = [served.connect(PROBE[:-2]) for _ in range(PLACES * 2)]
        assert [served.get(path).status for path in PROBES] == [200, 200]
        assert len(streams) + len(waiting) > PLACES
        assert served.errors == []


@pytest.mark.parametrize("method", ["HEAD", "POST"])
def test_a_stream_is_got_and_nothing_else(loop: str, method: str) -> None:
    with serving_live(loop, Numbers()) as served:
        got = served.get("/live", method)
        assert (got.status, got.headers["allow"]) == (405, "GET")


def stands_still(feed: Numbers) -> bool:
    """Whether it makes no event in the time in which it made a hundred before."""
    made = feed.made
    return not threading.Event().wait(0.1) and feed.made == made


def test_a_slow_reader_is_sent_fewer_events_and_nothing_is_kept_for_it(loop: str) -> None:
    feed = Numbers(padding=100_000)
    with serving_live(loop, feed, every_s=0.001) as served:
        client = begun(served)
        until(lambda: stands_still(feed))
        assert feed.made < 50, "no event is made for a client that has not read the one before"
        read_until(client, b'{"seen": %d}' % (feed.made + 1))


def test_a_reader_that_stands_still_is_ended(loop: str) -> None:
    with serving_live(loop, Numbers(padding=1_000_000)) as served:
        for _ in range(MOST_STREAMS):
            begun(served)
        assert _refused(served)

        def is_there_room() -> bool:
            served.clock.now += STALL_S + 1
            return not _refused(served)

        until(is_there_room)


def _refused(served: ServedAdmin) -> bool:
    client = served.connect(LIVE)
    refused = statuses(client.recv(100)) == [503]
    client.close()
    return refused


def test_stopping_ends_streams_at_once_and_whole(loop: str) -> None:
    with serving_live(loop, Numbers(), every_s=600) as served:
        clients = [served.connect(LIVE) for _ in range(3)]
        for client in clients:
            read_until(client, b"\n\n")
        served.stop()
        for client in clients:
            client.settimeout(STOP_GRACE_S / 2)
            assert everything(client).endswith(b"0\r\n\r\n"), "the last chunk: the answer is complete"
        assert served.errors == []


def test_an_event_that_cannot_be_made_breaks_the_stream_off(loop: str) -> None:
    feed = Numbers()
    with serving_live(loop, feed) as served:
        client = served.connect(LIVE)
        read_until(client, b'"seen": 1')
        feed.fail = True
        with pytest.raises(ConnectionResetError):
            everything(client)
        errors: list[dict[str, Any]] = served.errors
        assert [type(error["exception"]) for error in errors] == [ZeroDivisionError]


def test_no_event_is_made_for_a_client_that_has_left(loop: str) -> None:
    feed = Numbers()
    with serving_live(loop, feed, every_s=0.001) as served:
        begun(served).close()
        until(lambda: stands_still(feed))
