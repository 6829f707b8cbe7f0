"""`extauth init`: what it writes, and that a real Envoy is limited by it."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from click.testing import CliRunner

from extauth.cli import app
from scripts.stack import programs
from tests.support.ports import free_port
from tests.support.process import Served
from tests.support.wait import until

RUN = CliRunner()
FILES = ("descriptors/api.yaml", "envoy.yaml")


def test_it_says_what_it_wrote_and_what_to_run(tmp_path: Path) -> None:
    folder = tmp_path / "my limits"
    result = RUN.invoke(app, ["init", "--json", str(folder)])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "wrote": [str(folder / name) for name in FILES],
        "next": [
            f"EXTAUTH_REDIS_URL=memory: EXTAUTH_CONFIG='{folder}/descriptors' extauth serve",
            f"envoy -c '{folder}/envoy.yaml'",
        ],
    }
    assert RUN.invoke(app, ["validate", "--strict", str(folder / "descriptors")]).exit_code == 0
    other = RUN.invoke(app, ["init", str(tmp_path / "plain")])
    assert other.stdout.count("wrote ") == 2
    assert f"  envoy -c {tmp_path}/plain/envoy.yaml\n" in other.stdout


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("dangling", [False, True], ids=["file", "link"])
def test_it_overwrites_nothing(tmp_path: Path, name: str, dangling: bool) -> None:
    mine = tmp_path / name
    mine.parent.mkdir(exist_ok=True)
    mine.symlink_to("nowhere") if dangling else mine.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    result = RUN.invoke(app, ["init", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{mine} is there already, and nothing was written" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert dangling or mine.read_text() == "mine"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = RUN.invoke(app, ["init", str(tmp_path / "file/below")])
    assert result.exit_code == 2
    assert "cannot write" in result.stderr
    assert "Not a directory" in result.stderr


@contextmanager
def running_envoy(config: Path) -> Iterator[None]:
    argv = [str(programs.envoy()), "-c", str(config), "--disable-hot-restart", "--concurrency", "1"]
    with (config.parent / "envoy.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_a_real_envoy_is_limited_by_what_it_wrote(tmp_path: Path) -> None:
    assert RUN.invoke(app, ["init", str(tmp_path)]).exit_code == 0
    ports = {default: free_port() for default in (10000, 10001, 8081)}
    envoy = tmp_path / "envoy.yaml"
    text = envoy.read_text()
    for default, port in ports.items():
        assert f"port_value: {default} " in text
        text = text.replace(f"port_value: {default} ", f"port_value: {port} ")
    assert "timeout: 0.25s" in text
    envoy.write_text(text.replace("timeout: 0.25s", "timeout: 20s"))  # a busy machine must not let requests pass
    settings = {"EXTAUTH_REDIS_URL": "memory:", "EXTAUTH_GRPC_LISTEN": f"127.0.0.1:{ports[8081]}"}
    served = Served(tmp_path, tmp_path / "descriptors", settings=settings)

    def get(**headers: str) -> int:
        connection = HTTPConnection("127.0.0.1", ports[10000], timeout=10)
        try:
            connection.request("GET", "/", headers={name.replace("_", "-"): value for name, value in headers.items()})
            return connection.getresponse().status
        finally:
            connection.close()

    def answers() -> bool:
        try:
            return get(x_api_key="change-me") == 200
        except OSError:
            return False

    try:
        served.until_it_answers()
        with running_envoy(envoy):
            until(answers, (tmp_path / "envoy.log").read_text)
            assert [get() for _ in range(7)] == [200] * 5 + [429] * 2
            assert [get(x_api_key="unknown") for _ in range(2)] == [429] * 2
            known = [get(x_api_key="change-me") for _ in range(20)]
            assert known == sorted(known)
            assert 200 in known
            assert 429 in known
    finally:
        served.stop()
