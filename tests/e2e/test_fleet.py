"""The fleet in a real browser: workers in Docker come up as tiles, one is killed and replaced, another is restarted by hand."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.server import Server

NEWS = """
import time
for number in range(600):
    crew.publish("news", number)
    time.sleep(0.1)
"""
WRITER = """
crew.subscribe("news")
while True:
    crew.publish("done", crew.next(timeout=30).body)
"""
CREW = {
    "id": "press-team",
    "members": [{"role": "editor", "code": NEWS}, {"role": "writer", "code": WRITER, "count": 2}],
}

pytestmark = [pytest.mark.browser, pytest.mark.docker]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, docker_engine: str, worker_image: str) -> Iterator[Server]:
    """A server with three workers kept warm."""
    with Server(tmp_path_factory.mktemp("server") / "home", docker=docker_engine, pool_size="3") as server:
        yield server


def test_workers_are_watched_while_one_is_killed_and_one_restarted(
    page: Page, server: Server, docker_engine: str, shot: Callable[[str], None]
) -> None:
    page.goto(server.setup_link)
    for label, text in (("Your name", "Ada Lovelace"), ("E-mail", "ada@example.com"), ("Team name", "Engine")):
        page.get_by_label(label).fill(text)
    page.get_by_label("Password").fill("three unrelated words")
    page.get_by_role("button").click()
    page.wait_for_url(f"{server.url}/")

    page.get_by_role("link", name="Fleet").click()
    ready = page.locator(".af-worker.is-ready")
    expect(ready).to_have_count(3)
    workers = page.request.get(f"{server.url}/api/v1/fleet").json()["workers"]
    killed, restarted = workers[0]["id"], workers[1]["id"]

    box = subprocess.run(
        ["docker", "ps", "-q", "--filter", f"label=agent-factory.worker={killed}"],
        env={"DOCKER_HOST": docker_engine, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    subprocess.run(
        ["docker", "kill", box], env={"DOCKER_HOST": docker_engine, "PATH": "/usr/bin:/bin"},
        check=True, capture_output=True,
    )  # fmt: skip
    expect(page.get_by_role("button", name=f"Worker {killed[-6:]}")).to_have_count(0)
    expect(ready).to_have_count(3)
    expect(page.get_by_label("What workers went through").get_by_text("Gone", exact=True)).to_be_visible()
    shot("fleet")

    page.get_by_role("button", name=f"Worker {restarted[-6:]}").click()
    sheet = page.get_by_role("dialog")
    expect(sheet.get_by_text("It has had no job yet.")).to_be_visible()
    shot("fleet-worker")
    sheet.get_by_role("button", name="Restart").click()
    sure = page.get_by_role("dialog").filter(has_text="Restart this worker?")
    sure.get_by_role("button", name="Restart").click()
    expect(page.get_by_text("another one takes its place")).to_be_visible()
    expect(page.get_by_role("button", name=f"Worker {restarted[-6:]}")).to_have_count(0)
    expect(ready).to_have_count(3)

    csrf = page.request.get(f"{server.url}/api/v1/auth/me").json()["csrf"]
    made = page.request.post(
        f"{server.url}/api/v1/crews/assemble", data=CREW, headers={"X-CSRF-Token": csrf, "Origin": server.url}
    )
    assert made.ok, made.text()
    crew = page.get_by_label("Crews")
    expect(crew.get_by_role("heading", name="press-team")).to_be_visible()
    expect(crew.get_by_text("3 members")).to_be_visible()
    expect(crew.get_by_text("editor", exact=True)).to_be_visible()
    expect(page.locator(".af-worker", has_text="of a crew")).to_have_count(3)
    expect(crew.get_by_text(re.compile(r"[1-9]\d* messages"))).to_be_visible()
    shot("fleet-crew")
    crew.get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    expect(crew).to_be_hidden()
    expect(page.locator(".af-worker", has_text="of a crew")).to_have_count(0)

    page.set_viewport_size({"width": 1024, "height": 768})
    expect(ready.first).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 1024
    shot("fleet-1024")
