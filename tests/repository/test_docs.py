"""What the documents print loads as they say, and they name every setting there is and no other."""

import re
from pathlib import Path

import pytest

from extauth.config.merge import load_rules
from extauth.errors import ConfigError
from extauth.rules.matcher import Matcher
from extauth.settings import PREFIX, Settings

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}

_BLOCK = re.compile(r"(<!-- refused -->\n)?^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[tuple[str, bool]]:
    """The config files on a page, and whether it says that they are refused."""
    found = _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    return [(text, bool(refused)) for refused, text in found if re.search("^domain:", text, re.MULTILINE)]


FILES = [(f"{page}:{i}", *block) for page in PAGES for i, block in enumerate(blocks(page), 1)]


def test_the_pages_on_configuration_print_files() -> None:
    assert all(blocks(f"docs/{name}.md") for name in ("configuration", "migrating"))


@pytest.mark.parametrize(("text", "refused"), [file[1:] for file in FILES], ids=[file[0] for file in FILES])
def test_every_file_that_a_page_prints_loads_or_is_refused_as_it_says(text: str, refused: bool) -> None:
    if refused:
        with pytest.raises(ConfigError):
            load_rules({"f.yaml": text})
    else:
        assert load_rules({"f.yaml": text}).warnings == ()


def test_the_order_of_matching_is_what_the_page_says() -> None:
    (text,) = (text for text, _ in blocks("docs/configuration.md") if text.startswith("domain: order\n"))
    matcher = Matcher(load_rules({"f.yaml": text}))
    matches = [matcher.match("order", [("path", value)]) for value in ("/a/b", "/a/bc", "/x")]
    assert [match and match.rule.limits[0].requests_per_unit for match in matches] == [3, 1, 4]
    deeper = matcher.match("order", [("path", "/x"), ("method", "GET")])
    assert deeper is not None
    assert deeper.rule.limits == ()


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_that_a_page_names_is_a_setting(page: str) -> None:
    named = set(re.findall(r"\bEXTAUTH_[A-Z_]*[A-Z]\b", (ROOT / page).read_text(encoding="utf-8")))
    assert named <= SETTINGS


def test_the_readme_lists_every_setting_under_its_heading() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = readme.split("\n## Settings\n")[1].split("\n## ")[0]
    assert {name for name in SETTINGS if not re.search(rf"\b{name}\b", listed)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_link_to_a_file_or_heading_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        linked = (ROOT / page).parent / path if path else ROOT / page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, target


def test_every_helm_command_of_a_page_names_a_release_and_the_chart() -> None:
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").rglob("*.md")]
    commands = [
        words for page in pages for words in re.findall(r"^helm (?:template|install) (\S+ \S+)", page, re.MULTILINE)
    ]
    assert len(commands) >= 3
    assert set(commands) == {"extauth deploy/helm/extauth"}


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", *PAGES])
def test_every_source_file_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([\w./*-]+\.(?:py|lua|sh|toml))`", text) if "NAME" not in name}
    missing = [
        name
        for name in named
        if not any(next(folder.glob(f"**/{name}"), None) for folder in (ROOT / "extauth", ROOT / "tests"))
        and not next(ROOT.glob(name), None)
    ]
    assert missing == []
