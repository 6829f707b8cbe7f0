"""Fixtures that several kinds of tests use."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from hypothesis import Phase, settings

from tests.support.cluster import PARTLY, RealCluster
from tests.support.stores import SERVERS, Store

# By the clock of a busy machine any example may take long; what must be fast has a test that counts or compares.
settings.register_profile("tests", settings.default, deadline=None)
settings.load_profile("tests")
# For `./dev mutants`: one example that fails is enough, and to look for others or for a small one takes minutes.
settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False, database=None)


@pytest.fixture(autouse=True, scope="session")
def _nothing_is_remembered() -> None:
    """Under mutmut the tests run in a fork of a process that ran them before, whose memory would hide mistakes."""
    for name, module in list(sys.modules.items()):
        if name.startswith("extauth."):
            for thing in vars(module).values():
                if hasattr(thing, "cache_clear"):
                    thing.cache_clear()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder whose path is short enough for a Unix socket in it."""
    with tempfile.TemporaryDirectory(prefix="xa") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def shared_store() -> Iterator[Callable[[str], Store]]:
    """Servers that all tests share, by kind, each started when first asked for: use counter names of your own."""
    with ExitStack() as stack:

        @cache
        def start(server: str) -> Store:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="xa"))
            store = Store(server, Path(folder)).start()
            stack.callback(store.stop)
            return store

        yield start


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Callable[[str], RealCluster]]:
    """A cluster of each kind of server, without replicas, that all tests share: use counter names of your own."""
    with ExitStack() as stack:

        @cache
        def start(server: str) -> RealCluster:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="xa"))
            cluster = RealCluster(server, Path(folder), replicas=False, options=PARTLY)
            stack.callback(cluster.stop)
            return cluster.start()

        yield start


@pytest.fixture(params=SERVERS)
def any_store(request: pytest.FixtureRequest, shared_store: Callable[[str], Store]) -> Store:
    """Each kind of server in turn."""
    return shared_store(request.param)


@pytest.fixture
def own_store(short_path: Path) -> Iterator[Store]:
    """A server of the test's own, to be flushed, paused, stopped and started."""
    store = Store("valkey", short_path).start()
    yield store
    store.stop()
