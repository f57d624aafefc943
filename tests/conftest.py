"""Fixtures and hooks for all tests."""

import os
import shutil

import gymnasium as gym
import pytest

from mtbench.registration import TABLE, rows
from mtbench.testing.rendering import pytest_runtest_call  # noqa: F401 (a hook)
from mtbench.testing.seeding import repeatable  # noqa: F401 (for every test)

# Tests and their subprocesses run in parallel already, so one thread each is enough.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Run slow tests first: one that started last would leave the other workers idle."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def ids_of_this_package(monkeypatch):
    """Hide the IDs that examples register when pytest collects them."""
    for row in rows():
        if row not in TABLE:
            monkeypatch.delitem(gym.registry, row.id)


@pytest.fixture(scope="session")
def browser():
    """The system's Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'mtbench-rl[dev]'")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs the system's chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser):
    """Opens a file at a width; at the end, no page may have complained or asked for another file."""
    pages = []

    def visit(path, width=1280, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        wrong, requests = [], []
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        pages.append((page, wrong, requests))
        return page

    yield visit
    for page, wrong, requests in pages:
        assert wrong == []
        assert [url for url in requests if not url.startswith(("file:", "blob:"))] == []
        page.close()
