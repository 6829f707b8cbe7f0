"""A browser, a service that counts in memory, and its live page in the browser."""

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Request, sync_playwright

from scripts.stack import programs
from tests.support.process import Served
from tests.support.programs import missing

# Names that would do something if any of them became HTML.
HOSTILE = "<img src=x onerror=document.title='hacked'>"
CONFIG = f"""
domain: api
tiers:
  anonymous: {{unit: day, requests_per_unit: 2}}
  free: {{unit: day, requests_per_unit: 5, replaces: [{{name: anonymous}}]}}
descriptors:
  - {{key: api_key, value: a-key-nobody-may-see, tier: free}}
  - {{key: masked_remote_address, tier: anonymous}}
  - {{key: route, value: /search, shadow_mode: true, rate_limit: {{unit: day, requests_per_unit: 4}}}}
  - {{key: hostile, value: "{HOSTILE}", rate_limit: {{unit: day, requests_per_unit: 1}}}}
  - {{key: agent, rate_limit: {{unit: day, requests_per_unit: 1}}}}
"""


class Chromium:
    """A browser that starts when a page is wanted, and its contexts by their options.

    Contexts are kept: a page in one that has had a page opens in a third of the time.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._browser: Browser | None = None
        self._contexts: dict[str, BrowserContext] = {}

    def new_context(self, **options: Any) -> BrowserContext:  # noqa: ANN401 - Playwright's
        if self._browser is None:
            path = programs.chromium() or missing("no chromium on PATH (Debian: apt install chromium)")
            playwright = self._stack.enter_context(sync_playwright())
            # Chromium's sandbox refuses to run as root, as CI does.
            sandbox = [] if os.geteuid() else ["--no-sandbox"]
            self._browser = playwright.chromium.launch(executable_path=path, args=sandbox)
            self._stack.callback(self._browser.close)
        return self._browser.new_context(locale="en-GB", **options)

    def context(self, **options: Any) -> BrowserContext:  # noqa: ANN401 - Playwright's
        key = repr(options)
        if key not in self._contexts:
            self._contexts[key] = self.new_context(**options)
        return self._contexts[key]

    def close(self) -> None:
        self._stack.close()
        self._browser = None
        self._contexts.clear()


CHROMIUM = pytest.StashKey[Chromium]()


@pytest.fixture(scope="session")
def chromium(request: pytest.FixtureRequest) -> Iterator[Chromium]:
    made = request.config.stash[CHROMIUM] = Chromium()
    yield made
    made.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """End Chromium before a test of another folder: beside Playwright's event loop, that could run none of its own."""
    result = yield
    chromium = item.config.stash.get(CHROMIUM, None)
    if chromium is not None and (nextitem is None or Path(__file__).parent not in nextitem.path.parents):
        chromium.close()
    return result


@contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """A service that counts in memory."""
    config = folder / "api.yaml"
    config.write_text(CONFIG)
    served = Served(folder, config, settings={"EXTAUTH_REDIS_URL": "memory:"})
    try:
        served.until_it_answers()
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that all tests ask."""
    with serving(tmp_path_factory.mktemp("page")) as served:
        yield served


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Served]:
    """A service that nobody has asked."""
    with serving(tmp_path) as served:
        yield served


class Visitor:
    """A page in the browser, with what went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        self.requested: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", self._raised)
        page.on("request", self._asked)
        page.set_default_timeout(20_000)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.wrong.append(message.text)

    def _raised(self, error: Error) -> None:
        self.wrong.append(str(error))

    def _asked(self, request: Request) -> None:
        self.requested.append(request.url)

    def visit(self, served: Served, *, state: str = "live") -> Page:
        """Open the page, and return once its stream is in this state."""
        self.page.goto(f"http://{served.admin}/")
        self.page.wait_for_selector(f"#link[data-state={state}]")
        return self.page


@contextmanager
def visiting(context: BrowserContext) -> Iterator[Visitor]:
    visitor = Visitor(context.new_page())
    try:
        yield visitor
        assert visitor.wrong == []
    finally:
        visitor.page.close()


@pytest.fixture(params=[{}])
def visitor(chromium: Chromium, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """Parametrized by the options of the browser's context."""
    with visiting(chromium.context(**request.param)) as visitor:
        yield visitor


@pytest.fixture
def timed(chromium: Chromium) -> Iterator[Visitor]:
    """A visitor whose clock the test moves, which is that of all pages of a context."""
    with chromium.new_context() as context:
        context.clock.install()
        with visiting(context) as visitor:
            yield visitor
