"""Services beside any Redis, and clusters of it."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.store_service import Serve, services
from tests.support.cluster import RealCluster, StartCluster


@pytest.fixture
async def serve(short_path: Path) -> AsyncIterator[Serve]:
    async with services(short_path) as start:
        yield start


@pytest.fixture
def start_cluster(short_path: Path) -> Iterator[StartCluster]:
    """Starts clusters that one test alone has."""
    started: list[RealCluster] = []

    def start(server: str = "valkey", **options: object) -> RealCluster:
        started.append(RealCluster(server, short_path / "c", **options))  # type: ignore[arg-type]
        return started[-1].start()

    yield start
    for cluster in started:
        cluster.stop()


@pytest.fixture
def cluster(shared_cluster: Callable[[str], RealCluster]) -> RealCluster:
    """The shared one, without the keys of tests before."""
    cluster = shared_cluster("valkey")
    for node in cluster.masters:
        node.command("FLUSHALL")
    return cluster
