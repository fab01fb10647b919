"""A real server and a real browser, driven by mouse and keyboard."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from tests.e2e.drawing import canvas_address, drawing, three  # noqa: F401 - fixtures
from tests.server import Server
from tests.services import CACHE, ROOT

# Chromium takes the last list that it is given, so here is Playwright's own once more. The two at the end are windows of the
# address bar that nobody sees: each tab would load both, at more cost than many of our pages.
WITHOUT = (
    "AvoidUnnecessaryBeforeUnloadCheckSync,DestroyProfileOnBrowserClose,DialMediaRouteProvider,GlobalMediaControls,"
    "HttpsUpgrades,LensOverlay,MediaRouter,PaintHolding,ThirdPartyStoragePartitioning,"
    "BlockOriginHeaderModificationOnRedirect,AvoidCorsURLLoaderRestartOnRedirect,Translate,AutoDeElevate,"
    "OptimizationHints,NetworkTimeServiceQuerying,AimEnabled,WebUIOmniboxPopup,WebUIOmniboxAimPopup"
)
FLAGS = [
    f"--disable-features={WITHOUT}",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# A file goes to one process whole: those that take long come first, so that no process is left with one at the end.
LONGEST = ("test_newcomer", "test_studio", "test_canvas", "test_pages", "test_canvas_together", "test_agent_canvas")
SIZE = ViewportSize(width=1440, height=900)
SCREENSHOTS = ROOT / "docs" / "screenshots"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first."""
    place = {f"{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A fresh `factory serve` for this file's tests: `server.url`, `server.setup_link`, `server.home`."""
    with Server(tmp_path_factory.mktemp("server") / "home") as server:
        yield server


@pytest.fixture(scope="module")
def browser(chromium_path: Path) -> Iterator[Browser]:
    """Chromium without a window, for this file's tests."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A tab of a new person at 1440 × 900; the test fails when a script in it does, and leaves a picture when it fails."""
    context = browser.new_context(viewport=SIZE, locale="en-GB", timezone_id="Europe/Berlin")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(10_000)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    failures = request.session.testsfailed
    yield page
    if request.session.testsfailed > failures or errors:
        picture = CACHE / "failed" / f"{re.sub(r'[^A-Za-z0-9_-]+', '_', request.node.nodeid)}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=picture)
        print(f"The page at that moment: {picture}")
    context.close()
    assert not errors, f"a script in the page failed: {errors}"


@pytest.fixture
def shot(page: Page) -> Callable[[str], None]:
    """`shot("studio")` renews docs/screenshots/studio.png when FACTORY_SHOTS=1, and does nothing else."""

    def take(name: str) -> None:
        if os.environ.get("FACTORY_SHOTS") == "1":
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SCREENSHOTS / f"{name}.png", animations="disabled")

    return take
