"""The HTML report: whole, self-contained, and safe whatever the log holds."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from extauth.errors import CommandError
from extauth.replay.page import page, write_page
from tests.replay.logs import Logger
from tests.replay.replays import replayed

HOSTILE = "<script>alert(1)</script>\"'><img src=//evil.example/x onerror=alert(1)>\u202e\x1b[31m"
SHOWN = HOSTILE.replace("\u202e", r"\u202e").replace("\x1b", r"\x1b")
CONFIG = """domain: d
descriptors:
- {key: name, rate_limit: {unit: day, requests_per_unit: 1, name: tight}}
- {key: long, rate_limit: {unit: day, requests_per_unit: 1}, value_to_metric: true}
"""
VOID = {"meta", "line", "rect", "polyline"}


class Structure(HTMLParser):
    """The page's elements, each closed where it should be, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(params=[None, CONFIG.replace("per_unit: 1", "per_unit: 3")])
def report(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    log = Logger(CONFIG)
    lines = [log.line(n, f"name={HOSTILE}", f"long={HOSTILE}") for n in range(5)]
    return page(replayed(tmp_path, CONFIG, [*lines, HOSTILE], before=request.param))


def test_it_asks_no_other_server_and_runs_nothing(report: str) -> None:
    structure = Structure(report)
    assert "evil.example" in report, "shown, as text"
    for tag, attributes in structure.tags:
        assert tag not in {"script", "img", "link", "iframe", "object", "a", "form", "image", "use"}
        assert not any(name.startswith("on") or name in {"src", "href"} for name in attributes)
    assert "url(" not in report
    assert "@import" not in report
    assert (
        "meta",
        {"http-equiv": "Content-Security-Policy", "content": "default-src 'none'; style-src 'unsafe-inline'"},
    ) in [(tag, attributes) for tag, attributes in structure.tags]


def test_hostile_values_stay_text(report: str) -> None:
    text = "".join(Structure(report).words)
    assert f"name={SHOWN}" in text
    assert "\x1b" not in report
    assert "\u202e" not in report


def test_it_draws_each_tier_and_rule(report: str) -> None:
    structure = Structure(report)
    drawings = [attributes["aria-label"] for tag, attributes in structure.tags if tag == "svg"]
    assert drawings[:2] == ["none: 1 allowed, 4 denied, of 5", f"long_{SHOWN}: 1 allowed, 4 denied, of 5"]
    assert drawings[2:] == ["name: 1 allowed, 4 denied, of 5"]
    for kind in ("allowed", "denied"):
        assert len([1 for tag, attributes in structure.tags if tag == "rect" and attributes["class"] == kind]) >= 3
    lines = [1 for tag, _ in structure.tags if tag == "polyline"]
    assert len(lines) == (3 if "denied before" in report else 0)


def test_bars_have_the_heights_of_their_numbers(tmp_path: Path) -> None:
    log = Logger(CONFIG)
    lines = [log.line(at, "name=x") for at in (0, 0.1, 0.2, 0.3, 1, 2, 2.5)]
    text = page(replayed(tmp_path, CONFIG, lines))
    first = text.partition("<svg")[2].partition("</svg>")[0]
    heights = {
        kind: [float(h) for h in re.findall(rf'class="{kind}"[^>]*height="([0-9.]+)"', first)]
        for kind in ("allowed", "denied")
    }
    unit = heights["allowed"][0]
    assert [round(height / unit, 1) for height in heights["denied"]] == [3, 1, 2]


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    view = replayed(tmp_path, CONFIG, [Logger(CONFIG).line(0, "name=x")])
    with pytest.raises(CommandError, match="cannot be written: No such file or directory"):
        write_page(tmp_path / "none" / "page.html", view)
