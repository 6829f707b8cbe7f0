"""scripts/test.sh, against the shipped configuration."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Launch
from tests.e2e.edge import CONFIG, Edge

pytestmark = pytest.mark.skipif(
    os.environ.get("CI") != "true" and not shutil.which("bash"), reason="scripts/test.sh needs bash"
)

SHIPPED = (ROOT / "envoy" / "descriptors" / "api.yaml").read_text()


@pytest.fixture(params=["curl", "python3"])
def asking_with(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A PATH with nothing on it but what the script needs, and one of the two programs that it asks with."""
    if request.param == "curl" and not shutil.which("curl"):
        pytest.skip("no curl on PATH")
    return path_with(tmp_path / "bin", request.param)


def path_with(folder: Path, *programs: str) -> str:
    folder.mkdir()
    for name in ("bash", "sed", "head", "date", "dirname", *programs):
        found = sys.executable if name == "python3" else shutil.which(name)
        assert found is not None, name
        (folder / name).write_text(f'#!/bin/sh\nexec "{found}" "$@"\n')
        (folder / name).chmod(0o755)
    return str(folder)


def demo(edge: Edge, script: Path = ROOT / "scripts" / "test.sh", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [script],
        env={**os.environ, "BASE_URL": edge.stack.url, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def rows(run: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """The table's rows: tier → its other columns."""
    table = run.stdout.partition("200s expected\n")[2]
    return {line.split()[0]: line.split()[1:] for line in table.splitlines()}


async def test_it_passes_and_is_honest_when_run_again(launch: Launch, asking_with: str) -> None:
    edge = launch(config=SHIPPED)
    first = demo(edge, PATH=asking_with)
    assert (first.returncode, first.stderr) == (0, ""), first.stdout + first.stderr
    assert "  200 200 429\n" in first.stdout
    assert list(rows(first)) == ["anonymous", "free", "premium"]
    asked = {
        path: sum(await edge.metric("http_requests_total", path=path)) for path in ("/hello", "/orders", "/search", "/")
    }
    assert asked == {"/hello": 11, "/orders": 12, "/search": 12, "/": 0}

    second = demo(edge, PATH=asking_with)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "used before" in second.stdout


@pytest.mark.parametrize(
    ("config", "tier"),
    [
        (SHIPPED.replace("value: free-tier-key, tier: free", "value: free-tier-key, tier: premium"), "free"),
        (CONFIG, "premium"),  # limits by the day
    ],
)
def test_a_tier_that_misbehaves_fails_it(launch: Launch, config: str, tier: str) -> None:
    run = demo(launch(config=config))
    assert run.returncode == 1
    assert "BAD" in rows(run)[tier]
    assert "was envoy/descriptors/api.yaml edited?" in run.stdout


def test_it_fails_where_nothing_limits(launch: Launch) -> None:
    edge = launch(config=SHIPPED, patient=False)
    for name in ("extauth-1", "extauth-2"):
        edge.stack.stop(name)
    run = demo(edge)
    assert run.returncode == 1
    assert "is anything limiting?" in run.stdout


def test_it_says_when_nobody_answers(launch: Launch, asking_with: str) -> None:
    edge = launch(config=SHIPPED)
    edge.stack.stop("envoy")
    run = demo(edge, PATH=asking_with)
    assert run.returncode == 1
    reason, _, advice = run.stderr.partition("\n\n")
    assert "onnect" in reason, "why there is no answer"
    assert advice == f"No answer from {edge.stack.url}. Is it up? ./dev up\n"


def test_it_says_what_it_lacks_to_ask_with(tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "test.sh"  # beside no .venv
    script.parent.mkdir()
    shutil.copy(ROOT / "scripts" / "test.sh", script)
    environ = {"PATH": path_with(tmp_path / "bin"), "BASE_URL": "http://127.0.0.1:1"}
    run = subprocess.run([script], env=environ, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("To ask, this needs curl or Python 3, and finds neither.")
    assert "Is it up?" not in run.stderr
