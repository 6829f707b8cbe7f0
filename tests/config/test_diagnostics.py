"""An API key may stand anywhere in a config file by mistake: no message shows it."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from extauth.cli import app

RUN = CliRunner()
WORD = "Zq7-Sekret-kW93xPvB"
NUMBER = "815162342815162342"
STANDS = {
    "a word": WORD,
    "in quotes": f'"{WORD}"',
    "with a star": f"{WORD}*",
    "a number": NUMBER,
    "a negative number": f"-{NUMBER}",
    "a fraction": f"{NUMBER}.5",
    "an int that is none": f"!!int {WORD}",
    "a bool that is none": f"!!bool {WORD}",
    "a tag": f"!{WORD} x",
    "an alias": f"*{WORD}",
    "an anchor": f"&{WORD} x",
    "a regex that is none": f'"({WORD}"',
    "an escape that is none": f'"\\{WORD}"',
    "a sign": f"@{WORD}",
    "in a list": f"[{WORD}]",
    "a list of two": f"[{WORD}, {WORD}]",
    "a key": f"{{{WORD}: 1}}",
    "a key twice": f"{{{WORD}: 1, {WORD}: 2}}",
    "a value of a limit": f"{{unit: {WORD}, requests_per_unit: {NUMBER}}}",
    "an ignored limit": f"{{rate_limit: {{{WORD}: {WORD}}}}}",
    "merged": f"{{<<: {WORD}}}",
}
LIMIT = {
    "unit": "day",
    "requests_per_unit": 1,
    "unit_multiplier": 2,
    "algorithm": "gcra",
    "burst": 3,
    "name": "n",
    "on_store_failure": "local",
}
FILE = {
    "domain": "d",
    "algorithm": "fixed_window",
    "count_denied": "true",
    "on_store_failure": "deny",
    "labels": ["path"],
    "secret": ["key"],
    "tiers": {
        "free": {"unit": "day", "requests_per_unit": 1, "replaces": [{"name": "n"}]},
        "staff": {"unlimited": "true"},
    },
    "descriptors": [
        {"key": "a", "value": "v", "tier": "free", "shadow_mode": "true", "quota_mode": "true"},
        {"key": "a", "value": "w", "rate_limit": LIMIT, "detailed_metric": "true", "metadata": {"m": ["x"]}},
        {"key": "b", "values": ["v", "w"], "rate_limits": [LIMIT | {"name": "o"}], "value_to_metric": "true"},
        {"key": "c", "value_sha256": "a" * 64, "rate_limit": {"unit": "day", "requests_per_unit": 1}},
        {"key": "d", "value_regex": "x+", "descriptors": [{"key": "e", "value": "*", "share_threshold": "true"}]},
        {"key": "f", "value_range": {"start": 1, "end": 9}, "unit": "day"},
        {"key": "g", "tier": "premium"},
        {"key": "h", "limit": "10/minute"},
    ],
    "rate_limit": {"unit": "day"},
}
Path_ = tuple[str | int, ...]


def places(node: Any, path: Path_ = ()) -> Iterator[tuple[Path_, bool]]:  # noqa: ANN401
    """Where something may stand: the path to it, and whether it is the key there. A tier's own name is public."""
    yield path, False
    for step, item in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from places(item, (*path, step))
        if isinstance(step, str) and path != ("tiers",):
            yield (*path, step), True


def written(node: Any, stands: dict[tuple[Path_, bool], str], path: Path_ = ()) -> str:  # noqa: ANN401
    """The node as YAML, with what `stands` in place of some of it."""
    if (path, False) in stands:
        return stands[path, False]
    if isinstance(node, dict):
        items = (
            (stands.get(((*path, key), True), key), written(item, stands, (*path, key))) for key, item in node.items()
        )
        return "{" + ", ".join(f"? {key} : {value}" for key, value in items) + "}"
    if isinstance(node, list):
        return "[" + ", ".join(written(item, stands, (*path, i)) for i, item in enumerate(node)) + "]"
    return '"*"' if node == "*" else str(node)


PLACES = sorted((place for place in places(FILE) if place[0] != ("domain",) or place[1]), key=str)  # it is public, too


def assert_hidden(*files: str, ways: tuple[tuple[str, ...], ...] = ((),)) -> None:
    """Whatever is printed about the files holds no six characters of what is secret."""
    with tempfile.TemporaryDirectory(prefix="xa") as folder:
        for i, text in enumerate(files):
            (Path(folder) / f"{i}.yaml").write_text(text)
        for options in ways:
            result = RUN.invoke(app, ["validate", *options, folder])
            assert result.exit_code in {0, 1}
            for secret in (WORD, NUMBER):
                shown = [secret[i : i + 6] for i in range(len(secret) - 5) if secret[i : i + 6] in result.output]
                assert not shown, (files, result.output)


def test_the_file_is_right_apart_from_what_is_wrong_on_purpose() -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(written(FILE, {}))
        file.flush()
        told = json.loads(RUN.invoke(app, ["validate", "--json", file.name]).stdout)
    assert [problem["message"] for problem in told["problems"]] == ["unknown tier", "unknown key 'limit'"]


@pytest.mark.parametrize("text", STANDS.values(), ids=STANDS)
def test_no_message_shows_what_stands_in_a_wrong_place(text: str) -> None:
    for place in PLACES:
        assert_hidden(written(FILE, {place: text}))


@settings(deadline=None)  # the first command that runs imports what it needs
@given(stands=st.dictionaries(st.sampled_from(PLACES), st.sampled_from(list(STANDS.values())), min_size=2, max_size=5))
def test_nor_where_several_things_are_wrong(stands: dict[tuple[Path_, bool], str]) -> None:
    files = (written(FILE, stands), written(FILE, {}), written(FILE, dict(list(stands.items())[:1])))
    assert_hidden(*files, ways=((), ("--json", "--merge-domains")))
