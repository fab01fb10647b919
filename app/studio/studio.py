"""Puts the studio's parts together around one drawing."""

from __future__ import annotations

from functools import partial

from nicegui import ui

from app.canvas.element import Canvas
from app.canvas.session import Editor
from app.permissions import current_auth, current_session, on
from app.studio.deploy import Deploy
from app.studio.desk import Desk
from app.studio.findings import Findings
from app.studio.inspector import Inspector
from app.studio.palette import palette
from app.studio.rooms import current_sessions
from app.studio.sandbox import Sandbox
from app.studio.topbar import Topbar
from app.studio.versions import Versions
from app.theme import own_files
from runtime.policy import Permission

ACTIONS = (
    {"name": "until", "label": "Test up to here", "icon": "science"},
    {"name": "from", "label": "Run from here", "icon": "start"},
    {"name": "break", "label": "Set or clear a breakpoint", "icon": "adjust"},
)
"""What the studio adds to the menu of a node."""


async def studio(id_: str, *, debug: str = "") -> None:
    """Draw the studio of one agent into the present container; `debug` is a run of it to look into. Raises NotFound."""
    session = current_session()
    drawing = await current_sessions().open(session.actor, id_)
    live = partial(_may_edit, session.id)
    desk = Desk(id_, drawing, Editor(session.actor.name, who=session.actor, may_edit=live))
    own_files("studio")
    findings = Findings(desk)
    deploy = Deploy(desk, findings)
    desk.place = ui.element("div").classes("st-dialogs")
    with ui.element("div").classes("st-studio"):
        if desk.editor.may_edit():
            palette(desk)
        with ui.element("div").classes("st-canvas"):
            desk.canvas = Canvas(
                drawing,
                desk.editor,
                types=desk.types,
                actions=ACTIONS if desk.may(Permission.RUN) else (),
                on_selection=desk.on_selection,
                on_open=lambda node: desk.open_tab("settings"),
                on_action=on(partial(_act, desk), Permission.RUN),
                on_change=desk.on_change,
                on_saving=desk.on_saving,
            )
        Inspector(desk)
        sandbox = Sandbox(desk)
    versions = Versions(desk, deploy)
    Topbar(desk, findings, deploy, versions, sandbox).draw()
    findings.draw_drawer()
    versions.draw()
    if debug:
        ui.timer(0.1, lambda: sandbox.debugger.bring(debug), once=True)


def _may_edit(session_id: str) -> bool:
    """Asked at every change: a role may have been taken away, or the person signed out."""
    live = current_auth().live(session_id)
    return live is not None and live.actor.may(Permission.EDIT)


def _act(desk: Desk, name: str, node: str) -> object:
    if name == "from":
        return desk.run_from(node)
    if name == "break":
        return desk.toggle_breakpoint(node)
    return desk.run_until(node) if name == "until" else None
