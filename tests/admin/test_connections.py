"""Clients that are silent, slow or many never keep a probe from the admin server."""

import errno
import gc
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator

import h11
import pytest

from extauth.admin.connection import IDLE_S, KEPT_PLACES, PLACES, STALL_S, Connection
from extauth.admin.http import GRACE_S
from extauth.admin.routes import Answer, Audience, Request, Route
from tests.admin.clients import ENDLESS, PAGE, PROBE, SCRAPE, alive, being_answered, kept_alive
from tests.support.admin import everything, is_closed, serving, statuses
from tests.support.wait import until

HALF_SENT = [
    b"",
    b"G",
    b"GET /healthz HTTP/1.1\r\nHost: a\r\n",
    b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf",
    b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
]
PROBES = ("/healthz", "/readyz", "/metrics")


# Time


@pytest.mark.parametrize("sent", HALF_SENT)
def test_a_request_must_be_whole_in_10_seconds(loop: str, sent: bytes) -> None:
    with serving(loop) as served:
        client = served.connect(sent)
        served.settle()
        served.after(STALL_S - 1)
        assert not is_closed(client)
        client.sendall(b"") if sent == b"" else client.sendall(b"x")  # which is no reason to wait any longer
        served.settle()
        served.after(1.1)
        assert statuses(everything(client)) in ([], [100])


def test_a_connection_is_kept_alive_for_75_seconds(loop: str) -> None:
    with serving(loop) as served:
        client = kept_alive(served)
        served.after(IDLE_S - 1)
        assert not is_closed(client)
        served.after(1.1)
        assert everything(client) == b""


def test_the_next_request_must_be_whole_10_seconds_after_its_first_byte(loop: str) -> None:
    with serving(loop) as served:
        client = kept_alive(served)
        served.after(IDLE_S - 1)
        client.sendall(b"G")
        served.settle()
        served.after(STALL_S - 1)
        assert not is_closed(client)
        served.after(1.1)
        assert everything(client) == b""


def test_an_answer_may_last(loop: str) -> None:
    more = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"first"
        while not more.is_set():
            yield b""
        yield b"last"

    with serving(loop, {"/stream": Route(lambda _: Answer(pieces()), Audience.PEOPLE)}) as served:
        client = served.connect(b"GET /stream HTTP/1.0\r\n\r\n")
        assert client.recv(1) == b"H"
        for _ in range(10):
            served.clock.now += STALL_S * 2
            witness = served.connect()
            served.settle()
            served.clock.now += STALL_S + 1
            assert everything(witness) == b"", "the connections were looked at"
        more.set()
        assert everything(client).endswith(b"firstlast")


def test_a_client_that_reads_nothing_for_10_seconds_is_ended(loop: str) -> None:
    ended = threading.Event()

    def pieces() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
        finally:
            ended.set()

    with serving(loop, {"/page": Route(lambda _: Answer(pieces()), Audience.PEOPLE)}) as served:
        being_answered(served, PAGE, 1)

        def is_ended() -> bool:
            served.clock.now += STALL_S + 1
            return ended.wait(0.1)

        until(is_ended)
        served.settle()


def test_a_client_that_reads_slowly_is_not(loop: str) -> None:
    with serving(loop, ENDLESS) as served:
        (client,) = being_answered(served, PAGE, 1)
        for _ in range(20):
            assert alive(client, 500_000)
            served.clock.now += STALL_S / 3
            time.sleep(0.01)  # for it to be looked at: it may be ended no sooner


# Places


def test_probes_are_answered_beside_a_thousand_silent_and_half_sent_connections(loop: str) -> None:
    with serving(loop, ENDLESS) as served:
        hostile = [served.connect(HALF_SENT[i % 2 and 2]) for i in range(1000)]
        for path in PROBES:
            assert served.get(path).status == 200
        assert sum(not is_closed(client) for client in hostile) > 0, "they were answered beside these"
        until(lambda: sum(not is_closed(client) for client in hostile) <= PLACES)
        assert served.get("/page", "HEAD").status == 200, "people too"
        assert served.errors == []


def test_the_connection_that_waits_longest_is_the_first_to_go(loop: str) -> None:
    with serving(loop) as served:
        clients = [kept_alive(served)]
        clients += [served.connect(sent) for sent in HALF_SENT[:4]]
        served.settle()
        served.clock.now += GRACE_S
        clients += [served.connect() for _ in range(PLACES)]
        served.settle()
        until(lambda: is_closed(clients[5]))
        closed = list(map(is_closed, clients))
        assert closed == sorted(closed, reverse=True)
        assert 6 <= sum(closed) <= 8, "what settles takes a place too"


def test_pages_are_refused_where_16_places_are_left_and_probes_are_not(loop: str) -> None:
    with serving(loop, ENDLESS) as served:
        pages = being_answered(served, PAGE, PLACES - KEPT_PLACES)
        got = served.get("/page", Host="127.0.0.1")
        assert (got.status, got.headers["retry-after"]) == (503, "1")
        assert [served.get(path).status for path in PROBES] == [200] * 3
        silent = []
        for _ in range(20):
            silent += [served.connect() for _ in range(5)]
            served.settle()
            served.clock.now += GRACE_S
        assert [served.get(path).status for path in PROBES] == [200] * 3
        until(lambda: sum(map(is_closed, silent)) >= 100 - KEPT_PLACES)
        assert all(map(alive, pages))
        pages[0].close()
        until(lambda: served.get("/page", "HEAD").status == 200)


def test_probes_are_answered_where_all_places_are_taken_by_answers(loop: str) -> None:
    with serving(loop, ENDLESS) as served:
        (page,) = being_answered(served, PAGE, 1)
        scrapes = being_answered(served, SCRAPE, PLACES - 1)
        assert served.get("/readyz").status == 200
        assert not alive(page), "people's pages go first"
        scrapes += being_answered(served, SCRAPE, 1)
        assert served.get("/readyz").status == 200
        assert not alive(scrapes[0])
        assert all(map(alive, scrapes[1:]))


def test_a_client_has_5_milliseconds_to_send_its_request_while_there_are_pages_to_end(loop: str) -> None:
    with serving(loop, ENDLESS) as served:
        (page,) = being_answered(served, PAGE, 1)
        served.clock.now += 1
        silent = [served.connect() for _ in range(PLACES - 1)]
        served.settle()
        assert not alive(page)
        assert not any(map(is_closed, silent))


def test_a_flood_of_connections_ends_no_probe_before_it_is_read(loop: str) -> None:
    entered, free = threading.Event(), threading.Event()

    def block(_request: Request) -> Answer:
        entered.set()
        free.wait(20)
        return Answer(b"")

    with serving(loop, {**ENDLESS, "/block": Route(block, Audience.MACHINES)}) as served:
        being_answered(served, PAGE, PLACES - KEPT_PLACES)
        for _ in range(3):
            entered.clear()
            free.clear()
            served.connect(b"GET /block HTTP/1.0\r\n\r\n")
            assert entered.wait(20)
            probes = []
            for _ in range(10):  # all of these wait for the loop together
                served.connect(b"").close()
                probes.append(served.connect(PROBE))
                for _ in range(30):
                    served.connect()
            free.set()
            assert [statuses(probe.recv(1000)) for probe in probes] == [[200]] * 10


def test_connections_leave_nothing_to_the_cycle_collector(loop: str) -> None:
    with serving(loop, ENDLESS) as served:
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                assert statuses(everything(served.connect(b"x\r\n\r\n"))) == [400]
            for _ in range(PLACES + 20):
                served.connect(b"GET")
            being_answered(served, PAGE, 1)
            served.settle()
            for _ in range(20):
                served.clock.now += STALL_S + 1
                served.settle()
            served.after(IDLE_S + 1)
            until(lambda: left_over() == 0)
        finally:
            gc.enable()


def left_over() -> int:
    return sum(isinstance(thing, (Connection, h11.Connection, h11.RemoteProtocolError)) for thing in gc.get_objects())


def test_it_goes_on_once_there_are_file_descriptors_again(loop: str) -> None:
    with serving(loop) as served:
        waiting = [socket.socket() for _ in range(3)]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as lowest:
            free = lowest.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            for client in waiting:
                client.settimeout(20)
                client.connect(("127.0.0.1", served.port))
                client.sendall(PROBE)
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                socket.socket()
            served.after(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert [statuses(client.recv(1000)) for client in waiting] == [[200]] * 3
        for client in waiting:
            client.close()
        assert served.errors == []
