"""Engines for the tests of what every engine does."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.transport.engines import ENGINES, Engine


@pytest.fixture(params=list(ENGINES))
async def engine(request: pytest.FixtureRequest, short_path: Path) -> AsyncIterator[Engine]:
    engine = Engine(request.param, short_path)
    await engine.server.start()
    yield engine
    await engine.channel.close()
    await engine.server.stop(0)
