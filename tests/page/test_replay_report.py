"""The page that `extauth replay --html` writes, in a real browser."""

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from extauth.replay.page import write_page
from tests.page.conftest import HOSTILE, Visitor
from tests.page.test_looks import LOOKS, PHONE
from tests.replay.logs import Logger
from tests.replay.replays import replayed

CONFIG = """domain: d
tiers:
  anonymous: {unit: minute, requests_per_unit: 2}
descriptors:
- {key: address, tier: anonymous, value_to_metric: true}
- {key: api_key, value_regex: 'x.*', rate_limit: {unit: minute, requests_per_unit: 5}}
"""


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report with all its parts, of a log with names that would do something if they became HTML."""
    log = Logger(CONFIG)
    lines = [log.line(n, f"address={HOSTILE if n % 3 else 'a-long-name-without-a-break' * 8}") for n in range(90)]
    lines += [log.line(91, "api_key=hidden"), "no JSON"]
    before = CONFIG.replace("requests_per_unit: 2", "requests_per_unit: 9")
    path = tmp_path / "what-if.html"
    write_page(path, replayed(tmp_path, CONFIG, lines, before=before))
    return path


def serious(page: Any) -> dict[str, list[str]]:  # noqa: ANN401 - Playwright's
    return {
        each["id"]: [node["html"] for node in each["nodes"]]
        for each in Axe().run(page).response["violations"]
        if each["impact"] in {"serious", "critical"}
    }


@pytest.mark.parametrize("visitor", LOOKS.values(), ids=LOOKS, indirect=True)
def test_axe_finds_no_serious_fault(report: Path, visitor: Visitor) -> None:
    visitor.page.goto(report.as_uri())
    assert serious(visitor.page) == {}


def test_it_shows_the_numbers_and_asks_for_nothing_else(report: Path, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(report.as_uri())
    assert visitor.requested == [report.as_uri()]
    assert page.title() == "What if: after"
    assert page.locator("figure svg").count() == 3
    assert page.locator("figure svg").first.bounding_box() is not None
    assert page.locator("img").count() == 0
    assert page.get_by_text("cannot be told: 1 call: after.yaml:6:3: the regex of api_key needs the value").count() == 1
    cells = page.locator("table").nth(0).locator("tr").last.locator("td").all_inner_texts()
    assert cells == ["after", "8", "82", "1"]


@pytest.mark.parametrize("visitor", [PHONE], indirect=True)
def test_a_phone_need_not_be_scrolled_sideways(report: Path, visitor: Visitor) -> None:
    visitor.page.goto(report.as_uri())
    assert visitor.page.evaluate("document.documentElement.scrollWidth") == 360
