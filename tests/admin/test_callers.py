"""Calls that want to be decided beside probes and scrapes, which must not wait for them."""

import threading

from extauth.admin.connection import PLACES
from extauth.admin.routes import Answer, Audience, Request, Route
from tests.admin.clients import ENDLESS, PROBE, SCRAPE, alive, being_answered, endless
from tests.support.admin import serving, statuses
from tests.support.wait import until

CALL = b"GET /call HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
CALLS = PLACES - 4


def test_a_probe_waits_for_no_more_than_a_few_calls(loop: str) -> None:
    entered, free = threading.Event(), threading.Event()
    decided = 0
    before_probe: list[int] = []

    def block(_request: Request) -> Answer:
        entered.set()
        free.wait(20)
        return Answer(b"")

    def call(_request: Request) -> Answer:
        nonlocal decided
        decided += 1
        served.clock.now += 0.01
        return Answer(b"")

    def probe(_request: Request) -> Answer:
        before_probe.append(decided)
        return Answer(b"")

    routes = {
        "/block": Route(block, Audience.MACHINES),
        "/call": Route(call, Audience.CALLERS),
        "/healthz": Route(probe, Audience.MACHINES),
    }
    with serving(loop, routes) as served:
        served.connect(b"GET /block HTTP/1.0\r\n\r\n")
        assert entered.wait(20)
        for _ in range(CALLS):  # all of these wait for the loop together
            served.connect(CALL)
        client = served.connect(PROBE)
        free.set()
        assert statuses(client.recv(1000)) == [200]
        assert before_probe[0] < CALLS / 2
        until(lambda: decided == CALLS)


def test_probes_and_scrapes_take_the_places_of_calls(loop: str) -> None:
    with serving(loop, {**ENDLESS, "/call": Route(endless, Audience.CALLERS)}) as served:
        (scrape,) = being_answered(served, SCRAPE, 1)
        calls = being_answered(served, CALL, PLACES - 1)
        assert served.get("/readyz").status == 200
        assert not alive(calls[0])
        assert all(map(alive, (scrape, *calls[1:])))
