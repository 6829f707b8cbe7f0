"""The project that the tests of compose.yml run."""

import re
from pathlib import Path

from tests.compose.project import ROOT, Project, project_name


def test_each_checkout_has_a_project_of_its_own() -> None:
    names = [project_name(Path(path)) for path in ("/src/one", "/src/two", "/src/two/.")]
    assert len(set(names)) == 2
    assert names[1] == names[2]
    assert Project.name == project_name(ROOT)


def test_the_name_is_one_that_compose_takes() -> None:
    """And not that of compose.yml, under which the checkout itself may run."""
    assert re.fullmatch("[a-z0-9][a-z0-9_-]*", Project.name)
    assert Project.name != "extauth"
