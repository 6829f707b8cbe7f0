"""The live page while its stream, the store or the service is away."""

import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import expect

from tests.page.calls import call
from tests.page.conftest import CONFIG, Visitor
from tests.support.process import Served
from tests.support.stores import Store
from tests.support.wait import until


@pytest.fixture
def beside_store(own_store: Store) -> Iterator[Served]:
    config = own_store.folder / "api.yaml"
    config.write_text(CONFIG)
    served = Served(own_store, config)
    try:
        served.until_it_answers()
        yield served
    finally:
        served.stop()


def test_the_17th_page_is_told_so_while_probes_are_answered(served: Served, timed: Visitor) -> None:
    with ExitStack() as stack:

        def opened() -> bool:
            connection = http.client.HTTPConnection("127.0.0.1", served.admin_port, timeout=20)
            stack.callback(connection.close)
            connection.request("GET", "/live")
            return connection.getresponse().status == 200

        for _ in range(16):
            until(opened, "a place that a page of another test had", every_s=0.1)
        page = timed.visit(served, state="lost")
        expect(page.locator("#link")).to_contain_text("has 16 already")
        assert [served.get(path)[0] for path in ("/live", "/metrics", "/healthz", "/readyz")] == [503, 200, 200, 200]
    page.clock.run_for(3_000)
    page.wait_for_selector("#link[data-state=live]")
    timed.wrong = [each for each in timed.wrong if "503" not in each]  # what the browser says of the refusal


def test_it_says_that_the_store_is_away_and_that_the_service_is(
    beside_store: Served, own_store: Store, visitor: Visitor
) -> None:
    page = visitor.visit(beside_store)
    expect(page.locator("#health")).to_have_text("extauth is well")
    own_store.stop()
    expect(page.locator("#health")).to_have_text("extauth decides without its store")
    call(beside_store, 4, "masked_remote_address=192.0.2.3/32")
    expect(page.locator("#faults")).to_contain_text("each replica counts by itself")
    expect(page.locator("#faults")).to_contain_text("4 calls were decided without it")
    expect(page.locator("#tiers")).to_contain_text("anonymous")
    page.fill("#explain-descriptors", "masked_remote_address=192.0.2.3/32")
    page.click("button.go")
    expect(page.locator("#explained")).to_contain_text("What is left is not known, for the store is away")
    own_store.start()
    expect(page.locator("#health")).to_have_text("extauth is well")
    beside_store.stop()
    page.wait_for_selector("#link[data-state=lost]")
    expect(page.locator("#link")).to_contain_text("lost, last heard at")
    visitor.wrong = [each for each in visitor.wrong if "ERR_" not in each]


def test_it_says_that_it_shows_one_replica_of_several(beside_store: Served, own_store: Store, visitor: Visitor) -> None:
    (own_store.folder / "other").mkdir()
    other = Served(own_store, own_store.folder / "api.yaml", folder=own_store.folder / "other")
    try:
        beside_store.until(lambda: json.loads(beside_store.get("/readyz")[1])["replicas"] == 2)
        page = visitor.visit(beside_store)
        expect(page.locator("#traffic-note")).to_have_text("of this replica alone, one of 2, last 15 minutes")
        expect(page.locator("#who-note")).to_contain_text("of this replica alone, one of 2, since")
        expect(page.locator("#rules-note")).to_contain_text("counted by this replica since it started")
        expect(page.locator("#limited")).to_have_text("Nobody is limited by this replica now")
        expect(page.locator("#faults")).to_contain_text("Both replicas have the same rules.")
        expect(page.locator("#replicas-facts")).to_contain_text("all have the same")
        expect(page.locator("#replicas tr")).to_have_count(2)
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") == 360
    finally:
        other.stop()


def test_a_page_that_nobody_sees_gives_its_place_up(served: Served, timed: Visitor) -> None:
    page = timed.visit(served)
    hide = """(hidden) => {
        Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    page.evaluate(hide, True)
    page.clock.run_for(29_000)
    expect(page.locator("#link")).to_have_text("live")
    page.clock.run_for(2_000)
    expect(page.locator("#link")).to_have_text("paused while hidden")
    page.evaluate(hide, False)
    expect(page.locator("#link")).to_have_text("live")
