"""Services beside any Redis."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.store_service import Serve, services


@pytest.fixture
async def serve(short_path: Path) -> AsyncIterator[Serve]:
    async with services(short_path) as start:
        yield start
