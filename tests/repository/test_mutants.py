"""The table of mutants of the Redis script fits the script."""

import pytest

from scripts.mutants.lua import SCRIPTS, LuaMutant, MutantError, table
from scripts.mutants.staged import ROOT


@pytest.mark.parametrize("mutant", table(), ids=lambda mutant: mutant.because)
def test_each_text_occurs_once_and_is_replaced(mutant: LuaMutant) -> None:
    assert mutant.text in mutant.find(ROOT / SCRIPTS).read_text()
    assert mutant.becomes != mutant.text


@pytest.mark.parametrize(("text", "found"), [("no such text", "occurs nowhere"), ("local", r"occurs \d+ times")])
def test_a_text_that_does_not_occur_once_is_an_error(text: str, found: str) -> None:
    with pytest.raises(MutantError, match=found):
        LuaMutant(text=text, becomes="", because="").find(ROOT / SCRIPTS)
