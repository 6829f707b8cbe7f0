"""The live page in a real browser: what it shows is what was asked, and whatever is shown stays text."""

import re
import signal

from playwright.sync_api import Page, expect

from tests.page.calls import KEY, call
from tests.page.conftest import CONFIG, HOSTILE, Visitor
from tests.support.process import Served


def numbers(page: Page, selector: str, name: str) -> list[str]:
    """The numbers of the table row whose first cell begins with this name; empty where there is none yet."""
    row = page.locator(f"{selector} tr").filter(has=page.locator("td:first-child", has_text=re.compile(rf"^{name}")))
    return row.first.locator("td.n").all_inner_texts() if row.count() else []


def test_it_shows_to_the_unit_what_was_asked(fresh: Served, visitor: Visitor) -> None:
    address = "masked_remote_address=192.0.2.7/32"
    call(fresh, 8, KEY, address)
    call(fresh, 3, address)
    call(fresh, 6, "route=/search")
    page = visitor.visit(fresh)
    expected = {
        ("#rules-body", "api_key_"): ["8", "3", "1", "0"],
        ("#rules-body", "masked_remote_address"): ["3", "1", "1", "0"],
        ("#rules-body", "route_/search"): ["6", "0", "1", "2"],
        ("#tiers", "free"): ["5", "3"],
        ("#tiers", "anonymous"): ["2", "1"],
        ("#by-rule", "route_/search"): ["6", "0"],
        ("#denied", "api_key="): ["3"],
        ("#denied", address): ["1"],
        ("#busiest", "api_key="): ["8"],
        ("#busiest", "route=/search"): ["6"],
    }
    for (selector, name), shown in expected.items():
        expect(page.locator(selector)).to_contain_text(name)
        page.wait_for_function(
            """([selector, name, shown]) => [...document.querySelectorAll(selector + ' tr')].some((row) =>
                row.firstChild.textContent.startsWith(name)
                && [...row.querySelectorAll('td.n')].map((cell) => cell.textContent).join() === shown)""",
            arg=[selector, name, ",".join(shown)],
        )
        assert numbers(page, selector, name) == shown
    expect(page.locator("#allowed-sum")).to_have_text("13")
    expect(page.locator("#denied-sum")).to_have_text("4")
    expect(page.locator("#health")).to_have_text("extauth is well")
    expect(page.locator("#limited")).to_have_text("Limited now, by 2 rules")
    limited = page.locator("#limited-list li").first
    expect(limited.locator("b")).to_have_text(re.compile(r"^api_key=a-\*\*\*~[0-9a-f]{6}$"))
    expect(limited).to_contain_text(re.compile(r"since \d\d:\d\d:\d\d · by api_key_.* · 5 per day.* · api\.yaml:7"))
    assert "nobody-may-see" not in page.content()
    assert {url.rsplit("/", 1)[0] for url in visitor.requested if not url.startswith("data:")} == {
        f"http://{fresh.admin}"
    }


def test_what_is_hostile_stays_text(served: Served, visitor: Visitor) -> None:
    script = "<script>document.title='hacked'</script>"
    call(served, 2, f"hostile={HOSTILE}")
    call(served, 2, f"agent={script}")
    page = visitor.visit(served)
    expect(page.locator("#rules-body")).to_contain_text(f"hostile_{HOSTILE}")
    expect(page.locator("#denied")).to_contain_text(f"agent={script}")
    expect(page.locator("#limited-list")).to_contain_text(f"agent={script}")
    page.fill("#explain-descriptors", f"hostile={HOSTILE}\nagent={script}")
    page.click("button.go")
    expect(page.locator("#explained")).to_contain_text(f"agent={script}")
    page.fill("#explain-domain", HOSTILE)
    page.click("button.go")
    expect(page.locator("#explained")).to_contain_text("no config file defines domain")
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 1
    assert page.title() == "extauth"


def test_what_a_reload_makes_secret_vanishes_from_an_open_page(fresh: Served, visitor: Visitor) -> None:
    call(fresh, 3, "agent=in-clear")
    call(fresh, 6, "route=/search")
    page = visitor.visit(fresh)
    for shown in ("#by-rule", "#rules-body", "#busiest"):
        expect(page.locator(shown)).to_contain_text("/search")
    expect(page.locator("#limited-list")).to_contain_text("agent=in-clear")
    (fresh.folder / "api.yaml").write_text(CONFIG + "secret: [agent, route]\n")
    fresh.process.send_signal(signal.SIGHUP)
    expect(page.locator("main")).not_to_contain_text(re.compile("in-clear|search"))
    call(fresh, 2, "route=/search")
    expect(page.locator("#by-rule")).to_contain_text(re.compile(r"route_\*\*\*~[0-9a-f]{6}"))
    expect(page.locator("#busiest")).to_contain_text(re.compile(r"route=\*\*\*~[0-9a-f]{6}"))
    assert not re.search("in-clear|search", page.locator("main").inner_text())


def test_a_request_is_explained(served: Served, visitor: Visitor) -> None:
    page = visitor.visit(served)
    expect(page.locator("#explain-domain")).to_have_value("api")
    page.fill("#explain-descriptors", "agent=somebody\nmasked_remote_address=198.51.100.1/32\nagent")
    page.click("button.go")
    expect(page.locator("#explained")).to_contain_text("'agent' is no descriptor")
    visitor.wrong = [each for each in visitor.wrong if "400" not in each]  # what the browser says of that answer
    page.fill("#explain-descriptors", f"{KEY}x\nmasked_remote_address=198.51.100.1/32")
    page.click("button.go")
    shown = page.locator("#explained > div")
    expect(shown).to_have_count(3)
    expect(shown.nth(0)).to_contain_text("not limited")
    expect(shown.nth(1)).to_contain_text("2 per day")
    expect(shown.nth(2)).to_contain_text("2 left of 2 per day (anonymous), nothing is used")


def test_rules_are_filtered_and_sorted(served: Served, visitor: Visitor) -> None:
    page = visitor.visit(served)
    rows = page.locator("#rules-body tr")
    expect(rows).to_have_count(5)
    page.fill("#rules-filter", "shadow search")
    expect(rows).to_have_count(1)
    page.fill("#rules-filter", "no such rule")
    expect(page.locator("#rules-none")).to_be_visible()
    page.fill("#rules-filter", "")
    header = page.locator("#rules-head th").first
    page.click("#rules-head button >> nth=0")
    expect(header).to_have_attribute("aria-sort", re.compile("ascending|descending"))
    names = rows.locator("td:first-child .mono").all_inner_texts()
    assert names in (sorted(names), sorted(names, reverse=True))


def test_it_can_be_used_by_keyboard_alone(served: Served, visitor: Visitor) -> None:
    page = visitor.visit(served)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("#main$"))
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert {"chart", "rules-filter", "Calls", "explain-domain", "explain-descriptors", "Explain"} <= set(reached)
    page.focus("#chart")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#chart")).to_have_attribute("aria-valuenow", "-2")
    expect(page.locator("#chart")).to_have_attribute(
        "aria-valuetext", re.compile(r"^\d\d:\d\d:\d\d: \d+ allowed, \d+ denied$")
    )
    page.focus("#rules-head button[data-sort=calls]")
    page.keyboard.press("Enter")
    expect(page.locator("#rules-head th").nth(1)).to_have_attribute("aria-sort", "descending")
    page.focus("#explain-descriptors")
    page.keyboard.type("masked_remote_address=198.51.100.2/32")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#explained")).to_contain_text("2 left of 2 per day")
