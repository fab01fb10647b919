"""Agents as cards on the home page, with everything that can be done to one without opening it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from app.environments import deployment_chip
from app.gallery import fresh
from app.panel import show_panel, sure_to_stop
from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import field_error, heading, relative_time, status_chip, undo_toast
from app.sentences import listed, studio
from nodes.blueprint import MAX_BYTES, Blueprint
from nodes.errors import FactoryError
from runtime.environments import TEST
from runtime.views import BlueprintInfo, DeploymentInfo, RunInfo

Changed = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent with what is known around it."""

    info: BlueprintInfo
    deployment: DeploymentInfo | None
    last_run: RunInfo | None
    test: DeploymentInfo | None = None
    """Its deployment in test."""


def starts(agent: Agent) -> str:
    """What starts an agent, in words: its schedules, its addresses, or at least its triggers."""
    live = agent.deployment
    if live is not None and (live.schedules or live.addresses):
        return listed([*live.schedules, *live.addresses], most=2)
    if not agent.info.triggers:
        return "nothing starts it yet"
    return listed(agent.info.triggers)


class Card:
    """An agent: what it is, whether it is live, what starts it, what it did last."""

    def __init__(self, agent: Agent, changed: Changed) -> None:
        self._agent = agent
        self._changed = changed
        self.box = ui.element("article").classes("af-card af-agent").mark(f"agent-{agent.info.id}")
        self._draw()

    def update(self, agent: Agent) -> None:
        """Show what is different; a new run changes the foot alone, so that an open menu stays open."""
        before, self._agent = self._agent, agent
        if (before.info, before.deployment, before.test) != (agent.info, agent.deployment, agent.test):
            self.box.clear()
            self._draw()
        elif before.last_run != agent.last_run:
            self._foot.clear()
            with self._foot:
                _last_run(agent)

    def _draw(self) -> None:
        with self.box:
            _body(self._agent, self._changed)
            with ui.element("div").classes("af-agent-foot") as self._foot:
                _last_run(self._agent)


def _body(agent: Agent, changed: Changed) -> None:
    info = agent.info
    with ui.element("div").classes("af-agent-head"):
        with ui.element("h3").classes("af-one-line"):
            ui.link(info.name, studio(info.id)).classes("af-stretched").mark(f"open-{info.id}")
        _menu(agent, changed)
    with ui.element("div").classes("af-agent-state"):
        status_chip(info.deployment)
        if info.deployed_version is not None:
            ui.label(f"version {info.deployed_version}").classes("af-muted af-small shrink-0")
        if agent.test is not None:
            deployment_chip(agent.test.state, TEST)
        with ui.element("span").classes("af-agent-edited af-muted af-small af-one-line"):
            ui.label("edited ").classes("af-inline")
            relative_time(info.updated_at)
            ui.label(f" by {info.updated_by}").classes("af-inline")
    words = info.description.strip() or "No description yet."
    ui.label(words).classes("af-agent-words" + ("" if info.description.strip() else " af-muted"))
    with ui.element("div").classes("af-agent-start"):
        ui.icon("bolt").props("aria-hidden=true")
        ui.label(starts(agent)).classes("af-one-line").props('aria-label="Started by"')


def _last_run(agent: Agent) -> None:
    if agent.last_run is None:
        ui.label("Has not run yet").classes("af-muted")
        return
    with ui.link(target=f"/runs/{agent.last_run.id}").classes("af-over af-plain-link"):
        status_chip(agent.last_run.state)
        relative_time(agent.last_run.started_at)


def _menu(agent: Agent, changed: Changed) -> None:
    info, who = agent.info, current_actor()
    more = ui.button(icon="more_vert").props("flat round dense")
    more.props["aria-label"] = f"More for {info.name}"
    more.classes("af-quiet af-over shrink-0").mark(f"more-{info.id}")
    with more, ui.menu().props("auto-close anchor='bottom right' self='top right'"):
        ui.menu_item("Open", on(lambda: ui.navigate.to(studio(info.id))))
        ui.menu_item("Its runs", on(lambda: ui.navigate.to(f"/runs?agent={info.id}")))
        if agent.deployment is not None or agent.test is not None:
            ui.menu_item("How it is doing", on(lambda: show_panel(info.id, info.name, changed))).mark(
                f"doing-{info.id}"
            )
        if who.may(Permission.RUN):
            ui.menu_item("Run now", on(lambda: run_now(info), Permission.RUN))
        if who.may(Permission.DEPLOY) and (live := agent.deployment) is not None:
            _deployment_items(info, live, changed)
        if who.may(Permission.EDIT):
            ui.separator()
            ui.menu_item("Rename", on(lambda: rename(info.id, changed), Permission.EDIT)).mark(f"rename-{info.id}")
            ui.menu_item("Duplicate", on(lambda: duplicate(info, changed), Permission.EDIT)).mark(f"copy-{info.id}")
        ui.menu_item("Export", on(lambda: export(info)))
        if who.may(Permission.EDIT):
            ui.separator()
            gone = ui.menu_item("Delete", on(lambda: delete(info, changed), Permission.EDIT)).classes("af-bad")
            gone.mark(f"delete-{info.id}")


def _deployment_items(info: BlueprintInfo, live: DeploymentInfo, changed: Changed) -> None:
    services = current_factory().deployments

    async def act(service: Callable[..., Awaitable[Any]], said: str, **how: Any) -> None:
        await service(current_actor(), live.id, **how)
        ui.notify(f"“{info.name}” {said}.", type="positive")
        await changed()

    def item(title: str, service: Callable[..., Awaitable[Any]], said: str, **how: Any) -> None:
        ui.menu_item(title, on(lambda: act(service, said, **how), Permission.DEPLOY))

    async def stop() -> None:
        if await sure_to_stop(live):
            await act(services.stop, "is not live any more", drop_held=True)

    ui.separator()
    if live.state == "active":
        item("Pause, keep calls for later", services.pause, "is paused and keeps its calls", hold=True)
        item("Pause, refuse calls", services.pause, "takes no new runs")
    else:
        item("Resume", services.resume, "takes runs again")
    if live.previous is not None:
        item(f"Roll back to version {live.previous}", services.rollback, f"is on version {live.previous} again")
    ui.menu_item("Stop", on(stop, Permission.DEPLOY))


async def draw() -> None:
    """Make an empty agent and open it on the canvas."""
    draft = await current_factory().blueprints.create(current_actor())
    ui.navigate.to(studio(draft.id))


async def run_now(info: BlueprintInfo) -> None:
    """Run it on what came in last, or on its sample, and show the run."""
    run_id = await current_factory().runs.start(current_actor(), info.id)
    ui.navigate.to(f"/runs/{run_id}")


async def duplicate(info: BlueprintInfo, changed: Changed) -> None:
    """A copy with addresses of its own."""
    factory, who = current_factory(), current_actor()
    draft = await factory.blueprints.get(who, info.id)
    copy = fresh(draft.blueprint, factory.catalog, name=f"{info.name[:112]} (copy)")
    await factory.blueprints.create(who, copy)
    ui.notify(f"“{copy.name}” is ready.", type="positive")
    await changed()


async def export(info: BlueprintInfo) -> None:
    """The document as a file."""
    draft = await current_factory().blueprints.get(current_actor(), info.id)
    kept = "".join(c if c.isalnum() or c in "-_" else "-" for c in info.name.lower()).strip("-")[:60] or "agent"
    ui.download.content(draft.blueprint.canonical(), f"{kept}.json", "application/json")


async def delete(info: BlueprintInfo, changed: Changed) -> None:
    """Into the bin, with a way back right there."""
    await current_factory().blueprints.delete(current_actor(), info.id)

    async def undo() -> None:
        await current_factory().blueprints.undelete(current_actor(), info.id)
        await changed()

    undo_toast(f"“{info.name}” is in the bin.", undo)
    await changed()


async def rename(blueprint_id: str, changed: Changed) -> None:
    """Ask for a new name and description."""
    draft = await current_factory().blueprints.get(current_actor(), blueprint_id)
    with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog"):
        heading("Rename", 2)
        name = ui.input("Name", value=draft.blueprint.name).props("maxlength=120 autofocus").classes("w-full")
        about = ui.textarea("What it is for", value=draft.blueprint.description).props("maxlength=5000 autogrow")
        about.classes("w-full")
        problem = ui.element("div")

        async def save() -> None:
            problem.clear()
            if not (name.value or "").strip():
                with problem:
                    field_error("Give the agent a name.")
                return
            service, who = current_factory().blueprints, current_actor()
            now = await service.get(who, blueprint_id)
            changes = {"name": name.value.strip()[:120], "description": (about.value or "").strip()[:5000]}
            await service.save(who, blueprint_id, now.blueprint.model_copy(update=changes), revision=now.revision)
            dialog.close()
            await changed()

        name.on("keydown.enter", on(save, Permission.EDIT))
        with ui.element("div").classes("af-actions w-full justify-end"):
            ui.button("Cancel", on_click=dialog.close).classes("af-secondary")
            ui.button("Save", on_click=on(save, Permission.EDIT))
    dialog.on("hide", dialog.delete)
    dialog.open()


def import_dialog() -> None:
    """Take in an agent that was exported: from a file, or pasted."""
    with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog"):
        heading("Import an agent", 2)
        ui.label("It arrives as a draft: nothing runs and nothing is called until you deploy it.").classes("af-muted")
        problem = ui.element("div").classes("w-full")

        async def take(text: bytes | str) -> None:
            problem.clear()
            try:
                document = Blueprint.parse(text)
            except FactoryError as wrong:
                with problem:
                    field_error(f"{wrong.message} {wrong.fix or ''}".strip())
                return
            draft = await current_factory().blueprints.create(current_actor(), document)
            dialog.close()
            ui.navigate.to(studio(draft.id))

        async def uploaded(event: Any) -> None:
            await take(await event.file.read())

        async def pasted() -> None:
            await take(text.value or "")

        upload = ui.upload(
            label="Choose a file, or drop it here",
            auto_upload=True,
            max_files=1,
            max_file_size=MAX_BYTES,
            on_upload=on(uploaded, Permission.EDIT),
            on_rejected=on(lambda: ui.notify("That file is too large or not JSON.", type="warning")),
        )
        upload.props('accept=".json,application/json" flat bordered').classes("w-full").mark("import-file")
        text = ui.textarea("Or paste its JSON here").props("rows=6 input-class=af-mono").classes("w-full")
        text.mark("import-text")
        with ui.element("div").classes("af-actions w-full justify-end"):
            ui.button("Cancel", on_click=dialog.close).classes("af-secondary")
            ui.button("Import", on_click=on(pasted, Permission.EDIT)).mark("import")
    dialog.on("hide", dialog.delete)
    dialog.open()


async def bin_dialog(changed: Changed) -> None:
    """What was deleted, with a way back."""
    deleted = await current_factory().blueprints.list(current_actor(), deleted=True)
    with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog"):
        heading("Bin", 2)
        if not deleted:
            ui.label("The bin is empty. Agents that you delete wait here, with all their versions.").classes("af-muted")
        with ui.element("div").classes("af-list af-scroll"):
            for info in deleted:
                _binned(info, dialog, changed)
        with ui.element("div").classes("af-actions w-full justify-end"):
            ui.button("Close", on_click=dialog.close).classes("af-secondary")
    dialog.on("hide", dialog.delete)
    dialog.open()


def _binned(info: BlueprintInfo, dialog: ui.dialog, changed: Changed) -> None:
    async def restore() -> None:
        await current_factory().blueprints.undelete(current_actor(), info.id)
        ui.notify(f"“{info.name}” is back.", type="positive")
        dialog.close()
        await changed()

    with ui.element("div").classes("af-row"):
        ui.label(info.name).classes("af-one-line grow")
        if current_actor().may(Permission.EDIT):
            ui.button("Restore", on_click=on(restore, Permission.EDIT)).props("dense").classes("af-secondary")
