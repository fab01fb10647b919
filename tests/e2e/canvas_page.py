"""A page with nothing but the canvas, for its browser tests: `python -m tests.e2e.canvas_page PORT`.

`/draw/NAME?person=…&theme=dark` opens one canvas per name (`nodes=200` fills it first); the other addresses are what the
page of a product does with a canvas: look at its document, show a run, show findings, change it from the server's side.
"""

import random
import sys
from types import SimpleNamespace
from typing import Any

from fastapi import Request
from nicegui import app as web
from nicegui import ui

from app.assets import asset_path
from app.canvas.element import DRAGGED, Canvas
from app.canvas.session import Editor
from app.canvas.sessions import Sessions
from nodes.blueprint import Blueprint, Edge, Placed
from nodes.catalog import catalog, ports_of
from nodes.errors import Conflict

DRAFTS: dict[str, tuple[Blueprint, int]] = {}
CANVASES: dict[str, list[Canvas]] = {}
HEARD: list[Any] = []


async def load(who: Any, name: str) -> tuple[Blueprint, int]:
    return DRAFTS.setdefault(name, (Blueprint(name=name), 1))


async def save(who: Any, name: str, blueprint: Blueprint, revision: int) -> int:
    if DRAFTS[name][1] != revision:
        raise Conflict("Somebody else changed it first.")
    DRAFTS[name] = (blueprint, revision + 1)
    return revision + 1


SESSIONS = Sessions(load, save)


def filled(name: str, count: int) -> Blueprint:
    """A drawing of that many nodes, about one and a half connections each."""
    rng = random.Random(1)
    types = [cls.type for cls in catalog() if cls.family != "trigger"]
    columns = max(4, int((count * 2) ** 0.5))
    nodes = [
        Placed(
            id=f"n{i}",
            type="validation.decide" if i % 5 == 0 else rng.choice(types),
            settings={"condition": f"total > {i}"} if i % 5 == 0 else {},
            x=(i % columns) * 300,
            y=(i // columns) * 170,
        )
        for i in range(count)
    ]
    ports = [ports_of(node, catalog()) for node in nodes]
    edges = []
    for number in range(int(count * 1.5)):
        a = rng.randrange(count - 1)
        b = min(count - 1, a + rng.randint(1, 5))
        out, into = ports[a][1], ports[b][0]
        if out and into:
            ends = {
                "source": f"n{a}",
                "source_port": rng.choice(out).name,
                "target": f"n{b}",
                "target_port": into[0].name,
            }
            edges.append(Edge(id=f"e{number}", **ends))
    return Blueprint(name=name, nodes=nodes, edges=edges)


@ui.page("/draw/{name}", reconnect_timeout=20)
async def draw(name: str, person: str = "Ada", theme: str = "light", nodes: int = 0, look: bool = False) -> None:
    if nodes and name not in DRAFTS:
        DRAFTS[name] = (filled(name, nodes), 1)
    session = await SESSIONS.open(person, name)
    ui.add_css(asset_path("css", "theme.css"))
    ui.dark_mode(theme == "dark")
    ui.query("html").props(f"data-theme={theme}")
    ui.context.client.content.style("padding: 0; gap: 0")
    with ui.element("div").style("display: flex; width: 100vw; height: 100vh; overflow: hidden"):
        with (
            ui.element("div")
            .classes("palette")
            .style(
                "flex: none; width: 190px; overflow: auto; padding: 12px; background: var(--af-surface);"
                "border-right: 1px solid var(--af-line)"
            )
        ):
            for cls in sorted(catalog(), key=lambda cls: cls.family):
                with (
                    ui.element("div")
                    .props(f"draggable=true tabindex=0 data-palette={cls.type}")
                    .style("padding: 5px; cursor: grab; display: flex; gap: 8px; align-items: center") as entry
                ):
                    ui.icon(cls.icon)
                    ui.label(cls.title)
                entry.on(
                    "dragstart",
                    js_handler="(event) => { event.dataTransfer.setData('"
                    + DRAGGED
                    + "', event.currentTarget.dataset.palette); event.dataTransfer.effectAllowed = 'copy'; }",
                )
                entry.on("dblclick", lambda type_=cls.type: canvas.add(type_))
        with ui.element("div").style("flex: 1; min-width: 0; height: 100%"):
            canvas = Canvas(
                session,
                Editor(person, who=person, may_edit=lambda: not look),
                actions=[{"name": "until", "label": "Test up to here", "icon": "science"}],
                on_selection=lambda ids: HEARD.append(["selection", ids]),
                on_open=lambda id_: HEARD.append(["open", id_]),
                on_action=lambda action, id_: HEARD.append(["action", action, id_]),
            )
    CANVASES.setdefault(name, []).append(canvas)


def canvases(name: str) -> list[Canvas]:
    return [canvas for canvas in CANVASES.get(name, []) if not canvas.is_deleted and not canvas.client.is_deleted]


@web.get("/look/{name}")
async def look_at(name: str) -> dict[str, Any]:
    """The document as the server has it, and as it was saved."""
    session = await SESSIONS.open("test", name)
    await SESSIONS.flush(name)
    return {**session.snapshot(), "saved": DRAFTS[name][0].model_dump(mode="json"), "editors": len(session.editors)}


@web.get("/heard")
async def heard() -> list[Any]:
    """What the callbacks of all canvases were told."""
    return HEARD


@web.post("/status/{name}")
async def status(name: str, request: Request) -> None:
    """Show a run."""
    said = await request.json()
    for canvas in canvases(name):
        with canvas:
            canvas.set_status(said.get("nodes", {}), said.get("edges"))


@web.post("/findings/{name}")
async def findings(name: str, request: Request) -> None:
    """Show findings."""
    found = [SimpleNamespace(**finding) for finding in await request.json()]
    for canvas in canvases(name):
        with canvas:
            canvas.set_findings(found)


@web.post("/commit/{name}")
async def commit(name: str, request: Request) -> None:
    """Change the document from the server's side, as a form or the assistant does."""
    canvases(name)[-1].commit(await request.json())


if __name__ in {"__main__", "__mp_main__"}:
    ui.run(host="127.0.0.1", port=int(sys.argv[1]), reload=False, show=False, title="Canvas", reconnect_timeout=20)
