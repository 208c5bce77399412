"""A fleet in a process of its own, and a real Chromium that looks at it.

Runs in the environment that scripts/test-console makes; elsewhere every test here is skipped.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

try:
    from playwright import sync_api as playwright
except ImportError:  # the test modules skip themselves
    playwright = None
CHROMIUM = shutil.which("chromium")
ROOT = pathlib.Path(__file__).parents[2]
PYTHON = os.environ.get("CORTEX_PYTHON", sys.executable)
START_SECONDS = 90


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips aloud where there is no browser."""
    if CHROMIUM is None:
        here = pathlib.Path(__file__).parent
        for item in items:
            if here in item.path.parents:  # pytest passes every item, also those of other folders
                item.add_marker(
                    pytest.mark.skip(reason="no Chromium here: apt-get install chromium")
                )


class RunningFleet:
    """`python -m tests.browser.fleet`."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [PYTHON, "-m", "tests.browser.fleet", *options],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = self._line()
        assert self.url.startswith("http://"), "the fleet did not start"

    def do(self, order: str) -> None:
        """Has something happen to the fleet."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        assert self._line() == f"done: {order}"

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.process.stdout.close()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="session")
def fleet() -> Iterator[RunningFleet]:
    """Four hosts, four loaded models, keys, and requests all the time."""
    one = RunningFleet("--keys")
    one.do("traffic 12")
    yield one
    one.end()


@pytest.fixture(scope="session")
def browser() -> Iterator[playwright.Browser]:
    """One Chromium for all tests."""
    with playwright.sync_playwright() as tools:
        made = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


class Visitor:
    """One page, and what it must never do: fail, or ask anybody but the gateway."""

    def __init__(self, browser: playwright.Browser, url: str, key: str, **options: object) -> None:
        self.url = url
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.context = browser.new_context(viewport={"width": 1440, "height": 900}, **options)
        self.context.set_default_timeout(20_000)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
        if key:
            stored = f"sessionStorage.getItem('cortex.key') ?? sessionStorage.setItem('cortex.key', '{key}')"
            self.context.add_init_script(stored)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("request", self._asked)

    def _heard(self, message: playwright.ConsoleMessage) -> None:
        # what the browser says of an answer of 401 or of a broken connection is no fault of the page
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            self.errors.append(message.text)

    def _asked(self, request: playwright.Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.outside.append(request.url)

    def open(self, page: str = "") -> playwright.Page:
        self.page.goto(f"{self.url}/ui/#/{page}")
        return self.page


@pytest.fixture
def visit(browser: playwright.Browser, fleet: RunningFleet) -> Iterator[object]:
    """Makes visitors; at the end none of their pages has failed or asked anybody else."""
    made: list[Visitor] = []

    def one(key: str = "ops-key", url: str = "", **options: object) -> Visitor:
        made.append(Visitor(browser, url or fleet.url, key, **options))
        return made[-1]

    yield one
    for visitor in made:
        visitor.context.close()
    assert [visitor.errors for visitor in made] == [[] for _ in made]
    assert [visitor.outside for visitor in made] == [[] for _ in made]
