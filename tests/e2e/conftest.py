"""Stacks on free ports: one that the tests of a module share, and as many of their own as tests ask for."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest

from scripts.stack import Ports, Stack, StackError, programs
from scripts.stack.render import Edit
from tests.e2e.edge import CONFIG, Edge
from tests.support.environ import INHERITED
from tests.support.programs import missing

ROOT = Path(__file__).resolve().parents[2]


class Launch(Protocol):
    """Makes a stack, which the fixture takes down."""

    def __call__(
        self,
        *,
        config: str = CONFIG,
        lay_out: Callable[[Path, str], Path] = ...,
        env: Mapping[str, str] | None = None,
        patient: bool = True,
        edit_envoy: Edit | None = None,
    ) -> Edge: ...


def _one_file(folder: Path, config: str) -> Path:
    file = folder / "api.yaml"
    file.write_text(config)
    return file


@pytest.fixture(scope="session")
def _programs() -> None:
    """What the stack runs must be there: on a user's machine these tests are skipped without, in CI they fail."""
    try:
        programs.envoy()
        programs.store()
    except StackError as error:
        missing(str(error))


@contextlib.contextmanager
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Start stacks on free ports, each with a configuration of its own; take them down at the end."""
    stacks: list[Stack] = []

    def start(
        *,
        config: str = CONFIG,
        lay_out: Callable[[Path, str], Path] = _one_file,
        env: Mapping[str, str] | None = None,
        patient: bool = True,
        edit_envoy: Edit | None = None,
    ) -> Edge:
        folder = tmp_path_factory.mktemp("descriptors")
        file = lay_out(folder, config)
        settings = {**INHERITED, "EXTAUTH_CONFIG": str(folder), **(env or {})}
        if patient:
            # These tests count exactly: a machine that stalls for a moment must not let a request pass uncounted.
            settings = {"EXTAUTH_REDIS_TIMEOUT": "10", **settings}
        stack = Stack(
            ROOT,
            tmp_path_factory.mktemp("run"),
            ports=Ports.free(),
            env=settings,
            prometheus=False,
            ratelimit_timeout_s=20 if patient else None,
            edit_envoy=edit_envoy,
        )
        stacks.append(stack)
        stack.up()
        return Edge(stack, file)

    try:
        yield start
    finally:
        for stack in stacks:
            stack.down()


@pytest.fixture
def launch(_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """Starts a stack for one test."""
    with launcher(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def shared_stack(_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """The stack that a module's tests share. What was denied must be forgotten when the store is flushed."""
    with launcher(tmp_path_factory) as start:
        yield start(env={"EXTAUTH_DENIAL_CACHE": "0"})


@pytest.fixture
async def edge(shared_stack: Edge) -> AsyncIterator[Edge]:
    """The shared stack with nothing counted. At the end no call of Envoy to extauth may have failed."""
    with shared_stack.redis() as store:
        store.flushall()
    yield shared_stack
    await no_call_failed(shared_stack)


async def no_call_failed(edge: Edge) -> None:
    """Assert that extauth answered every call, so that every request was counted."""
    counts = await edge.envoy_ratelimit()
    assert counts.get("error", 0) == 0
    assert counts.get("failure_mode_allowed", 0) == 0
