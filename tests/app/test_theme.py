"""The frame and its pieces as people meet them, and colours that everybody can read."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import product
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nicegui import ui
from nicegui.testing import User
from nicegui.testing.user_interaction import UserInteraction

from app import permissions, pieces, theme
from app.assets import asset_path
from app.permissions import Permission, current_actor, on, page
from runtime.policy import Role
from tests.app.conftest import House, running

CSS = asset_path("css", "theme.css").read_text()
DONE: list[str] = []


@pytest.fixture
def sample() -> AsyncIterator[None]:
    """A page with every piece on it, declared for one test."""
    before = dict(permissions._pages)

    @page("/sample", "Sample")
    def sample() -> None:
        with theme.frame("Sample", active="runs", crumbs=(("Runs", "/runs"),), actions=(("Do it", on(work)),)):
            theme.empty_state("draw", "Nothing yet", "It would be here.", (("Begin", on(work)), ("Look", "/templates")))
            for state in ("running", "succeeded", "failed", "active", "something new"):
                theme.status_chip(state)
            theme.relative_time(time.time() - 300)
            theme.json_tree({"order": {"items": list(range(120))}, "text": "x" * 900, "markup": "<b>bold</b>"})
            with ui.element("div") as part, ui.element("div"):
                ui.button("Ask", on_click=on(ask))
            ui.button("Draw anew", on_click=on(part.clear))
            ui.button("Take away", on_click=on(lambda: theme.undo_toast("Taken away.", lambda: DONE.append("back"))))
            ui.button("Secretly", on_click=on(lambda: DONE.append("secret"), Permission.SECRETS))

    @page("/admins", "Admins", permission=Permission.ADMIN)
    async def admins() -> None:
        ui.label("for admins")

    async def ask() -> None:
        sure = await theme.confirm("Delete it?", "Its runs stay.")
        current_actor().require(Permission.VIEW)
        DONE.append(str(sure))

    def work() -> None:
        DONE.append(f"worked: {current_actor().name}")

    DONE.clear()
    yield
    permissions._pages.clear()
    permissions._pages.update(before)


@pytest.fixture
async def house(tmp_path: Path, sample: None) -> AsyncIterator[House]:
    async with running(tmp_path / "home") as house:
        yield house


# --- the frame ---------------------------------------------------------------------------------------------------


async def test_the_frame_says_where_one_is_and_leads_everywhere(admin: User) -> None:
    await admin.open("/sample")
    for name in ("Home", "Runs", "Approvals", "Templates", "Settings", "Jump to…", "Ada Lovelace", "Sign out"):
        await admin.should_see(name)
    with admin:
        here = [one for one in admin.client.elements.values() if one.props.get("aria-current") == "page"]
        links = {one.props["href"] for one in admin.client.elements.values() if "href" in one.props}
    assert len(here) == 2, "the rail's entry and the last breadcrumb"
    assert {"/", "/runs", "/approvals", "/templates", "/settings", "#content"} <= links


async def test_buttons_of_the_frame_act_as_the_person(admin: User) -> None:
    await admin.open("/sample")
    admin.find("Do it").click()
    admin.find("Begin").click()
    assert DONE == ["worked: Ada Lovelace"] * 2


async def test_the_palette_finds_pages_and_agents(admin: User, house: House) -> None:
    session = await house.auth.session(admin.http_client.cookies["factory_session"])
    assert session is not None
    await house.factory.blueprints.create(session.actor, name="Order triage")
    await admin.open("/sample")
    admin.find(kind=ui.element, marker="palette").type("tri")
    await admin.should_see("Order triage")
    with admin:
        assert [hit.title for hit in await theme.find("tem")] == ["Templates"]
        assert {hit.kind for hit in await theme.find("")} == {"Page", "Agent"}
        assert await theme.find("no such thing") == []


async def test_the_theme_is_remembered_in_a_cookie_and_sent_with_the_page(house: House) -> None:
    browser = house.browser()
    await house.set_up(browser)
    assert 'dataset.theme = "system"' in (await browser.get("/sample")).text
    browser.cookies.set("factory_theme", "dark")
    assert 'dataset.theme = "dark"' in (await browser.get("/sample")).text
    browser.cookies.set("factory_theme", '"><script>alert(1)</script>')
    assert 'dataset.theme = "system"' in (await browser.get("/sample")).text
    stranger = house.browser()
    stranger.cookies.set("factory_theme", "dark")
    assert '<html lang="en" data-theme="dark">' in (await stranger.get("/login")).text


async def test_every_script_of_a_page_carries_its_nonce(house: House) -> None:
    browser = house.browser()
    await house.set_up(browser)
    seen = set()
    for _ in range(2):
        answer = await browser.get("/sample")
        nonce = re.search(r"'nonce-([\w-]+)'", answer.headers["content-security-policy"])
        assert nonce
        scripts = re.findall(r"<script[^>]*>", answer.text)
        assert len(scripts) > 5
        assert all(f'nonce="{nonce[1]}"' in one for one in scripts)
        seen.add(nonce[1])
    assert len(seen) == 2


# --- permissions on pages ----------------------------------------------------------------------------------------


async def test_a_page_asks_for_its_permission(
    house: House, admin: User, person: Callable[[Role], Awaitable[User]]
) -> None:
    await admin.open("/admins")
    await admin.should_see("for admins")
    viewer = await person(Role.VIEWER)
    refused = await viewer.http_client.get("/admins")
    assert refused.status_code == 403
    assert "Your role “viewer” may not" in refused.text
    assert "for admins" not in refused.text


async def test_a_handler_asks_again_at_the_moment_of_the_click(
    house: House, admin: User, person: Callable[[Role], Awaitable[User]]
) -> None:
    developer = await person(Role.DEVELOPER)
    await developer.open("/sample")
    developer.find("Secretly").click()
    await developer.should_see("Your role “developer” may not manage secrets.")
    assert DONE == []
    session = await house.auth.session(developer.http_client.cookies["factory_session"])
    assert session is not None
    await house.auth.end(session)
    developer.find("Do it").click()
    assert DONE == []
    assert developer.back_history[-1] == "/sample"


# --- pieces ------------------------------------------------------------------------------------------------------


async def test_pieces_show_text_as_text_and_open_on_demand(admin: User) -> None:
    await admin.open("/sample")
    await admin.should_see("Nothing yet")
    await admin.should_see("Something new")
    await admin.should_see("5 minutes ago")
    await admin.should_see("<b>bold</b>")
    await admin.should_see("show 500 more characters")
    await admin.should_not_see("show more (70 left)")
    open_all_folds(admin)
    open_all_folds(admin)
    await admin.should_see("show more (70 left)")
    admin.find("show more (70 left)").click()
    await admin.should_see("show more (20 left)")


def open_all_folds(user: User) -> None:
    """Click every closed branch of the trees."""
    with user:
        closed = [one for one in user.client.elements.values() if one.props.get("aria-expanded") == "false"]
    for one in closed:
        UserInteraction(user, {one}, None).click()


async def test_confirming_and_taking_back(admin: User) -> None:
    await admin.open("/sample")
    admin.find("Ask").click()
    await admin.should_see("Its runs stay.")
    admin.find(kind=ui.button, content="Delete").click()
    await admin.should_not_see("Its runs stay.")
    admin.find("Take away").click()
    await admin.should_see("Taken away.")
    admin.find("Undo").click()
    await admin.should_not_see("Taken away.")
    assert sorted(DONE) == ["True", "back"]


async def test_a_question_stays_when_the_part_of_the_page_that_asked_is_drawn_anew(admin: User) -> None:
    await admin.open("/sample")
    admin.find("Ask").click()
    await admin.should_see("Its runs stay.")
    admin.find("Draw anew").click()
    await admin.should_not_see(kind=ui.button, content="Ask")
    gc.collect()  # nobody holds the part that asked any more
    admin.find(kind=ui.button, content="Delete").click()
    await admin.should_not_see("Its runs stay.")
    assert DONE == ["True"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "…"), (0, "0 ms"), (-1, "0 ms"), (0.0123, "12 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (3.44, "3.4 s"),
        (59.97, "1 min"), (60, "1 min"), (125, "2 min 5 s"), (3599.7, "1 h"), (4320, "1 h 12 min"), (7200, "2 h"),
    ],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(seconds: float | None, words: str) -> None:
    assert pieces.duration(seconds) == words


@given(st.floats(0, 1e7))
def test_a_duration_never_has_sixty_of_a_smaller_unit(seconds: float) -> None:
    words = pieces.duration(seconds)
    assert not re.search(r"\b60(\.0)? (s|min)\b|\b1000 ms", words)


@pytest.mark.parametrize(
    ("past", "words"),
    [(0, "just now"), (59, "59 seconds ago"), (60, "1 minute ago"), (7200, "2 hours ago"), (86400 * 3, "3 days ago"), (-90, "in 1 minute")],
)  # fmt: skip
def test_moments_are_said_as_people_say_them(past: float, words: str) -> None:
    assert pieces.ago(1_000_000_000 - past, now=1_000_000_000) == words


# --- colours -----------------------------------------------------------------------------------------------------


def palettes() -> dict[str, dict[str, str]]:
    """The variables of each theme."""
    found = {
        "light": re.search(r":root \{(.*?)\n\}", CSS, re.DOTALL),
        "dark": re.search(r':root\[data-theme="dark"\] \{(.*?)\n\}', CSS, re.DOTALL),
        "system": re.search(r':root\[data-theme="system"\] \{(.*?)\n  \}', CSS, re.DOTALL),
    }
    return {
        name: dict(re.findall(r"--af-([a-z-]+): (#[0-9a-f]{6});", block[1])) for name, block in found.items() if block
    }


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def mixed(top: str, share: float, below: str) -> str:
    """What `color-mix(in srgb, top share, transparent)` looks like on a ground."""
    pairs = [(int(top[i : i + 2], 16), int(below[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)


WORDS = ("ink", "muted", "accent", "good", "warn", "bad", "info", "trigger", "context", "action", "validation", "flow")
GROUNDS = ("bg", "surface", "raised", "sunken")


@pytest.mark.parametrize("name", ["light", "dark"])
def test_words_can_be_read_on_every_ground(name: str) -> None:
    colours = palettes()[name]
    weak = {
        (word, ground): round(contrast(colours[word], colours[ground]), 2)
        for word, ground in product(WORDS, GROUNDS)
        if contrast(colours[word], colours[ground]) < 4.5
    }
    assert weak == {}


@pytest.mark.parametrize(("name", "wash"), [("light", 0.09), ("dark", 0.14)])
def test_chips_buttons_and_lines_stand_out(name: str, wash: float) -> None:
    colours = palettes()[name]
    assert f"--af-wash: {wash:.0%}" in CSS
    for tone, ground in product(("accent", "good", "warn", "bad", "info", "muted"), ("surface", "bg")):
        chip = mixed(colours[tone], wash, colours[ground])
        assert contrast(colours[tone], chip) >= 4.5, (tone, ground)
    for filled in ("accent", "bad", "good"):
        assert contrast(colours["accent-ink"], colours[filled]) >= 4.5, filled
    for ground in GROUNDS:
        assert contrast(colours["line-strong"], colours[ground]) >= 3, ground


def test_the_systems_dark_theme_is_the_dark_theme() -> None:
    assert palettes()["system"] == palettes()["dark"]
    assert set(palettes()["dark"]) == set(palettes()["light"])


def test_every_colour_that_is_used_exists() -> None:
    used = set(re.findall(r"var\(--af-([a-z-]+)", CSS))
    made = set(re.findall(r"--af-([a-z-]+):", CSS))
    assert used <= made


def test_motion_can_be_switched_off_and_focus_is_seen() -> None:
    assert "prefers-reduced-motion: reduce" in CSS
    assert ":focus-visible" in CSS


async def test_the_style_sheet_is_served_under_its_fingerprint(house: House) -> None:
    answer: httpx.Response = await house.browser().get(theme.asset_url("css", "theme.css"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/css; charset=utf-8")
