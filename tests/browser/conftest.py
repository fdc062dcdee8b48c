"""A real Chromium, driven by Playwright, and what must be there for it.

Without a browser these tests are skipped with a word on how to get one; under CI they fail with it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright
from tornado.ioloop import IOLoop

from tests.browser.audit import happen, hire, seal
from tests.browser.packages import Workshop, installed, lacking
from tests.browser.pages import PATIENCE, Visitors
from tests.conftest import StartNode, execute_within
from tests.devices import Site

HERE = Path(__file__).parent
# The shell has no window to draw, which is half of the processor time of a test.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",  # it does not start as root otherwise
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
)
# Seconds for one test: pages are loaded and passwords hashed several times, on a machine that may be busy.
TIMEOUT = 240


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--screenshots", type=Path, metavar="FOLDER", help="put pictures of the pages into FOLDER"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(seconds=TIMEOUT))


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium."""
    for name in (os.environ.get("CHROMIUM", ""), *NAMES):
        if name and (path := shutil.which(name)):
            return path
    return lacking(
        "no Chromium was found. On Debian and Ubuntu: apt-get install chromium-headless-shell;"
        " elsewhere, put its path into CHROMIUM"
    )


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    return (installed() / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Where apps are built with the client from npm."""
    return Workshop(tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="session")
def browser(io_loop: IOLoop, chromium: str) -> Iterator[Browser]:
    """A Chromium for all tests of a worker; each visitor of a test has a context of its own in it."""
    playwright = io_loop.run_sync(async_playwright().start)
    try:
        browser = io_loop.run_sync(
            lambda: playwright.chromium.launch(
                executable_path=chromium, args=list(FLAGS), timeout=2 * PATIENCE
            )
        )
        try:
            yield browser
        finally:
            io_loop.run_sync(browser.close)
    finally:
        io_loop.run_sync(playwright.stop)


@pytest.fixture
def demo(start_node: StartNode) -> Site:
    """A node with the demonstration, where anyone may register. It does its jobs, as in life."""
    return start_node(demo=True, timers=True)


async def begin_jobs(site: Site) -> None:
    site.node.scheduler.start()


@pytest.fixture
def busy(io_loop: IOLoop, start_node: StartNode, database_url: str) -> Site:
    """A node where much has happened in the last day, and a reviewer has an account."""
    site = start_node()
    io_loop.run_sync(lambda: hire(site))
    times = io_loop.run_sync(lambda: happen(site))
    io_loop.run_sync(lambda: execute_within(database_url, "SET session_replication_role = replica", *times))
    io_loop.run_sync(lambda: seal(site))
    # From now on what comes is recorded, and shown to those who follow, as in life.
    io_loop.run_sync(lambda: begin_jobs(site))
    return site


@pytest.fixture
def visitors(io_loop: IOLoop, browser: Browser, start_node: StartNode) -> Iterator[Visitors]:
    """People with browsers, who leave before the servers stop; by then no page may have complained."""
    visitors = Visitors(browser)
    yield visitors
    io_loop.run_sync(visitors.leave)
    assert visitors.complaints == []
