"""Replays of what a real Envoy logged: exactly what it answered, and under other rules what arithmetic says."""

import json
import os
import subprocess
import sys
from collections import Counter
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.access_log import until_lines
from tests.e2e.conftest import ROOT, Launch
from tests.e2e.edge import BULK, FREE, PREMIUM, Edge
from tests.support.environ import INHERITED

SECRET = "pepper"
# As shipped, but by the day: no request is refilled while the script runs, however slow the machine is.
SHIPPED = (ROOT / "envoy" / "descriptors" / "api.yaml").read_text().replace("unit: minute", "unit: day")
LOGGING = {"EXTAUTH_LOG_DESCRIPTORS": "on", "EXTAUTH_KEY_SECRET": SECRET}


def replay(edge: Edge, folder: Path, config: str, *arguments: str, secret: str = SECRET) -> dict[str, Any]:
    """What `extauth replay --json` prints about the log of this stack's Envoy."""
    path = folder / "new.yaml"
    path.write_text(config)
    ran = subprocess.run(
        [sys.executable, "-m", "extauth", "replay", "--json", "--config", path, *arguments, edge.stack.logs()["envoy"]],
        env={**INHERITED, "PYTHONPATH": str(ROOT), "EXTAUTH_KEY_SECRET": secret},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    view: dict[str, Any] = json.loads(ran.stdout)
    return view


def run_demo(edge: Edge) -> None:
    """Run scripts/test.sh, which finds fault with limits by the day."""
    environ = {**os.environ, "BASE_URL": edge.stack.url}
    subprocess.run([ROOT / "scripts" / "test.sh"], env=environ, capture_output=True, check=False, timeout=120)


def by_tier(view: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {row["tier"]: (row["allowed"], row["denied"]) for row in view["after"]["tiers"]}


@pytest.fixture(scope="module")
def no_bash() -> None:
    if os.environ.get("CI") != "true" and not Path("/bin/bash").exists():
        pytest.skip("scripts/test.sh needs bash")


@pytest.mark.usefixtures("no_bash")
async def test_the_traffic_of_the_demo_is_replayed(launch: Launch, tmp_path: Path) -> None:
    edge = launch(config=SHIPPED, env=LOGGING)
    run_demo(edge)
    lines = await until_lines(edge, 35)
    answered = Counter(line["status"] for line in lines)
    assert answered == {200: 32, 429: 3}

    same = replay(edge, tmp_path, SHIPPED)
    assert by_tier(same) == {"anonymous": (2, 1), "free": (10, 1), "premium": (20, 1)}
    assert same["answered"] == {"allowed": 32, "denied": 3}
    assert (same["changes"]["newly_denied"], same["changes"]["newly_allowed"]) == (0, 0)
    assert same["lines"]["replayed"] == 35
    assert (same["warnings"], same["after"]["untold"]) == ([], [])

    # Half of each limit, and of the free tier no burst: from its 11 requests within a day the first.
    other = SHIPPED.replace("requests_per_unit: 20", "requests_per_unit: 9").replace(": 10,", ": 10, burst: 1,")
    assert by_tier(replay(edge, tmp_path, other)) == {"anonymous": (2, 1), "free": (1, 10), "premium": (9, 12)}

    # Moved to the anonymous tier, the keys' requests count by their one address.
    without = "\n".join(line for line in SHIPPED.splitlines() if "api_key" not in line)
    assert by_tier(replay(edge, tmp_path, without)) == {"anonymous": (2, 33)}

    wrong = replay(edge, tmp_path, SHIPPED, secret="salt")
    assert by_tier(wrong) == {"anonymous": (2, 33)}
    assert "none of the hashed values of api_key" in wrong["warnings"][0]


def admitted(times: list[Fraction], per_s: int, burst: int) -> int:
    """The requests that a bucket of `burst` tokens admits, which refills `per_s` each second: plain arithmetic."""
    tokens, before, count = Fraction(burst), times[0], 0
    for time in times:
        tokens = min(tokens + (time - before) * per_s, Fraction(burst))
        before = time
        if tokens >= 1:
            tokens -= 1
            count += 1
    return count


async def test_limits_by_the_second_are_replayed_on_the_clock_of_the_log(launch: Launch, tmp_path: Path) -> None:
    edge = launch(env=LOGGING)
    for key in (FREE, PREMIUM, BULK):
        await edge.get_many(20, key=key, at_once=4)
    lines = await until_lines(edge, 60)
    digests = {line["ratelimit"]["descriptors"][0]["entries"][0][2] for line in lines}
    assert len(digests) == 3
    config = """\
domain: api
algorithm: gcra
labels: [path]
descriptors:
  - { key: api_key, rate_limit: { unit: second, requests_per_unit: 2, burst: 3 } }
"""
    want = 0
    for digest in digests:
        mine = [line["time"] for line in lines if line["ratelimit"]["descriptors"][0]["entries"][0][2] == digest]
        begun_ms = sorted(round(datetime.fromisoformat(time).timestamp() * 1000) for time in mine)
        want += admitted([Fraction(ms, 1000) for ms in begun_ms], 2, 3)
    view = replay(edge, tmp_path, config)
    assert (view["after"]["allowed"], view["after"]["denied"]) == (want, 60 - want)
    assert 9 <= want < 60
