"""Attacks on the sockets of a running server, with the protocol's own client and with bare frames: none gets through."""

from __future__ import annotations

import asyncio
import html
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import httpx
import pytest
import socketio

from tests.app.conftest import PASSWORD, hidden
from tests.services import ROOT, free_port


@dataclass
class Probe:
    """The server under attack."""

    url: str
    home: Path
    log: Path
    people: dict[str, httpx.Cookies]

    @property
    def notes(self) -> list[str]:
        path = self.home.with_name("notes.txt")
        return path.read_text().splitlines() if path.exists() else []

    async def settled(self, count: int) -> list[str]:
        """What was noted once at least so many notes are there, or after two seconds."""
        until = time.monotonic() + 2
        while len(self.notes) < count and time.monotonic() < until:
            await asyncio.sleep(0.02)
        return self.notes

    def sign_in(self, email: str) -> httpx.Cookies:
        with httpx.Client(base_url=self.url, headers={"Origin": self.url, "Accept": "text/html"}) as browser:
            shown = browser.get("/login")
            done = browser.post("/login", data=hidden(shown.text) | {"email": email, "password": PASSWORD})
            assert done.status_code == 303, done.text
            return browser.cookies


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Probe]:
    folder = tmp_path_factory.mktemp("probe")
    port = free_port()
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.app.probe", str(folder / "home"), str(port)],
            cwd=ROOT, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 60
    while "Set up: http" not in log.read_text():
        assert process.poll() is None and time.monotonic() < until, log.read_text()
        time.sleep(0.05)
    link = re.search(r"Set up: (\S+)", log.read_text())
    assert link
    people = {}
    with httpx.Client(base_url=url, headers={"Origin": url, "Accept": "text/html"}) as browser:
        fields = {"name": "Alice", "email": "alice@example.com", "password": PASSWORD, "team": "T"}
        done = browser.post("/setup", data=hidden(browser.get(link[1]).text) | fields)
        assert done.status_code == 303, done.text
        people["alice"] = browser.cookies
    add = subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", "user", "add", "bob@example.com", "--name", "Bob",
         "--role", "viewer", "--password-stdin"],
        cwd=ROOT, input=f"{PASSWORD}\n", text=True, env={**__import__("os").environ, "FACTORY_HOME": str(folder / "home")},
        capture_output=True, check=False,
    )  # fmt: skip
    assert add.returncode == 0, add.stderr
    found = Probe(url, folder / "home", log, people)
    people["bob"] = found.sign_in("bob@example.com")
    yield found
    process.terminate()
    process.wait(20)


@dataclass
class Page:
    """A page as its browser got it."""

    client_id: str
    elements: dict[str, Any]
    cookies: httpx.Cookies

    def button(self, label: str) -> tuple[int, str]:
        """Number and listener of a button."""
        return self._find(lambda one: one.get("props", {}).get("label") == label, "click")

    def _find(self, fits: Any, event: str) -> tuple[int, str]:
        for number, one in self.elements.items():
            if fits(one):
                for listener in one["events"]:
                    if listener["type"] == event:
                        return int(number), listener["listener_id"]
        raise LookupError(event)

    @property
    def upload(self) -> str:
        return next(
            one["props"]["url"] for one in self.elements.values() if "/upload/" in one.get("props", {}).get("url", "")
        )

    def event(self, label: str) -> dict[str, Any]:
        number, listener = self.button(label)
        return {"id": number, "client_id": self.client_id, "listener_id": listener, "args": ["{}"]}


async def load(probe: Probe, cookies: httpx.Cookies | None, path: str = "/probe") -> Page:
    """Open a page as a browser would."""
    async with httpx.AsyncClient(base_url=probe.url, cookies=cookies, headers={"Accept": "text/html"}) as browser:
        answer = await browser.get(path)
        assert answer.status_code == 200, (answer.status_code, answer.headers)
        client_id = re.search(r"'client_id': '([0-9a-f-]{36})'", answer.text)
        elements = re.search(r"parseElements\(String\.raw`(.*?)`\)", answer.text, re.DOTALL)
        assert client_id
        assert elements
        return Page(client_id[1], json.loads(html.unescape(elements[1])), browser.cookies)


def query(client_id: str, **more: str) -> str:
    fields = {
        "client_id": client_id, "implicit_handshake": "true", "tab_id": str(uuid4()), "document_id": str(uuid4()),
        "next_message_id": "0",
    }  # fmt: skip
    return "&".join(f"{name}={value}" for name, value in (fields | more).items())


@asynccontextmanager
async def socket(
    probe: Probe, client_id: str, cookies: httpx.Cookies | None, *, origin: str | None = "", **more: str
) -> AsyncIterator[socketio.AsyncClient]:
    """Connect with the protocol's own client; raises ConnectionError when it is refused."""
    sio = socketio.AsyncClient(reconnection=False)
    headers = {}
    if origin is not None:
        headers["Origin"] = origin or probe.url
    if cookies is not None:
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    try:
        await sio.connect(
            f"{probe.url}?{query(client_id, **more)}",
            headers=headers, transports=["websocket"], socketio_path="/_nicegui_ws/socket.io", wait_timeout=5,
        )  # fmt: skip
        yield sio
    finally:
        with suppress(Exception):
            await sio.disconnect()


REFUSED = socketio.exceptions.ConnectionError


# --- legitimate use ----------------------------------------------------------------------------------------------


async def test_people_press_their_own_buttons(probe: Probe) -> None:
    for name in ("alice", "bob"):
        page = await load(probe, probe.people[name])
        async with socket(probe, page.client_id, page.cookies) as sio:
            before = len(probe.notes)
            await sio.emit("event", page.event("Press"))
            assert (await probe.settled(before + 1))[-1] == f"pressed by {name.capitalize()}"


async def test_a_handler_asks_for_its_own_permission(probe: Probe) -> None:
    page = await load(probe, probe.people["bob"])
    async with socket(probe, page.client_id, page.cookies) as sio:
        heard = asyncio.Event()
        said: list[Any] = []

        @sio.on("notify")
        def notify(message: Any) -> None:
            said.append(message)
            heard.set()

        before = probe.notes
        await sio.emit("event", page.event("Rule"))
        await asyncio.wait_for(heard.wait(), 5)
        assert "Your role “viewer” may not" in said[0]["message"]
        assert probe.notes == before


async def test_a_handler_that_breaks_shows_a_number_and_no_traceback(probe: Probe) -> None:
    page = await load(probe, probe.people["alice"])
    async with socket(probe, page.client_id, page.cookies) as sio:
        heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        sio.on("notify", heard.set_result)
        await sio.emit("event", page.event("Break"))
        said = (await asyncio.wait_for(heard, 5))["message"]
    number = re.search(r"inc_\w{26}", said)
    assert number
    assert "Something went wrong on our side." in said
    assert "ZeroDivision" not in said
    assert number[0] in probe.log.read_text()


async def test_a_page_that_breaks_shows_a_number_and_no_cause(probe: Probe) -> None:
    async with httpx.AsyncClient(base_url=probe.url, cookies=probe.people["alice"]) as browser:
        answer = await browser.get("/broken", headers={"Accept": "text/html"})
    assert answer.status_code == 500
    assert "Your work is saved" in answer.text or "tell your admin the number" in answer.text
    assert "secret cause" not in answer.text
    assert "RuntimeError" not in answer.text
    assert re.search(r"inc_\w{26}", answer.text)


# --- attacks on the connection -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [None, "http://evil.example", "null", "http://127.0.0.2", "https://127.0.0.1", "http://127.0.0.1", "file://"],
)
async def test_another_origin_is_refused(probe: Probe, origin: str | None) -> None:
    page = await load(probe, probe.people["alice"])
    with pytest.raises(REFUSED):
        async with socket(probe, page.client_id, page.cookies, origin=origin):
            pass


async def test_without_a_cookie_or_with_a_forged_one_it_is_refused(probe: Probe) -> None:
    page = await load(probe, probe.people["alice"])
    forged = httpx.Cookies({"factory_session": "A" * 43})
    own = httpx.Cookies({k: v for k, v in page.cookies.items() if k != "factory_session"})
    for cookies in (None, forged, own):
        with pytest.raises(REFUSED):
            async with socket(probe, page.client_id, cookies):
                pass


async def test_the_page_of_somebody_else_is_refused(probe: Probe) -> None:
    page = await load(probe, probe.people["alice"])
    with pytest.raises(REFUSED):
        async with socket(probe, page.client_id, probe.people["bob"]):
            pass
    another_session_of_alice = probe.sign_in("alice@example.com")
    with pytest.raises(REFUSED):
        async with socket(probe, page.client_id, another_session_of_alice):
            pass


async def test_a_page_that_does_not_exist_is_refused(probe: Probe) -> None:
    for client_id in (str(uuid4()), "", "../x"):
        with pytest.raises(REFUSED):
            async with socket(probe, client_id, probe.people["alice"]):
                pass


async def test_only_websockets_are_served_and_only_at_their_path(probe: Probe) -> None:
    page = await load(probe, probe.people["alice"])
    async with httpx.AsyncClient(base_url=probe.url, cookies=page.cookies) as browser:
        for path in ("/_nicegui_ws/socket.io/", "/_nicegui_ws/socket.io", "/_nicegui_ws/x"):
            answer = await browser.get(f"{path}?EIO=4&transport=polling&{query(page.client_id)}")
            assert answer.status_code in (400, 404), (path, answer.text)
            assert "sid" not in answer.text
    cookie = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
    async with aiohttp.ClientSession() as session:
        for path in ("/_nicegui_ws/", "/ws", "/", "/_nicegui_ws/socket.io", "/hooks/x", "/api/v1/x"):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await session.ws_connect(
                    f"{probe.url}{path}?EIO=4&transport=websocket&{query(page.client_id)}",
                    headers={"Cookie": cookie, "Origin": probe.url},
                )


# --- attacks through an open socket ------------------------------------------------------------------------------


async def test_an_open_socket_cannot_speak_for_another_page(probe: Probe) -> None:
    alice = await load(probe, probe.people["alice"])
    bob = await load(probe, probe.people["bob"])
    async with socket(probe, alice.client_id, alice.cookies), socket(probe, bob.client_id, bob.cookies) as sio:
        before = probe.notes
        await sio.emit("event", alice.event("Press"))
        await sio.emit("event", alice.event("Bare"))
        await sio.emit("event", {**alice.event("Rule"), "client_id": bob.client_id})
        await sio.emit("event", bob.event("Bare"))
        assert await probe.settled(len(before) + 1) == [*before, "bare"]


async def test_a_second_handshake_for_another_page_is_ignored(probe: Probe) -> None:
    alice = await load(probe, probe.people["alice"])
    bob = await load(probe, probe.people["bob"])
    async with socket(probe, bob.client_id, bob.cookies) as sio:
        said = {"client_id": alice.client_id, "tab_id": str(uuid4()), "document_id": str(uuid4())}
        with pytest.raises((socketio.exceptions.TimeoutError, asyncio.TimeoutError)):
            await sio.call("handshake", said, timeout=1)


async def test_after_signing_out_open_pages_are_dead_and_their_sockets_closed(probe: Probe) -> None:
    cookies = probe.sign_in("alice@example.com")
    page = await load(probe, cookies)
    csrf = next(one["props"]["value"] for one in page.elements.values() if one.get("props", {}).get("name") == "csrf")
    async with socket(probe, page.client_id, page.cookies) as sio:
        closed = asyncio.Event()
        sio.on("disconnect", closed.set)
        before = probe.notes
        async with httpx.AsyncClient(base_url=probe.url, cookies=page.cookies, headers={"Origin": probe.url}) as out:
            assert (await out.post("/logout", data={"csrf": csrf})).status_code == 303
        with suppress(Exception):
            await sio.emit("event", page.event("Press"))
        with suppress(Exception):
            await sio.emit("event", page.event("Bare"))
        await asyncio.wait_for(closed.wait(), 5)
    with pytest.raises(REFUSED):
        async with socket(probe, page.client_id, page.cookies):
            pass
    assert probe.notes == before


async def test_browsers_never_write_the_servers_log(probe: Probe) -> None:
    page = await load(probe, probe.people["alice"])
    async with socket(probe, page.client_id, page.cookies) as sio:
        for level in ("debug", "info", "warning", "error"):
            await sio.emit("log", {"client_id": page.client_id, "level": level, "message": "FORGED-LINE"})
        before = len(probe.notes)
        await sio.emit("event", page.event("Press"))
        await probe.settled(before + 1)
    assert "FORGED-LINE" not in probe.log.read_text()


MALFORMED = [
    "", "4", "42", "42[", "42[]", "42{}", "42null", '42["event"]', '42["event",null]', '42["event",1]', '42["event",[]]',
    '42["event",{}]', '42["nope",{"client_id":"CID"}]', '42["connect",{"client_id":"CID"}]', "40/admin,", "40{", "41/x",
    '42/admin,["event",{"client_id":"CID"}]', "43[]", "44{}", "45-", "46-", '451-["event",{"_placeholder":true,"num":0}]',
    "5", "6", "9", "0{}", "bAAAA", "é", "\x00", "42" + "[" * 5000, '42["event",' + '{"a":' * 3000,
    '42["disconnect",{"client_id":"CID"}]', '42["event",{"client_id":"CID"}]', '42["event",{"client_id":"CID","id":"1"}]',
    '42["event",{"client_id":"CID","id":999999,"listener_id":"x"}]', '42["event",{"client_id":"CID","id":ID,"listener_id":"x"}]',
    '42["event",{"client_id":"CID","id":ID,"listener_id":"LID","args":"x"}]', '42["ack",{"client_id":"CID"}]',
    '42["event",{"client_id":"CID","id":ID,"listener_id":"LID","args":["{"]}]', '42["ack",{"client_id":"CID","next_message_id":"x"}]',
    '42["event",{"client_id":"CID","id":ID,"listener_id":"LID","args":[1]}]', '42["javascript_response",{"client_id":"CID"}]',
    '42["event",{"client_id":"CID","id":true,"listener_id":"LID"}]', '42["handshake",{"client_id":"CID"}]',
    '42["event",{"client_id":"CID","id":ID,"listener_id":["LID"]}]', '42["event",{"client_id":["CID"]},1]',
    '4299999999999999["event",{"client_id":"CID"}]', '42["event",{"client_id":"CID","id":ID,"listener_id":null}]',
]  # fmt: skip


async def test_malformed_frames_are_ignored_without_a_word(probe: Probe) -> None:
    page = await load(probe, probe.people["alice"])
    number, listener = page.button("Bare")
    size = len(probe.log.read_text())
    before = probe.notes
    cookie = "; ".join(f"{name}={value}" for name, value in page.cookies.items())
    async with aiohttp.ClientSession() as session:
        ws = await session.ws_connect(
            f"{probe.url}/_nicegui_ws/socket.io/?EIO=4&transport=websocket&{query(page.client_id)}",
            headers={"Cookie": cookie, "Origin": probe.url},
        )
        assert (await ws.receive_str()).startswith("0")
        await ws.send_str("40")
        assert (await ws.receive_str()).startswith("40")
        for frame in MALFORMED:
            text = frame.replace("CID", page.client_id).replace("LID", listener).replace("ID", str(number))
            await ws.send_str(text)
        await ws.send_bytes(b"\x00\x01")
        assert probe.notes == before
        await ws.send_str("42" + json.dumps(["event", page.event("Bare")]))
        assert await probe.settled(len(before) + 1) == [*before, "bare"]
        await ws.close()
    said = probe.log.read_text()[size:]
    assert "Traceback" not in said
    assert "Error" not in said


async def test_a_frame_is_as_large_as_it_may_be_is_refused_above_that_and_ends_the_socket_far_above(
    probe: Probe,
) -> None:
    page = await load(probe, probe.people["alice"])
    number, listener = page._find(lambda one: one.get("props", {}).get("label") == "Field", "update:value")
    event = {"id": number, "client_id": page.client_id, "listener_id": listener}
    async with socket(probe, page.client_id, page.cookies) as sio:
        before, told = len(probe.notes), asyncio.Queue[Any]()
        sio.on("notify", told.put)
        await sio.emit("event", {**event, "args": [json.dumps("x" * 900_000)]})
        await sio.emit("event", {**event, "args": [json.dumps("x" * 250_000)]})
        assert (await probe.settled(before + 1))[before:] == ["typed 250000"], "the larger one was refused"
        assert "256 KiB" in str(await asyncio.wait_for(told.get(), 5)), "and the person was told why"
    page = await load(probe, probe.people["alice"])
    async with socket(probe, page.client_id, page.cookies) as sio:
        closed = asyncio.Event()
        sio.on("disconnect", closed.set)
        await sio.emit("event", {**event, "client_id": page.client_id, "args": [json.dumps("x" * 1_100_000)]})
        await asyncio.wait_for(closed.wait(), 5)


# --- uploads -----------------------------------------------------------------------------------------------------


async def test_uploads_belong_to_the_page_of_their_owner(probe: Probe) -> None:
    page = await load(probe, probe.people["alice"])
    before = probe.notes
    files = {"file": ("report.csv", b"a,b\n1,2\n", "text/csv")}
    async with socket(probe, page.client_id, page.cookies):
        for cookies, origin, status in (
            (None, probe.url, 401),
            (probe.people["bob"], probe.url, 403),
            (page.cookies, "http://evil.example", 403),
        ):
            async with httpx.AsyncClient(base_url=probe.url, cookies=cookies) as browser:
                answer = await browser.post(page.upload, files=files, headers={"Origin": origin})
                assert answer.status_code == status
        assert probe.notes == before
        async with httpx.AsyncClient(base_url=probe.url, cookies=page.cookies) as browser:
            good = await browser.post(page.upload, files=files, headers={"Origin": probe.url})
            assert good.status_code == 200, good.text
            big = {"file": ("big.bin", b"x" * (26 * 1024 * 1024))}
            assert (await browser.post(page.upload, files=big, headers={"Origin": probe.url})).status_code == 413
    assert await probe.settled(len(before) + 1) == [*before, "uploaded report.csv"]


# --- public pages ------------------------------------------------------------------------------------------------


async def test_a_public_page_serves_strangers_who_cannot_touch_each_others(probe: Probe) -> None:
    mine = await load(probe, None, "/open/order")
    yours = await load(probe, None, "/open/order")
    with pytest.raises(REFUSED):
        async with socket(probe, yours.client_id, mine.cookies):
            pass
    with pytest.raises(REFUSED):
        async with socket(probe, mine.client_id, None):
            pass
    async with socket(probe, mine.client_id, mine.cookies) as sio:
        before = len(probe.notes)
        await sio.emit("event", mine.event("Send"))
        assert (await probe.settled(before + 1))[-1] == "sent to order"
    async with httpx.AsyncClient(base_url=probe.url, headers={"Accept": "text/html"}) as stranger:
        assert (await stranger.get("/open/order/more")).status_code == 303
        assert (await stranger.post("/open/order", headers={"Origin": probe.url})).status_code == 401


async def test_a_signed_in_page_is_not_opened_by_the_cookie_of_a_public_one(probe: Probe) -> None:
    public = await load(probe, None, "/open/order")
    private = await load(probe, probe.people["alice"])
    with pytest.raises(REFUSED):
        async with socket(probe, private.client_id, public.cookies):
            pass


async def test_one_address_cannot_open_public_pages_without_end(probe: Probe) -> None:
    async with httpx.AsyncClient(base_url=probe.url, headers={"Accept": "text/html"}) as stranger:
        statuses = [(await stranger.get("/open/order")).status_code for _ in range(130)]
    assert statuses[0] == 200
    assert statuses[-1] == 429


async def test_a_prefix_from_outside_does_not_get_into_a_page(probe: Probe) -> None:
    async with httpx.AsyncClient(base_url=probe.url, cookies=probe.people["alice"]) as browser:
        answer = await browser.get("/probe", headers={"X-Forwarded-Prefix": "/evil", "Accept": "text/html"})
    assert answer.status_code == 200
    assert "/evil" not in answer.text
