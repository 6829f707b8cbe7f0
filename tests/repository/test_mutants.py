"""The tables of mutants of the Redis scripts fit the scripts."""

import pytest

from scripts.mutants.lua import SCRIPTS, TABLES, TESTS, LuaMutant, MutantError, table
from scripts.mutants.staged import ROOT


def test_each_table_has_its_tests() -> None:
    assert {path.stem for path in TABLES.glob("*.toml")} == TESTS.keys()
    assert [test for tests in TESTS.values() for test in tests if not (ROOT / test).is_file()] == []


@pytest.mark.parametrize("mutant", [each for name in TESTS for each in table(name)], ids=lambda mutant: mutant.because)
def test_each_text_occurs_once_and_is_replaced(mutant: LuaMutant) -> None:
    assert mutant.text in mutant.find(ROOT / SCRIPTS).read_text()
    assert mutant.becomes != mutant.text


@pytest.mark.parametrize(("text", "found"), [("no such text", "occurs nowhere"), ("local", r"occurs \d+ times")])
def test_a_text_that_does_not_occur_once_is_an_error(text: str, found: str) -> None:
    with pytest.raises(MutantError, match=found):
        LuaMutant(text=text, becomes="", because="").find(ROOT / SCRIPTS)
