"""The canvas with 200 nodes in a real browser: first render, an edit to the server and back, frames lost in a drag.

Measured on the page that holds nothing but the canvas, the one of its browser tests. Without a window the browser draws on
the processor, so that frames are lost here which a machine with a display keeps.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tests.services import ROOT, chromium, free_port

NODES = 200
EDITS = 40
FRAME = 1000 / 60  # milliseconds
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def canvas(rounds: int) -> dict[str, list[float]]:
    """The figures of the canvas, one value for each round, each in a new tab on a new drawing."""
    program = chromium()
    if program is None:
        raise SystemExit("Chromium is not installed; `make test` says how.")
    figures: dict[str, list[float]] = {name: [] for name in UNITS}
    with _page() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=FLAGS)
        _measure(browser, f"{url}/draw/warm?nodes={NODES}")
        for number in range(rounds):
            for name, value in _measure(browser, f"{url}/draw/bench{number}?nodes={NODES}").items():
                figures[name].append(value)
        browser.close()
    return figures


RENDER, EDIT, SLOW_EDIT, LOST = (
    f"canvas {NODES} nodes: first render",
    f"canvas {NODES} nodes: edit p50",
    f"canvas {NODES} nodes: edit p95",
    f"canvas {NODES} nodes: drag frames lost",
)
UNITS = {RENDER: "ms", EDIT: "ms", SLOW_EDIT: "ms", LOST: "% at 60/s"}


def _measure(browser: Browser, url: str) -> dict[str, float]:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    try:
        page.goto(url)
        page.wait_for_function("window.__canvas?.wire.editor() && window.__canvas.stats.firstRender !== undefined")
        page.wait_for_timeout(500)
        for number in range(EDITS):
            page.evaluate(
                "(n) => window.__canvas.gestures.commit([{op: 'move', pos: {[`n${n}`]: [n * 37, n * 23]}}])", number
            )
            page.wait_for_function("(n) => window.__canvas.stats.rtt.length > n", arg=number)
        trips = sorted(page.evaluate("window.__canvas.stats.rtt"))
        frames = _drag(page)
        stats = page.evaluate("window.__canvas.stats")
    finally:
        page.close()
    lost = sum(max(0, round(frame / FRAME) - 1) for frame in frames)
    return {
        RENDER: stats["firstRender"],
        EDIT: statistics.median(trips),
        SLOW_EDIT: trips[int(len(trips) * 0.95)],
        LOST: 100 * lost / (len(frames) + lost),
    }


def _drag(page: Page) -> list[float]:
    """Pull a node in the middle of the window about for two seconds; the milliseconds of each frame."""
    page.evaluate("window.__canvas.flow.setViewport({x: 60, y: 60, zoom: 0.5})")
    page.wait_for_timeout(300)
    box = page.locator(".afc-card:visible").nth(45).bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    until, step = time.monotonic() + 2, 0
    while time.monotonic() < until:
        step += 1
        page.mouse.move(x + 3 * (step % 60), y + 2 * (step % 40))
    frames: list[float] = page.evaluate("window.__canvas.stats.frames")
    page.mouse.up()
    assert len(frames) > 10, "the node was not dragged"
    return frames[1:]


@contextmanager
def _page() -> Iterator[str]:
    """The address of a server that serves nothing but canvases."""
    port = free_port()
    command = [sys.executable, "-m", "tests.e2e.canvas_page", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            with suppress(httpx.HTTPError):
                httpx.get(f"{url}/heard", timeout=5)
                break
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)
