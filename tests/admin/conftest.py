from collections.abc import Iterator

import pytest

from tests.support.admin import LOOPS, ServedAdmin, serving


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def served(loop: str) -> Iterator[ServedAdmin]:
    with serving(loop) as served:
        yield served
        assert served.errors == []
