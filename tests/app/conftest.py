"""The whole application in this process, behind its real guard, and people who use it: `house`, `admin`, `person`."""

from __future__ import annotations

import asyncio
import gc
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from nicegui import ui
from nicegui.functions.download import download
from nicegui.functions.navigate import Navigate
from nicegui.functions.notify import notify
from nicegui.testing import User
from nicegui.testing.general import nicegui_reset_globals

from app.auth import Auth
from app.main import Door, create_app
from app.settings import Settings
from runtime.policy import Role
from runtime.workers.backend import Job, JobResult
from tests.databases import laid_out

URL = "http://127.0.0.1:8080"
PASSWORD = "three unrelated words"
# NiceGUI's simulated person gives up after three looks, a third of a second; a busy machine needs longer to show what it will.
for _look in (User.should_see, User.should_not_see):
    _look.__kwdefaults__["retries"] = 100


@dataclass
class House:
    """A running application without a server."""

    door: Door
    settings: Settings
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    @property
    def factory(self) -> Any:
        return self.door.outer.state.factory

    @property
    def auth(self) -> Auth:
        auth: Auth = self.door.outer.state.auth
        return auth

    @property
    def setup_url(self) -> str:
        url: str = self.door.outer.state.setup_url
        return url

    def browser(self) -> httpx.AsyncClient:
        """Somebody new with an empty cookie jar, who follows no redirects."""
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.door, raise_app_exceptions=False),
            base_url=URL,
            headers={"Accept": "text/html", "Origin": URL},
        )
        self.clients.append(client)
        return client

    async def set_up(self, browser: httpx.AsyncClient, *, email: str = "ada@example.com") -> httpx.Response:
        """Follow the printed link and fill in the form."""
        target = urlsplit(self.setup_url)
        shown = await browser.get(f"{target.path}?{target.query}")
        fields = {"name": "Ada Lovelace", "email": email, "password": PASSWORD, "team": "Engine"}
        return await browser.post("/setup", data=hidden(shown.text) | fields)

    async def sign_in(self, browser: httpx.AsyncClient, email: str, password: str = PASSWORD) -> httpx.Response:
        """Fill in the sign-in form."""
        shown = await browser.get("/login")
        return await browser.post("/login", data=hidden(shown.text) | {"email": email, "password": password})


def hidden(html: str) -> dict[str, str]:
    """The hidden fields of a page's form."""
    return dict(re.findall(r'<input type="hidden" name="([\w-]+)" value="([^"]*)">', html))


@asynccontextmanager
async def running(home: Path, **settings: Any) -> AsyncIterator[House]:
    """The application between start and stop."""
    # The reset collects garbage twice; what was there before need not be looked through each time.
    gc.freeze()
    with nicegui_reset_globals():
        chosen = Settings.load(home=home, **{"docker": "off", **settings})
        door = create_app(chosen)
        laid_out(chosen.database())
        house = House(door, chosen)
        outer = door.outer
        try:
            async with outer.router.lifespan_context(outer):
                yield house
                for client in house.clients:
                    await client.aclose()
        finally:
            ui.navigate, ui.notify, ui.download = Navigate(), notify, download


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A fresh application that nobody has set up."""
    async with running(tmp_path / "home") as house:
        yield house


@pytest.fixture
async def admin(house: House) -> User:
    """The admin of a factory that was just set up, as NiceGUI's simulated person."""
    browser = house.browser()
    answer = await house.set_up(browser)
    assert answer.status_code == 303, answer.text
    return User(browser)


@pytest.fixture
async def person(house: House, admin: User) -> Callable[[Role], Awaitable[User]]:
    """Make somebody with a role in the admin's team, signed in: `viewer = await person(Role.VIEWER)`."""

    async def make(role: Role) -> User:
        tenant = await house.auth.first_tenant()
        email = f"{role}@example.com"
        await house.auth.add_person(tenant, name=f"{role} person", email=email, password=PASSWORD, role=role)
        browser = house.browser()
        assert (await house.sign_in(browser, email)).status_code == 303
        return User(browser)

    return make


@pytest.fixture
def say(house: House, monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[str]:
    """What code prints from now on, as it is put in here; it goes on until “end”."""
    told: asyncio.Queue[str] = asyncio.Queue()

    async def run_slowly(job: Job, **_: Any) -> JobResult:
        while (text := await told.get()) != "end":
            assert job.on_output is not None
            job.on_output("out", text)
        return JobResult(ok=True, value=7, stdout="all of it")

    monkeypatch.setattr(house.factory.fleet, "run", run_slowly)
    return told
