"""Set-up, sign-in, sign-out, cookies, CSRF, tokens: who somebody is, through the guard."""

from __future__ import annotations

import asyncio
import re
import stat
import time
from pathlib import Path

import httpx
import pytest

from app.auth import BadEntry, SetupClosed, digest
from nodes.errors import Denied, FactoryError
from runtime.policy import Actor, Role
from storage.errors import Clash
from tests.app.conftest import PASSWORD, URL, House, hidden, running

JSON = {"Accept": "application/json"}


def cookies_of(answer: httpx.Response) -> dict[str, str]:
    """Cookie name -> everything after its value."""
    return {one.partition("=")[0]: one.partition(";")[2].lower() for one in answer.headers.get_list("set-cookie")}


# --- first start -------------------------------------------------------------------------------------------------


async def test_the_setup_link_makes_the_first_admin_who_is_then_signed_in(house: House) -> None:
    browser = house.browser()
    answer = await house.set_up(browser)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    session = await house.auth.session(browser.cookies["factory_session"])
    assert session is not None
    assert (session.actor.name, session.email, session.actor.role) == ("Ada Lovelace", "ada@example.com", Role.ADMIN)


async def test_the_setup_link_works_once(house: House) -> None:
    await house.set_up(house.browser())
    again = house.browser()
    token = house.setup_url.partition("token=")[2]
    fields = {"token": token, "name": "Eve", "email": "eve@example.com", "password": PASSWORD, "team": "Mine"}
    refused = await again.post("/setup", data=fields)
    assert refused.status_code == 403
    assert "not valid, or it was used" in refused.text
    assert (await again.get(f"/setup?token={token}")).headers["location"] == "/login"


async def test_of_two_who_use_the_setup_link_at_once_one_wins(house: House) -> None:
    token = house.setup_url.partition("token=")[2]
    results = await asyncio.gather(
        *(
            house.auth.set_up(token, name=f"No {n}", email=f"n{n}@example.com", password=PASSWORD, team="T")
            for n in range(4)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(one, SetupClosed) for one in results) == 3


@pytest.mark.parametrize("token", ["", "0", "null", "None", "a" * 43, "%00", "../setup", "é" * 43])
async def test_other_setup_tokens_open_nothing(house: House, token: str) -> None:
    browser = house.browser()
    shown = await browser.get("/setup", params={"token": token})
    assert shown.status_code == 403 and "This link opens nothing" in shown.text
    fields = {"token": token, "name": "Eve", "email": "eve@example.com", "password": PASSWORD, "team": "Mine"}
    assert (await browser.post("/setup", data=fields)).status_code == 403


async def test_the_setup_token_is_hashed_at_rest_and_outlives_a_restart(tmp_path: Path) -> None:
    async with running(tmp_path / "home") as first:
        link = first.setup_url
        token = link.partition("token=")[2]
        kept = (tmp_path / "home" / "keys" / "setup").read_text()
        assert token not in kept
        assert digest(token) in kept
        assert len(token) >= 43
    async with running(tmp_path / "home") as second:
        assert second.setup_url != link
        assert second.auth.is_setup_token(token)
        assert (await second.set_up(second.browser())).status_code == 303
        assert not second.auth.is_setup_token(token)
    async with running(tmp_path / "home") as third:
        assert third.setup_url == ""


async def test_keys_can_be_read_by_their_owner_only(house: House) -> None:
    for path in (house.settings.home / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((house.settings.home / "keys").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("password", "short", "at least 10 characters"),
        ("password", "aaaaaaaaaaaa", "easy to guess"),
        ("email", "ada", "does not look like an e-mail"),
        ("name", "   ", "Give it a name"),
        ("team", "", "Give the team a name"),
    ],
)
async def test_setup_says_what_is_wrong_next_to_the_field(house: House, field: str, value: str, says: str) -> None:
    browser = house.browser()
    shown = await browser.get(house.setup_url)
    fields = {"name": "Ada", "email": "ada@example.com", "password": PASSWORD, "team": "Engine"} | {field: value}
    answer = await browser.post("/setup", data=hidden(shown.text) | fields)
    assert answer.status_code == 422
    assert re.search(rf'<input name="{field}"[^>]*aria-invalid="true"', answer.text)
    assert says in answer.text
    assert PASSWORD not in answer.text


# --- signing in and out ------------------------------------------------------------------------------------------


async def test_signing_in_leads_to_where_the_person_wanted_to_go(house: House) -> None:
    await house.set_up(house.browser())
    browser = house.browser()
    sent = await browser.get("/runs?state=failed")
    assert sent.headers["location"] == "/login?next=%2Fruns%3Fstate%3Dfailed"
    shown = await browser.get(sent.headers["location"])
    answer = await browser.post("/login", data=hidden(shown.text) | {"email": " ADA@example.com", "password": PASSWORD})
    assert answer.headers["location"] == "/runs?state=failed"


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/a//b",
        "/\t/evil.example",
        "",
    ],
)
async def test_signing_in_never_leads_to_another_site(house: House, target: str) -> None:
    await house.set_up(house.browser())
    browser = house.browser()
    shown = await browser.get("/login", params={"next": target})
    fields = hidden(shown.text) | {"email": "ada@example.com", "password": PASSWORD, "next": target}
    answer = await browser.post("/login", data=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


async def test_a_wrong_password_and_an_unknown_person_look_the_same(house: House) -> None:
    await house.set_up(house.browser())
    wrong = await house.sign_in(house.browser(), "ada@example.com", "not the password")
    unknown = await house.sign_in(house.browser(), "bob@example.com", "not the password")
    assert wrong.status_code == unknown.status_code == 401
    blank = [re.sub(r'value="[^"]*"', "", one.text) for one in (wrong, unknown)]
    assert blank[0] == blank[1]
    assert "do not fit together" in wrong.text


async def test_after_five_wrong_tries_even_the_right_password_has_to_wait(house: House) -> None:
    await house.set_up(house.browser())
    for _ in range(5):
        assert (await house.sign_in(house.browser(), "ada@example.com", "guess guess")).status_code == 401
    locked = await house.sign_in(house.browser(), "ada@example.com")
    assert locked.status_code == 429
    assert "Wait 15 minutes" in locked.text


async def test_unknown_people_are_locked_out_just_the_same(house: House) -> None:
    await house.set_up(house.browser())
    statuses = [(await house.sign_in(house.browser(), "bob@example.com", "guess guess")).status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]


async def test_signing_out_ends_the_session_on_the_server(house: House) -> None:
    browser = house.browser()
    await house.set_up(browser)
    stolen = browser.cookies["factory_session"]
    session = await house.auth.session(stolen)
    assert session is not None
    assert (await browser.post("/logout", data={"csrf": "wrong"})).status_code == 403
    assert (await browser.post("/logout", data={"csrf": session.csrf})).headers["location"] == "/login"
    assert await house.auth.session(stolen) is None
    thief = house.browser()
    thief.cookies.set("factory_session", stolen)
    assert (await thief.get("/")).headers["location"] == "/login"


async def test_sessions_are_hashed_at_rest(house: House) -> None:
    browser = house.browser()
    await house.set_up(browser)
    token = browser.cookies["factory_session"]
    rows = b"".join(path.read_bytes() for path in house.settings.home.glob("factory.db*"))
    assert digest(token).encode() in rows
    assert token.encode() not in rows
    assert PASSWORD.encode() not in rows
    assert b"$argon2id$v=19$m=19456,t=2,p=1$" in rows


# --- cookies and CSRF --------------------------------------------------------------------------------------------


async def test_cookies_are_out_of_reach_of_scripts_and_other_sites(house: House) -> None:
    answer = await house.set_up(house.browser())
    flags = cookies_of(answer)["factory_session"]
    assert "httponly" in flags
    assert "samesite=lax" in flags
    assert "path=/" in flags
    assert "domain" not in flags


async def test_behind_https_cookies_are_bound_to_the_host_and_secure(tmp_path: Path) -> None:
    async with running(tmp_path / "home", public_url="https://factory.example") as house:
        browser = httpx.AsyncClient(
            transport=httpx.ASGITransport(house.door),
            base_url="https://factory.example",
            headers={"Accept": "text/html", "Origin": "https://factory.example"},
        )
        house.clients.append(browser)
        answer = await house.set_up(browser)
        assert answer.status_code == 303
        for name in ("__Host-factory_session", "__Host-factory_form"):
            assert "secure" in cookies_of(answer)[name]
        home = await browser.get("/nowhere")
        assert home.headers["strict-transport-security"] == "max-age=31536000"
        assert "__Host-factory_page" in cookies_of(home)
        for name, flags in cookies_of(home).items():
            assert name.startswith("__Host-"), name
            assert {"secure", "httponly", "samesite=lax"} <= {part.strip() for part in flags.split(";")}
        plain = house.browser()
        assert (await plain.get("/login")).status_code == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.2:8080"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": URL, "Sec-Fetch-Site": "cross-site"},
        {"Origin": URL, "Sec-Fetch-Site": "same-site"},
    ],
)
async def test_changes_from_other_sites_are_refused(house: House, headers: dict[str, str]) -> None:
    await house.set_up(house.browser())
    browser = house.browser()
    shown = await browser.get("/login")
    fields = hidden(shown.text) | {"email": "ada@example.com", "password": PASSWORD}
    refused = await browser.post("/login", data=fields, headers=headers)
    assert refused.status_code == 403
    assert "factory_session" not in browser.cookies


async def test_a_form_without_its_hidden_word_is_shown_again(house: House) -> None:
    await house.set_up(house.browser())
    browser = house.browser()
    await browser.get("/login")
    other = hidden((await house.browser().get("/login")).text)
    answer = await browser.post("/login", data=other | {"email": "ada@example.com", "password": PASSWORD})
    assert answer.status_code == 200
    assert "open for too long" in answer.text
    assert "factory_session" not in browser.cookies


async def test_a_signed_in_browser_needs_the_csrf_word_for_every_change(house: House) -> None:
    browser = house.browser()
    await house.set_up(browser)
    session = await house.auth.session(browser.cookies["factory_session"])
    assert session is not None
    without = await browser.post("/api/v1/nothing-there", headers=JSON)
    assert (without.status_code, without.json()["error"]["code"]) == (403, "request.csrf")
    wrong = await browser.post("/api/v1/nothing-there", headers=JSON | {"X-CSRF-Token": "0" * 64})
    assert wrong.json()["error"]["code"] == "request.csrf"
    right = await browser.post("/api/v1/nothing-there", headers=JSON | {"X-CSRF-Token": session.csrf})
    assert right.json()["error"]["code"] == "not_found"


# --- tokens ------------------------------------------------------------------------------------------------------


async def make_token(house: House, role: Role = Role.DEVELOPER, days: int = 1) -> str:
    who = Actor(await house.auth.first_tenant(), "user_x", "Ada", Role.ADMIN)
    return await house.auth.make_token(who, name="build", role=role, days=days)


async def test_a_token_has_its_role_and_needs_neither_cookie_nor_csrf(house: House) -> None:
    await house.set_up(house.browser())
    token = await make_token(house)
    session = await house.auth.bearer(token)
    assert session is not None
    assert (session.actor.kind, session.actor.role, session.actor.name) == ("token", Role.DEVELOPER, "build")
    client = house.browser()
    del client.headers["origin"]
    answer = await client.post("/api/v1/nothing-there", headers=JSON | {"Authorization": f"Bearer {token}"})
    assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("bad", ["", "Bearer", "Bearer x", "Basic YTpi", "Bearer af_" + "a" * 43, "Bearer \x00"])
async def test_a_bad_token_is_refused_even_beside_a_good_cookie(house: House, bad: str) -> None:
    browser = house.browser()
    await house.set_up(browser)
    if not bad:
        return
    answer = await browser.get("/api/v1/nothing-there", headers=JSON | {"Authorization": bad})
    assert answer.status_code == 401


async def test_a_cookie_is_no_token_and_a_token_no_cookie(house: House) -> None:
    browser = house.browser()
    await house.set_up(browser)
    cookie, token = browser.cookies["factory_session"], await make_token(house)
    assert await house.auth.bearer(cookie) is None
    assert await house.auth.session(token) is None


async def test_only_an_admin_makes_tokens(house: House) -> None:
    who = Actor("t", "u", "Dev", Role.DEVELOPER)
    with pytest.raises(Denied):
        await house.auth.make_token(who, name="x", role=Role.VIEWER, days=1)


@pytest.mark.parametrize("days", [0, -1, 366])
async def test_a_token_does_not_last_for_ever(house: House, days: int) -> None:
    await house.set_up(house.browser())
    with pytest.raises(BadEntry):
        await make_token(house, days=days)


# --- people ------------------------------------------------------------------------------------------------------


async def test_who_signed_in_when_is_known(house: House) -> None:
    browser, began = house.browser(), time.time()
    await house.set_up(browser)
    tenant = await house.auth.first_tenant()
    await house.auth.add_person(tenant, name="Bo", email="bo@example.com", password=PASSWORD, role=Role.VIEWER)

    async def seen() -> dict[str, float | None]:
        return {one["name"]: one["seen_at"] for one in (await browser.get("/api/v1/people")).json()["items"]}

    assert (await seen())["Bo"] is None
    await house.sign_in(house.browser(), "bo@example.com")
    assert ((await seen())["Bo"] or 0) >= began


async def test_a_lowered_role_counts_from_the_next_moment(house: House) -> None:
    await house.set_up(house.browser())
    people, admin = house.door.outer.state.people, Actor(await house.auth.first_tenant(), "x", "Ada", Role.ADMIN)
    dev = await people.add(admin, name="Dev", email="dev@example.com", password=PASSWORD, role=Role.DEVELOPER)
    browser = house.browser()
    await house.sign_in(browser, "dev@example.com")
    session = await house.auth.session(browser.cookies["factory_session"])
    assert session is not None
    await people.set_role(admin, dev.id, Role.VIEWER)
    now = house.auth.live(session.id)
    assert now is not None
    assert now.actor.role is Role.VIEWER
    await people.set_disabled(admin, dev.id, True)
    assert house.auth.live(session.id) is None
    assert (await house.sign_in(house.browser(), "dev@example.com")).status_code == 401


async def test_a_new_password_ends_the_other_sessions(house: House) -> None:
    first, second = house.browser(), house.browser()
    await house.set_up(first)
    await house.sign_in(second, "ada@example.com")
    session = await house.auth.session(first.cookies["factory_session"])
    other = await house.auth.session(second.cookies["factory_session"])
    assert session is not None
    assert other is not None
    people = house.door.outer.state.people
    with pytest.raises(BadEntry):
        await people.change_own_password(session, old="wrong", new="another good one")
    await people.change_own_password(session, old=PASSWORD, new="another good one")
    assert house.auth.live(session.id) is not None
    assert house.auth.live(other.id) is None
    assert (await house.sign_in(house.browser(), "ada@example.com", "another good one")).status_code == 303


async def test_the_last_admin_stays_and_an_address_is_used_once(house: House) -> None:
    browser = house.browser()
    await house.set_up(browser)
    session = await house.auth.session(browser.cookies["factory_session"])
    assert session is not None
    people = house.door.outer.state.people
    with pytest.raises(Clash):
        await people.set_role(session.actor, session.actor.id, Role.VIEWER)
    with pytest.raises(FactoryError, match="already"):
        await people.add(session.actor, name="B", email="ADA@example.com", password=PASSWORD, role=Role.VIEWER)


async def test_what_another_process_ends_ends_here_too(house: House) -> None:
    browser = house.browser()
    await house.set_up(browser)
    session = await house.auth.session(browser.cookies["factory_session"])
    assert session is not None
    from storage import session as rows

    await house.factory.db.write(session.actor.tenant, lambda writing: rows.revoke(writing, session.id, time.time()))
    await house.auth.recheck()
    assert house.auth.live(session.id) is None
