"""Takes the README's pictures of the live page: `just screenshot`.

It starts the local stack on ports of its own, with limits under which most requests pass, sends requests through Envoy
for seven minutes, and photographs the page of one replica in the system's Chromium, in light and in dark.
"""

import math
import os
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final, Literal

from scripts.stack import Ports, Stack, StackError, programs, say

ROOT: Final = Path(__file__).resolve().parents[1]
IMAGES: Final[dict[Literal["light", "dark"], str]] = {"light": "live_page.png", "dark": "live_page_dark.png"}
RUN_S: Final = 420
GREEDY_S: Final = 80
LIMITS: Final = {2: 15, 10: 60, 20: 600}
"""A minute: those of the shipped tiers, and those that take their places here."""

ROUTES: Final = ("/hello", "/orders", "/search")
KEYS: Final = ("premium-tier-key", "free-tier-key", None)
WIDTH, HEIGHT = 1240, 980


def main() -> int:
    """Take the pictures; returns the exit code."""
    chromium = programs.chromium()
    if chromium is None:
        sys.stderr.write("No chromium on PATH (Debian: apt install chromium).\n")
        return 1
    with tempfile.TemporaryDirectory() as state:
        config = _write_config(Path(state))
        stack = Stack(ROOT, Path(state), ports=Ports.free(), env={"EXTAUTH_CONFIG": str(config)}, say=say)
        stopping = threading.Event()
        sending = threading.Thread(target=_send, args=(stack, stopping))
        try:
            stack.up()
            say(f"sending requests for {RUN_S} s")
            sending.start()
            time.sleep(RUN_S)
            for image in _photograph(chromium, f"http://localhost:{stack.ports.extauth[0].admin}/"):
                say(f"wrote {image.relative_to(ROOT)}")
        except StackError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        finally:
            stopping.set()
            if sending.is_alive():
                sending.join()
            stack.down()
    return 0


def _write_config(folder: Path) -> Path:
    shipped = (ROOT / "envoy/descriptors/api.yaml").read_text()
    for limit, here in LIMITS.items():
        shipped = shipped.replace(f"requests_per_unit: {limit},", f"requests_per_unit: {here},")
        shipped = shipped.replace(f"requests_per_unit: {limit} }}", f"requests_per_unit: {here} }}")
    descriptors = folder / "descriptors"
    descriptors.mkdir()
    (descriptors / "api.yaml").write_text(shipped)
    return descriptors


def _send(stack: Stack, stopping: threading.Event) -> None:
    """Requests of all three tiers, more and less of them in turn; towards the end two callers exceed their limits."""
    began = time.monotonic()
    debts = [0.0, 0.0, 0.0]
    while not stopping.is_set():
        second = time.monotonic() - began
        wave, greedy = math.sin(second / 30), 1.6 if second > RUN_S - GREEDY_S else 0.0
        for caller, a_second in enumerate((5 + 3 * wave, 1 + 0.6 * wave + greedy, 0.3 - 0.1 * wave + greedy / 4)):
            debts[caller] += a_second
            for _ in range(int(debts[caller])):
                debts[caller] -= 1
                _ask(f"{stack.url}{ROUTES[int(second) % len(ROUTES)]}", KEYS[caller])
        stopping.wait(max(0.0, began + int(second) + 1 - time.monotonic()))


def _ask(url: str, key: str | None) -> None:
    request = urllib.request.Request(url, headers={} if key is None else {"x-api-key": key})  # noqa: S310 - it is ours
    try:
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            response.read()
    except urllib.error.HTTPError as error:
        with error:  # 429
            error.read()


def _photograph(chromium: Path, url: str) -> list[Path]:
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - not where chromium is missing

    written = []
    with sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]
        browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
        for scheme, name in IMAGES.items():
            context = browser.new_context(
                color_scheme=scheme,
                viewport={"width": WIDTH, "height": HEIGHT},
                device_scale_factor=1.5,
                locale="en-GB",
            )
            page = context.new_page()
            page.goto(url)
            page.wait_for_selector("#link[data-state=live]")
            page.wait_for_selector("#denied tr")
            target = ROOT / "docs" / "images" / name
            page.screenshot(path=target)
            written.append(target)
            context.close()
        browser.close()
    return written


if __name__ == "__main__":
    sys.exit(main())
