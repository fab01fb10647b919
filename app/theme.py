"""The frame around every page: navigation, breadcrumbs, search, the person's menu, light and dark.

    with frame("Runs", active="runs"):
        ...

The pieces that pages are made of come from `app.pieces` and can be taken from here.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from nicegui import ui

from app.assets import asset_path
from app.live import Follower
from app.permissions import current_actor, current_factory, current_session, on
from app.pieces import (
    Action,
    ago,
    button,
    buttons,
    confirm,
    duration,
    empty_state,
    field_error,
    heading,
    json_tree,
    kbd,
    notice,
    relative_time,
    status_chip,
    undo_toast,
)
from app.visit import Visit
from nodes.errors import FactoryError

RAIL = (
    # (name, title, icon, address)
    ("home", "Home", "home", "/"),
    ("runs", "Runs", "timeline", "/runs"),
    ("attention", "Attention", "report", "/attention"),
    ("approvals", "Approvals", "how_to_reg", "/approvals"),
    ("fleet", "Fleet", "dns", "/fleet"),
    ("templates", "Templates", "dashboard_customize", "/templates"),
    ("settings", "Settings", "tune", "/settings"),
)
ROLE_WORDS = {
    "viewer": "Viewer: sees everything, changes nothing",
    "developer": "Developer: builds, runs and deploys agents",
    "admin": "Admin: everything, with people and secrets",
}
_THEMES = {"light": False, "dark": True, "system": None}
_DATA_THEME = {
    "light": '<script>document.documentElement.dataset.theme = "light";</script>',
    "dark": '<script>document.documentElement.dataset.theme = "dark";</script>',
    "system": '<script>document.documentElement.dataset.theme = "system";</script>',
}
_SET_THEME = {name: f'setTheme("{name}")' for name in _THEMES}


@contextlib.contextmanager
def frame(
    title: str,
    *,
    active: str = "",
    crumbs: tuple[tuple[str, str], ...] = (),
    width: str = "normal",
    heading_shown: bool = True,
    actions: tuple[Action, ...] = (),
) -> Iterator[ui.element]:
    """A page of the application. `active` is the rail's entry, `crumbs` are (text, address) above the title,
    `width` is normal, wide, or full (no padding, no scrolling: for the studio)."""
    dress(title)
    with ui.element("div").classes("af-shell"):
        ui.link("Skip to the content", "#content").classes("af-skip")
        _rail(active)
        with ui.element("header").classes("af-bar"):
            _crumbs((*crumbs, (title, "")))
            ui.element("div").classes("af-space")
            _search()
            _person()
        main = ui.element("main").classes("af-main").props("id=content tabindex=-1")
        if width != "normal":
            main.classes(f"af-{width}")
        with main:
            if heading_shown and width != "full":
                with ui.element("div").classes("af-head"):
                    heading(title)
                    buttons(actions)
            yield main


@contextlib.contextmanager
def public_frame(title: str) -> Iterator[ui.element]:
    """A page for anybody: a card in the middle, without navigation. For hosted forms and chats."""
    dress(title)
    with (
        ui.element("div").classes("af-plain"),
        ui.element("main").classes("af-plain-card is-words").props("id=content") as main,
    ):
        yield main


def dress(title: str) -> None:
    """Give the page its style sheet, its script, its title and its light or dark theme."""
    ui.page_title(f"{title} · Agent Factory")
    theme = Visit.of(ui.context.client.request.scope).theme
    ui.add_head_html(_DATA_THEME[theme])
    ui.add_head_html(_head())
    content = ui.context.client.content.classes("af-content")
    # NiceGUI wraps everything in a <main> of its own; ours, which leaves out the navigation, is the one to be found.
    assert content.parent_slot is not None
    content.parent_slot.parent.props("role=none")
    ui.dark_mode(_THEMES[theme]).mark("theme")


def set_defaults() -> None:
    """How NiceGUI's elements look unless a page says otherwise. Called once at start."""
    ui.button.default_props("unelevated no-caps")
    for field in (ui.input, ui.number, ui.select, ui.textarea):
        field.default_props("outlined dense")
    ui.tabs.default_props("dense no-caps align=left")
    ui.card.default_props("flat")
    ui.menu.default_props("transition-duration=120")


@functools.cache
def _head() -> str:
    """Links to our own style and script, with their fingerprints so that browsers keep them until they change."""
    return (
        f'<link rel="stylesheet" href="{asset_url("css", "theme.css")}">'
        f'<link rel="stylesheet" href="{asset_url("css", "pages.css")}">'
        f'<script defer src="{asset_url("js", "shell.js")}"></script>'
    )


def own_files(name: str) -> None:
    """A page's own style sheet and script, beside those that every page has: `css/<name>.css` and `js/<name>.js`."""
    ui.add_head_html(_own_files(name))


@functools.cache
def _own_files(name: str) -> str:
    return (
        f'<link rel="stylesheet" href="{asset_url("css", f"{name}.css")}">'
        f'<script defer src="{asset_url("js", f"{name}.js")}"></script>'
    )


@functools.cache
def asset_url(folder: str, name: str) -> str:
    """Address of a file below `assets/`, with a fingerprint of its content."""
    mark = hashlib.sha256(asset_path(folder, name).read_bytes()).hexdigest()[:12]
    return f"/assets/{folder}/{name}?v={mark}"


# --- the parts of the frame --------------------------------------------------------------------------------------


def _rail(active: str) -> None:
    with ui.element("nav").classes("af-rail").props('aria-label="Main"'):
        with ui.link(target="/").props('aria-label="Agent Factory"').style("padding: 0"):
            ui.element("span").classes("af-mark").style("margin-bottom: 8px")
        for name, title, icon, address in RAIL:
            if name == "settings":
                ui.element("div").classes("af-space")
            with ui.link(target=address) as link:
                ui.icon(icon).props("aria-hidden=true")
                ui.label(title)
                if name == "approvals":
                    _count("approvals", lambda: current_factory().approvals.count(current_actor()))
                elif name == "attention":
                    _count("dead-letters", lambda: current_factory().dead_letters.count(current_actor()))
            if name == active:
                link.props("aria-current=page")


def _count(topic: str, read: Callable[[], Awaitable[int]]) -> None:
    """The number of things that wait for somebody, kept true while the page is open."""
    count = ui.label().classes("af-count").mark(f"{topic}-count")
    count.set_visibility(False)
    client = ui.context.client

    async def refresh() -> None:
        with contextlib.suppress(FactoryError):
            waiting = await read()
            count.set_text(str(min(waiting, 99)))
            count.set_visibility(waiting > 0)

    with count:
        follower = Follower(refresh, pause=1.0)  # many at once are counted once
    client.on_connect(lambda: follower.nudge())
    client.on_delete(current_factory().bus.subscribe(current_actor().tenant, (topic,), follower.nudge))


def _crumbs(crumbs: tuple[tuple[str, str], ...]) -> None:
    with (
        ui.element("nav").props('aria-label="Where you are"').classes("min-w-0"),
        ui.element("ol").classes("af-crumbs"),
    ):
        for index, (text, address) in enumerate(crumbs):
            if index:
                ui.icon("chevron_right").classes("af-muted").props("aria-hidden=true")
            with ui.element("li").classes("min-w-0"):
                if address:
                    ui.link(text, address)
                else:
                    ui.label(text).classes("truncate").props("aria-current=page")


def _person() -> None:
    session = current_session()
    who = session.actor
    initials = "".join(part[0] for part in who.name.split()[:2]).upper() or "?"
    with ui.element("button").classes("af-person").props('type=button aria-label="Your menu"') as avatar:
        ui.label(initials)
        with ui.menu().props("anchor='bottom right' self='top right' :offset='[0, 8]'").style("min-width: 260px"):
            with ui.element("div").style("padding: 12px 18px 8px"):
                ui.label(who.name).classes("af-strong")
                ui.label(session.email).classes("af-muted af-small")
                ui.label(ROLE_WORDS.get(str(who.role), str(who.role))).classes("af-muted af-small")
            ui.separator()
            with ui.element("div").style("padding: 8px 18px"):
                ui.label("Colours").classes("af-overline").style("margin-bottom: 6px")
                theme_choice()
            ui.separator()
            ui.menu_item("Settings", lambda: ui.navigate.to("/settings"))
            with ui.element("form").props('method=post action="/logout"'):
                ui.element("input").props(f'type=hidden name=csrf value="{session.csrf}"')
                with ui.element("button").classes("af-hit").props("type=submit").style("padding-left: 18px"):
                    ui.icon("logout").props("aria-hidden=true")
                    ui.label("Sign out")
    avatar.mark("person")


def theme_choice() -> ui.toggle:
    """Light, dark or as the system says: counts at once and is remembered in this browser."""
    return (
        ui.toggle(
            {"light": "Light", "dark": "Dark", "system": "System"},
            value=Visit.of(ui.context.client.request.scope).theme,
            on_change=on(lambda event: _set_theme(event.value)),
        )
        .props("unelevated dense no-caps spread")
        .mark("themes")
    )


def _set_theme(theme: str) -> None:
    if theme not in _THEMES:
        return
    ui.run_javascript(_SET_THEME[theme])
    for element in ui.context.client.elements.values():
        if isinstance(element, ui.dark_mode):
            element.set_value(_THEMES[theme])


# --- jump to anything --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hit:
    """Something to jump to."""

    title: str
    kind: str
    icon: str
    address: str


def _search() -> None:
    """The box that Ctrl+K opens: pages and agents by a few letters, arrows and Enter."""
    hits: list[Hit] = []
    here = 0
    with (
        ui.dialog().props("position=top") as dialog,
        ui.card().classes("af-palette p-0 gap-0").style("margin-top: 12vh"),
    ):
        entry = ui.input(placeholder="Jump to a page or an agent").props(
            remove="outlined dense", add="borderless autofocus aria-label=Search"
        )
        entry.classes("w-full").style("padding: 4px 20px; font-size: 16px").mark("palette")
        listing = ui.element("div").classes("af-hits w-full").props("role=listbox")

    def draw() -> None:
        listing.clear()
        with listing:
            if not hits:
                ui.label("Nothing has that name.").classes("af-muted p-4")
            for index, hit in enumerate(hits):
                classes = "af-hit is-here" if index == here else "af-hit"
                with ui.element("button").classes(classes).props("type=button role=option") as row:
                    ui.icon(hit.icon).props("aria-hidden=true")
                    ui.label(hit.title).classes("truncate")
                    ui.label(hit.kind).classes("af-muted af-small ml-auto shrink-0")
                row.on("click", on(functools.partial(go, hit)))

    def go(hit: Hit) -> None:
        dialog.close()
        ui.navigate.to(hit.address)

    async def look() -> None:
        nonlocal hits, here
        hits, here = await find(entry.value or ""), 0
        draw()

    def move(by: int) -> None:
        nonlocal here
        here = max(0, min(len(hits) - 1, here + by))
        draw()

    def choose() -> None:
        if hits:
            go(hits[here])

    async def show() -> None:
        entry.value = ""
        dialog.open()
        await look()

    entry.on_value_change(on(look))
    entry.on("keydown.down.prevent", on(lambda: move(1)))
    entry.on("keydown.up.prevent", on(lambda: move(-1)))
    entry.on("keydown.enter", on(choose))
    with ui.element("button").classes("af-search").props('type=button id=af-search aria-label="Search"') as opener:
        ui.icon("search").props("aria-hidden=true").style("font-size: 17px")
        ui.label("Jump to…").classes("af-search-words")
        kbd("Ctrl+K")
    opener.on("click", on(show))


async def find(text: str) -> list[Hit]:
    """Pages and agents whose name has all the words, best first."""
    words = text.lower().split()
    found = [Hit(title, "Page", icon, address) for _, title, icon, address in RAIL]
    agents = await current_factory().blueprints.list(current_actor())
    found += [Hit(one.name, "Agent", "account_tree", f"/studio/{one.id}") for one in agents]
    fitting = [hit for hit in found if all(word in hit.title.lower() for word in words)]
    return sorted(fitting, key=lambda hit: not hit.title.lower().startswith(text.lower().strip()))[:12]


__all__ = [
    "Action",
    "ago",
    "asset_url",
    "button",
    "buttons",
    "confirm",
    "dress",
    "duration",
    "empty_state",
    "field_error",
    "find",
    "frame",
    "heading",
    "json_tree",
    "kbd",
    "notice",
    "own_files",
    "public_frame",
    "relative_time",
    "set_defaults",
    "status_chip",
    "theme_choice",
    "undo_toast",
]
