"""The local stack itself: scripts/stack."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from scripts.stack import Ports, Stack, StackError
from scripts.stack.ports import is_taken
from tests.e2e.conftest import ROOT, Launch
from tests.e2e.edge import Edge

pytestmark = pytest.mark.usefixtures("_programs")


def again(edge: Edge) -> Stack:
    """The same stack, as a second command finds it."""
    return Stack(ROOT, edge.stack.state, ports=edge.stack.ports, env={}, prometheus=False)


@pytest.fixture
def make() -> Iterator[Callable[..., Stack]]:
    """Makes a stack on free ports, which has not been started."""
    made: list[Stack] = []

    def one(state: Path, *, ports: Ports | None = None, env: dict[str, str] | None = None) -> Stack:
        made.append(Stack(ROOT, state, ports=ports or Ports.free(), env=env or {}, prometheus=False))
        return made[-1]

    yield one
    for stack in made:
        stack.down()


def all_ports(ports: Ports) -> list[int]:
    return [
        ports.edge,
        ports.envoy_admin,
        ports.envoy_stats,
        ports.echo,
        *(port for replica in ports.extauth for port in (replica.grpc, replica.admin)),
    ]


async def test_up_twice_leaves_what_runs_and_restarts_what_died(launch: Launch) -> None:
    edge = launch()
    names = [name for name, _, _ in edge.stack.status()]
    pids = {name: edge.stack.process(name).pid() for name in names}
    assert all(pids.values())

    second = again(edge)
    second.up()
    assert {name: edge.stack.process(name).pid() for name in names} == pids

    assert edge.stack.stop("echo") == 0
    assert {name: state for name, state, _ in second.status()}["echo"] == "stopped"
    second.up()
    assert (await edge.get()).status == 200
    assert sorted(second.down()) == sorted(names)


def test_down_stops_all_and_leaves_nothing_open(launch: Launch) -> None:
    stack = launch().stack
    pids = [pid for name, _, _ in stack.status() if (pid := stack.process(name).pid()) is not None]

    assert sorted(stack.down()) == ["echo", "envoy", "extauth-1", "extauth-2", "redis"]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert not any(is_taken("127.0.0.1", port) for port in all_ports(stack.ports))
    assert {file.suffix for file in stack.state.iterdir() if file.is_file()} == {".log", ""}  # the logs and the lock
    assert stack.down() == []


def test_a_taken_port_is_named_and_nothing_is_started(make: Callable[..., Stack], tmp_path: Path) -> None:
    ports = Ports.free()
    stack = make(tmp_path, ports=ports)
    with socket.create_server(("127.0.0.1", ports.echo)), pytest.raises(StackError) as refused:
        stack.up()

    assert f"port {ports.echo} is taken; echo needs it" in str(refused.value)
    assert {state for _, state, _ in stack.status()} == {"stopped"}


def test_a_part_that_fails_shows_its_log_and_the_rest_is_stopped(make: Callable[..., Stack], tmp_path: Path) -> None:
    env = {"EXTAUTH_CONFIG": str(tmp_path / "nowhere")}
    stack = make(tmp_path / "run", env=env)
    with pytest.raises(StackError) as failed:
        stack.up()

    assert "extauth-1 ended before it was ready" in str(failed.value)
    assert str(tmp_path / "nowhere") in str(failed.value)
    assert {state for _, state, _ in stack.status()} == {"stopped"}


def test_a_pid_that_another_process_has_now_is_left_alone(make: Callable[..., Stack], tmp_path: Path) -> None:
    stack = make(tmp_path)
    (tmp_path / "echo.pid").write_text(f"{os.getpid()} of a process that started at another time\n")

    assert stack.down() == []
    assert not (tmp_path / "echo.pid").exists()


def test_a_state_folder_may_have_a_long_path(make: Callable[..., Stack], tmp_path: Path) -> None:
    stack = make(tmp_path / ("deep" * 30))
    stack.up()

    with redis.Redis.from_url(stack.redis_url) as store:
        assert store.ping()
