"""Draws the README's pictures of the dashboard: `just pictures`.

It starts the local stack on ports of its own, runs scripts/test.sh a dozen times, and draws two panels from what the
dashboard's own queries return from that stack's Prometheus. Takes three minutes.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from observability.grafana.draw import draw, lines
from observability.grafana.queries import Prometheus, choose_all, panels
from scripts.stack import Ports, Stack, StackError, programs, say

ROOT = Path(__file__).resolve().parents[1]
IMAGES = {
    "Allowed requests by path and tier": "grafana_allowed_requests.png",
    "Denied requests by path and tier": "grafana_denied_requests.png",
}
RUNS = 12
EVERY_S = 15
SCRAPED_WITHIN_S = 60


def main() -> int:
    """Make the pictures; returns the exit code."""
    if programs.prometheus() is None:
        sys.stderr.write("No prometheus on PATH (Debian: apt install prometheus; macOS: brew install prometheus).\n")
        return 1
    with tempfile.TemporaryDirectory() as state:
        stack = Stack(ROOT, Path(state), ports=Ports.free(), env={}, say=say)
        try:
            stack.up()
            prometheus = Prometheus(url=f"http://127.0.0.1:{stack.ports.prometheus}")
            start_s = time.time()
            _send(stack)
            _wait_for_scrape(prometheus)
            for image in _draw(prometheus, start_s, time.time()):
                say(f"wrote {image.relative_to(ROOT)}")
        except StackError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        finally:
            stack.down()
    return 0


def _send(stack: Stack) -> None:
    """Requests of all three tiers, at a pace that refills some of each tier's allowance."""
    began = time.monotonic()
    for run in range(RUNS):
        time.sleep(max(0.0, began + run * EVERY_S - time.monotonic()))
        say(f"scripts/test.sh, run {run + 1} of {RUNS}")
        subprocess.run(
            ["scripts/test.sh"],
            cwd=ROOT,
            env={**os.environ, "BASE_URL": stack.url},
            stdout=subprocess.DEVNULL,
            check=True,
        )


def _wait_for_scrape(prometheus: Prometheus) -> None:
    """Until Prometheus has seen what every replica counted up to now."""
    sent_s = time.time()
    deadline = time.monotonic() + SCRAPED_WITHIN_S
    while True:
        scraped = prometheus.get("query", query="min(timestamp(http_requests_total))")["result"]
        if scraped and float(scraped[0]["value"][1]) > sent_s:
            return
        if time.monotonic() > deadline:
            msg = f"Prometheus has not scraped extauth within {SCRAPED_WITHIN_S} s of the last request."
            raise StackError(msg)
        time.sleep(0.2)


def _draw(prometheus: Prometheus, start_s: float, end_s: float) -> list[Path]:
    chosen = choose_all(prometheus)
    written = []
    for panel in panels():
        if panel.title in IMAGES:
            target = ROOT / "docs" / "images" / IMAGES[panel.title]
            target.parent.mkdir(exist_ok=True)
            figure = draw(panel, lines(prometheus, panel, chosen, start_s, end_s), start_s, end_s)
            figure.savefig(target, facecolor=figure.get_facecolor(), edgecolor=figure.get_edgecolor())
            written.append(target)
    return written


if __name__ == "__main__":
    sys.exit(main())
