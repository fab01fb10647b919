"""The guard over HTTP: deny by default, odd paths, hosts, sizes and headers; and the register of everything that exists."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from nicegui import app as web
from nicegui import core, ui
from nicegui.testing.general import nicegui_reset_globals

from app import guard
from app.guard import next_page, page_policy
from app.permissions import SOCKET_EVENTS, UndeclaredRoute, allow, anyone, verify
from app.settings import Settings, SettingsError
from nodes.errors import FactoryError
from runtime.policy import Actor, Permission
from tests.app.conftest import URL, House, running

JSON = {"Accept": "application/json"}
PUBLIC = {"/login", "/setup", "/healthz", "/readyz", "/favicon.ico"}
FILES = ("/_nicegui/", "/assets/")


# --- deny by default ---------------------------------------------------------------------------------------------


async def test_strangers_get_the_sign_in_page_or_a_401_and_nothing_else(house: House) -> None:
    await house.set_up(house.browser())
    stranger = house.browser()
    for path in ("/", "/runs", "/settings", "/nothing-there", "/studio/bp_1", "/api/docs"):
        page = await stranger.get(path)
        assert (page.status_code, page.text) in ((303, ""), (401, page.text)), path
        program = await stranger.get(path, headers=JSON)
        assert program.status_code == 401, path
        assert program.json()["error"]["code"] == "auth.signed_out"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert (await stranger.request(method, "/api/v1/blueprints", headers=JSON)).status_code == 401


async def test_every_registered_door_refuses_strangers_unless_it_is_declared_for_anyone(house: House) -> None:
    await house.set_up(house.browser())
    stranger = house.browser()
    guard = house.door._guard
    entries = guard._doors.entries
    assert len(entries) > 10
    for method, path, permission in entries:
        if permission.startswith("anyone") or method == "WEBSOCKET":
            continue
        answer = await stranger.request(method, path.replace("{", "").replace("}", ""), headers=JSON)
        assert answer.status_code == 401, (method, path)


ODD = [
    "//", "//login", "/login/", "/login//", "/login/../", "/./", "/../", "/login/..", "/%2e%2e/", "/..%2f", "/login%2f",
    "/login;x", "/;/", "/runs;/login", "/LOGIN", "/Login", "/login.", "/login%00", "/login%20", "/login%0a", "/login\\",
    "/%5clogin", "/login/configs", "/healthz/", "/healthz/x", "/readyz/../runs", "/setup/x", "/favicon.ico/x",
    "/assets/css/theme.css/..", "/assets/css/../../pyproject.toml", "/assets/css/..%2f..%2fpyproject.toml",
    "/assets/css/%2e%2e/%2e%2e/pyproject.toml", "/assets/", "/assets/css/", "/assets/css", "/assets/templates/x.json",
    "/_nicegui", "/_nicegui/", "/_nicegui/3.18.0", "/_nicegui/x/static/nicegui.js", "/_nicegui/3.18.0/static/../x",
    "/_nicegui/3.18.0/resources/x/%2e%2e/%2e%2e/etc/passwd", "/_nicegui/auto/static/x", "/_nicegui_ws/",
    "/_nicegui_ws/socket.io/", "/_nicegui_ws/socket.io/?EIO=4&transport=polling", "/hooks", "/hook", "/api", "/api/",
    "/api/v1", "/api/v1/", "/openapi.json", "/docs", "/redoc", "/metrics", "/.env", "/.git/config", "/static/x",
    "/_nicegui/client/00000000-0000-0000-0000-000000000000/upload/1",
]  # fmt: skip


async def test_odd_paths_open_nothing(house: House) -> None:
    await house.set_up(house.browser())
    for path in ODD:
        for headers in (JSON, {"Accept": "text/html"}):
            for method in ("GET", "POST", "HEAD"):
                answer = await house.browser().request(method, httpx.URL(URL + path), headers=headers)
                assert answer.status_code in (303, 401, 403, 404), (method, path)
                assert answer.status_code != 303 or answer.headers["location"].startswith("/login"), (method, path)


@given(st.sampled_from(sorted(PUBLIC)), st.text("/.;%\\ aA2fF~?#&=:@", min_size=1, max_size=6))
def test_public_paths_are_exact(path: str, more: str) -> None:
    from app.permissions import OWN_PUBLIC, Doors

    doors = Doors(public=OWN_PUBLIC)
    assert doors.is_public("GET", path)
    assert not doors.is_public("GET", path + more)
    assert not doors.is_public("GET", more + path)
    assert not doors.is_public("DELETE", path)


@given(st.text(max_size=60))
def test_where_to_go_next_is_always_ours(target: str) -> None:
    next_ = next_page(target)
    assert next_.startswith("/")
    assert not next_.startswith(("//", "/\\"))
    assert next_.isprintable()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8080", "", "[::2]"])
async def test_another_host_name_is_not_us(house: House, host: str) -> None:
    answer = await house.browser().get("/login", headers={"Host": host})
    assert answer.status_code == 400
    assert "not ours" in answer.text


# --- sizes -------------------------------------------------------------------------------------------------------


async def test_bodies_have_a_limit_announced_or_not(house: House) -> None:
    browser = house.browser()
    await house.set_up(browser)
    session = await house.auth.session(browser.cookies["factory_session"])
    assert session is not None
    headers = JSON | {"X-CSRF-Token": session.csrf}
    at = await browser.post("/api/v1/nothing-there", content=b"x" * 1024 * 1024, headers=headers)
    assert at.status_code == 404
    over = await browser.post("/api/v1/nothing-there", content=b"x" * (1024 * 1024 + 1), headers=headers)
    assert (over.status_code, over.json()["error"]["code"]) == (413, "request.too_large")

    async def unannounced() -> object:
        for _ in range(40):
            yield b"x" * 65536

    shown = await browser.get("/login")
    assert shown.status_code == 303
    streamed = await browser.post(
        "/logout",
        content=unannounced(),  # type: ignore[arg-type]
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert streamed.status_code == 413


@pytest.mark.parametrize("length", ["-1", "1e9", "abc", "1_000"])
async def test_a_senseless_length_is_refused(house: House, length: str) -> None:
    answer = await house.browser().post("/login", headers=JSON | {"Content-Length": length})
    assert answer.status_code == 400


# --- headers -----------------------------------------------------------------------------------------------------


async def test_every_answer_has_the_security_headers(house: House) -> None:
    browser = house.browser()
    await house.set_up(browser)
    for path in ("/login", "/", "/nothing-there", "/api/v1/x", "/assets/css/theme.css", "//"):
        for who in (browser, house.browser()):
            check_headers((await who.get(path)).headers)


def check_headers(headers: httpx.Headers) -> None:
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    policy = headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert "base-uri 'none'" in policy
    assert "access-control-allow-origin" not in headers
    assert "server" not in headers


def test_pages_run_no_script_but_ours() -> None:
    policy = page_policy("abc")
    script = next(part for part in policy.split(";") if part.strip().startswith("script-src"))
    assert script.split() == ["script-src", "'self'", "'nonce-abc'", "'unsafe-eval'"]


async def test_our_files_are_kept_by_browsers_and_nothing_else_is(house: House) -> None:
    browser = house.browser()
    await house.set_up(browser)
    style = await browser.get("/assets/css/theme.css?v=1")
    assert "immutable" in style.headers["cache-control"]
    assert (await browser.get("/login")).headers["cache-control"] == "no-store"


async def test_nobody_keeps_requests_open_without_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = house.browser()
    await house.set_up(browser)
    go, inside = asyncio.Event(), asyncio.Semaphore(0)

    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        inside.release()
        await go.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    monkeypatch.setattr(guard, "REQUESTS_MOST", 2)
    monkeypatch.setattr(house.door._guard, "_app", stuck)
    opened = [asyncio.create_task(browser.get("/runs")) for _ in range(2)]
    for _ in opened:
        await inside.acquire()
    third = await browser.get("/runs", headers=JSON)
    assert (third.status_code, third.json()["error"]["code"]) == (429, "limit.requests")
    go.set()
    assert [(await one).status_code for one in opened] == [200, 200]
    assert (await browser.get("/runs")).status_code == 200
    assert not house.door._guard._open


async def test_health_is_told_to_anyone_and_cheaply(house: House) -> None:
    stranger = house.browser()
    assert (await stranger.get("/healthz")).text == "ok"
    assert (await stranger.get("/readyz")).text == "ready"


# --- errors in words ---------------------------------------------------------------------------------------------


async def test_what_does_not_exist_is_said_in_the_askers_language(house: House) -> None:
    browser = house.browser()
    await house.set_up(browser)
    page = await browser.get("/nothing-there")
    assert page.status_code == 404
    assert "Nothing is here" in page.text
    assert "Go home" in page.text
    program = await browser.get("/api/v1/nothing-there")
    assert program.json()["error"]["code"] == "not_found"
    assert set(program.json()["error"]) == {"code", "message", "fix", "where"}


# --- the register ------------------------------------------------------------------------------------------------


@pytest.fixture
def bare() -> Iterator[FastAPI]:
    with nicegui_reset_globals():
        yield FastAPI(docs_url=None, redoc_url=None, openapi_url=None)


def test_an_undeclared_route_stops_the_start(bare: FastAPI) -> None:
    router = APIRouter(prefix="/api/v1")

    @router.get("/good")
    def good(who: Annotated[Actor, allow(Permission.VIEW)]) -> None: ...

    @router.post("/forgotten")
    def forgotten() -> None: ...

    bare.include_router(router)
    with pytest.raises(UndeclaredRoute, match="POST /api/v1/forgotten"):
        verify(bare)


def test_an_undeclared_page_stops_the_start(bare: FastAPI) -> None:
    @ui.page("/forgotten")
    def forgotten() -> None: ...

    with pytest.raises(UndeclaredRoute, match="/forgotten"):
        verify(bare)


def test_an_undeclared_mount_and_socket_stop_the_start(bare: FastAPI) -> None:
    bare.mount("/files", FastAPI())
    with pytest.raises(UndeclaredRoute, match="/files"):
        verify(bare)
    bare.router.routes.clear()

    @bare.websocket("/live")
    async def live() -> None: ...

    with pytest.raises(UndeclaredRoute, match="/live"):
        verify(bare)


def test_a_new_socket_event_stops_the_start(bare: FastAPI) -> None:
    core.sio.on("surprise", lambda *_: None)
    try:
        with pytest.raises(UndeclaredRoute, match="surprise"):
            verify(bare)
    finally:
        del core.sio.handlers["/"]["surprise"]
    verify(bare)
    assert set(core.sio.handlers["/"]) == set(SOCKET_EVENTS)


def test_what_is_for_anyone_has_an_exact_path(bare: FastAPI) -> None:
    @bare.post("/api/v1/open/{id}")
    def opened(id: str, _: Annotated[None, anyone()]) -> None: ...

    with pytest.raises(UndeclaredRoute, match="may not have parameters"):
        verify(bare)


def test_the_register_names_permission_and_limit_of_each_route(bare: FastAPI) -> None:
    @bare.put("/api/v1/files/{name}")
    def put(name: str, who: Annotated[Actor, allow(Permission.EDIT, limit=5_000_000)]) -> None: ...

    doors = verify(bare)
    assert ("PUT", "/api/v1/files/{name}", "edit") in doors.entries
    assert doors.limit("PUT", "/api/v1/files/x") == 5_000_000
    assert doors.limit("GET", "/api/v1/files/x") == doors.limit("PUT", "/api/v1/files/x/y") == 1024 * 1024


def test_nicegui_has_no_door_that_we_do_not_know(bare: FastAPI) -> None:
    assert all(path.startswith("/_nicegui") for _, path, _ in verify(bare).entries)
    assert [one for one in web.routes if getattr(one, "path", "").startswith("/_nicegui")]


# --- being reachable ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "public_url", "behind_proxy", "has_admin", "safe"),
    [
        ("127.0.0.1", "", False, False, True),
        ("localhost", "", False, True, True),
        ("::1", "", False, False, True),
        ("0.0.0.0", "", False, False, False),
        ("0.0.0.0", "", False, True, False),
        ("0.0.0.0", "", True, False, False),
        ("0.0.0.0", "", True, True, True),
        ("0.0.0.0", "http://factory.example", False, True, False),
        ("192.168.1.5", "https://factory.example", False, True, True),
        ("192.168.1.5", "https://factory.example", False, False, False),
        ("::", "", False, True, False),
    ],
)
def test_other_machines_reach_us_only_when_that_is_safe(
    tmp_path: Path, host: str, public_url: str, behind_proxy: bool, has_admin: bool, safe: bool
) -> None:
    settings = Settings.load(home=tmp_path, host=host, public_url=public_url, behind_proxy=behind_proxy)
    if safe:
        settings.check_reach(has_admin=has_admin)
    else:
        with pytest.raises(SettingsError) as refused:
            settings.check_reach(has_admin=has_admin)
        assert host in refused.value.message
        assert refused.value.fix


async def test_the_application_does_not_start_where_it_would_be_open(tmp_path: Path) -> None:
    with pytest.raises(FactoryError, match="set this factory up"):
        async with running(tmp_path / "home", host="0.0.0.0"):
            pass


@pytest.mark.parametrize("wrong", [{"port": "x"}, {"public_url": "factory.example"}, {"pool_size": -1}])
def test_a_wrong_setting_is_named(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"FACTORY_{next(iter(wrong)).upper()}"):
        Settings.load(home=tmp_path, **wrong)


def test_starting_imports_nothing_heavy() -> None:
    code = "import sys, app.main, app.cli; print([n for n in ('litellm', 'plotly', 'docker', 'pandas') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}, timeout=60
    )
    assert done.stdout.strip() == "[]"
