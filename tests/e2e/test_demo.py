"""scripts/test.sh, against the shipped configuration."""

import os
import shutil
import subprocess

import pytest

from tests.e2e.conftest import ROOT, Launch
from tests.e2e.edge import CONFIG, Edge

pytestmark = pytest.mark.skipif(
    os.environ.get("CI") != "true" and not (shutil.which("curl") and shutil.which("bash")),
    reason="scripts/test.sh needs bash and curl",
)

SHIPPED = (ROOT / "envoy" / "descriptors" / "api.yaml").read_text()


def demo(edge: Edge, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / "test.sh"],
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


def test_it_passes_and_is_honest_when_run_again(launch: Launch) -> None:
    edge = launch(config=SHIPPED)
    first = demo(edge)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "  200 200 429\n" in first.stdout
    assert list(rows(first)) == ["anonymous", "free", "premium"]

    second = demo(edge)
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


def test_it_says_when_nobody_answers(launch: Launch) -> None:
    edge = launch(config=SHIPPED)
    edge.stack.stop("envoy")
    run = demo(edge)
    assert run.returncode == 1
    assert "./dev up" in run.stderr
