"""What belongs to the whole agent: name, description, time zone, allowed hosts, variables; and its JSON, out and in."""

from __future__ import annotations

from typing import Any

import orjson
from nicegui import ui
from nicegui.events import UploadEventArguments

from app.permissions import on
from app.pieces import heading
from app.studio.desk import Desk, tell, titled_input, titled_text
from app.studio.fields import zone_select
from app.studio.words import as_json, json_problem
from nodes.blueprint import MAX_BYTES, Blueprint
from nodes.errors import FactoryError
from runtime.policy import Permission

PRIORITIES = {"low": "Low", "normal": "Normal", "high": "High"}


async def agent_settings(desk: Desk) -> None:
    """Ask for everything at once, and keep it as one step that can be undone."""
    blueprint = desk.blueprint
    editable = desk.editor.may_edit()
    agents = {one.id: one.name for one in await desk.factory.blueprints.list(desk.who) if one.id != desk.id}
    with desk.place, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 st-dialog is-wide").mark("agent-settings"):
        heading("Agent settings", 2)
        name = (
            titled_input("Name", value=blueprint.name).props("maxlength=120").classes("w-full").mark("agent-name-field")
        )
        about = (
            titled_text("Description", value=blueprint.description, placeholder="What is it for, and for whom?")
            .props("autogrow rows=2 maxlength=5000")
            .classes("w-full")
        )
        ui.label("Time zone").classes("st-title")
        zone = zone_select(blueprint.time_zone, lambda event: None, editable=editable)
        ui.label("What “now” and dates mean in its formulas. Schedules have a time zone of their own.").classes(
            "st-help"
        )
        ui.label("Allowed hosts").classes("st-title")
        hosts = (
            ui.textarea(value="\n".join(blueprint.allowed_hosts), placeholder="api.example.com")
            .props('autogrow rows=2 aria-label="Allowed hosts"')
            .classes("w-full")
            .mark("hosts")
        )
        ui.label(
            "One a line, such as api.example.com or *.example.com. With any listed, the agent calls only these."
        ).classes("st-help")
        with ui.element("div").classes("flex flex-nowrap gap-4 w-full mt-2"):
            at_once = ui.number("Runs at once", value=blueprint.concurrency or None, min=1, max=200, precision=0)
            at_once.props('stack-label placeholder="As many as your team may have"').classes("grow").mark("concurrency")
            first = ui.select(PRIORITIES, value=blueprint.priority, label="Priority").classes("grow").mark("priority")
            first.set_enabled(editable)
        ui.label(
            "More runs than that wait for their turn. A high priority gets more turns when several agents wait."
        ).classes("st-help")
        told = _failure_agent(blueprint.on_failure, agents, editable)
        variables = _Variables(blueprint, editable)
        with ui.element("div").classes("af-actions w-full mt-4"):

            async def take_in() -> None:
                dialog.close()
                await import_json(desk)

            ui.button("Export JSON", icon="download", on_click=on(lambda: export(desk))).classes("af-secondary").mark(
                "export"
            )
            if editable:
                ui.button("Import JSON", icon="upload", on_click=on(take_in, Permission.EDIT)).classes(
                    "af-secondary"
                ).mark("import")
            ui.element("div").classes("af-space")
            ui.button("Cancel" if editable else "Close", on_click=dialog.close).classes("af-secondary")

            def keep() -> None:
                patch: dict[str, Any] = {
                    "name": str(name.value or "").strip() or blueprint.name,
                    "description": str(about.value or ""),
                    "time_zone": str(zone.value or "UTC"),
                    "allowed_hosts": [line.strip() for line in str(hosts.value or "").splitlines() if line.strip()],
                    "concurrency": int(at_once.value or 0),
                    "priority": first.value,
                    "variables": variables.read(),
                    "on_failure": str(told.value or ""),
                }
                now = desk.blueprint.model_dump(mode="json")
                patch = {key: value for key, value in patch.items() if now[key] != value}
                if patch:
                    desk.change({"op": "set_blueprint", "patch": patch})
                dialog.close()

            if editable:
                ui.button("Keep", on_click=on(keep, Permission.EDIT)).mark("keep-settings")
    if not editable:
        for field in (name, about, hosts, at_once):
            field.props("readonly")
    dialog.on("hide", dialog.delete)
    dialog.open()


def _failure_agent(chosen: str, agents: dict[str, str], editable: bool) -> ui.select:
    """The agent that is started when a run of this one has failed for good."""
    ui.label("If a run fails, start this agent").classes("st-title")
    options = {"": "None"} | agents
    if chosen not in options:
        options[chosen] = "An agent that does not exist any more"
    made = ui.select(options, value=chosen, with_input=len(options) > 12).classes("w-full").mark("failure-agent")
    made.props('options-dense aria-label="If a run fails, start this agent"')
    made.set_enabled(editable)
    ui.label(
        "It is given the run, the step, the error and what came in, for instance to tell somebody. If it fails itself, "
        "nothing more is started."
    ).classes("st-help")
    return made


class _Variables:
    """Rows of a name, a value as JSON, and what it is for."""

    def __init__(self, blueprint: Blueprint, editable: bool) -> None:
        self.rows = [[one.name, _typed_as(one.value), one.description] for one in blueprint.variables]
        self.editable = editable
        ui.label("Variables").classes("st-title")
        ui.label("Values that formulas use as vars.name. A value is text, a number, true or false, or JSON.").classes(
            "st-help"
        )
        self._box = ui.element("div").classes("st-rows")
        self._fill()

    def _fill(self) -> None:
        self._box.clear()
        with self._box:
            for number, row in enumerate(self.rows):
                with ui.element("div").classes("st-pair is-three"):
                    for side, hint in enumerate(("Name", "Value", "What it is for")):
                        made = ui.input(
                            value=row[side],
                            placeholder=hint,
                            on_change=on(lambda event, n=number, s=side: self._write(n, s, event.value)),
                        )
                        made.props(f'aria-label="{hint} of variable {number + 1}"').mark(f"variable-{number}-{side}")
                        if not self.editable:
                            made.props("readonly")
                    if self.editable:
                        ui.button(icon="close", on_click=on(lambda n=number: self._remove(n))).props(
                            f'flat dense round aria-label="Remove variable {number + 1}"'
                        ).classes("st-tool")
            if self.editable:
                ui.button("Add a variable", icon="add", on_click=on(self._add)).props("flat dense").classes(
                    "st-add"
                ).mark("add-variable")

    def _write(self, number: int, side: int, value: Any) -> None:
        self.rows[number][side] = str(value or "")

    def _remove(self, number: int) -> None:
        self.rows.pop(number)
        self._fill()

    def _add(self) -> None:
        self.rows.append(["", "", ""])
        self._fill()

    def read(self) -> list[dict[str, Any]]:
        """The variables as the document keeps them."""
        return [
            {"name": name.strip(), "value": _read(value), "description": about}
            for name, value, about in self.rows
            if name.strip()
        ]


def _typed_as(value: Any) -> str:
    """A value as it would be typed: a text as it is, unless it would then be read as something else."""
    return value if isinstance(value, str) and _read(value) == value else as_json(value)


def _read(text: str) -> Any:
    value, _, problem = json_problem(text)
    return text if problem or not text.strip() else value


def export(desk: Desk) -> None:
    """Give the document as a file."""
    blueprint = desk.blueprint
    stem = "".join(char if char.isalnum() else "-" for char in blueprint.name.lower()).strip("-")[:60] or "agent"
    content = orjson.dumps(blueprint.model_dump(mode="json"), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    ui.download.content(content, f"{stem}.json", "application/json")


async def import_json(desk: Desk) -> None:
    """Put another document's nodes in place of these, as one step that can be undone. Nothing in it is run."""
    with desk.place, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 st-dialog is-wide"):
        heading("Import JSON", 2)
        ui.label(
            "It takes the place of what is drawn now; Undo brings that back. Nothing is run by importing."
        ).classes("af-muted")
        text = (
            ui.textarea(placeholder='{"nodes": […], "edges": […]}')
            .props('rows=8 input-class=af-mono aria-label="JSON of an agent"')
            .classes("w-full")
            .mark("import-text")
        )

        async def uploaded(event: UploadEventArguments) -> None:
            text.set_value((await event.file.read()).decode("utf-8", "replace"))

        upload = (
            ui.upload(on_upload=on(uploaded, Permission.EDIT), auto_upload=True, max_files=1, max_file_size=MAX_BYTES)
            .props("accept=.json")
            .classes("hidden")
        )
        with ui.element("div").classes("af-actions w-full mt-4"):
            ui.button("Choose a file", icon="upload_file", on_click=lambda: upload.run_method("pickFiles")).classes(
                "af-secondary"
            )
            ui.element("div").classes("af-space")
            ui.button("Cancel", on_click=dialog.close).classes("af-secondary")

            def take() -> None:
                replace(desk, Blueprint.parse(str(text.value or "")))
                dialog.close()

            ui.button("Import", on_click=on(take, Permission.EDIT)).mark("import-now")
    dialog.on("hide", dialog.delete)
    dialog.open()


def replace(desk: Desk, wanted: Blueprint) -> None:
    """Make the drawing equal to a document by operations, so that undo takes it back."""
    now = desk.blueprint
    ops: list[dict[str, Any]] = [{"op": "remove_group", "id": group.id} for group in now.groups]
    ops += [{"op": "remove_node", "id": node.id} for node in now.nodes]
    ops += [{"op": "remove_note", "id": note.id} for note in now.notes]
    ops += [{"op": "add_node", "node": node.model_dump(mode="json")} for node in wanted.nodes]
    ops += [{"op": "add_edge", "edge": edge.model_dump(mode="json")} for edge in wanted.edges]
    ops += [{"op": "add_note", "note": note.model_dump(mode="json")} for note in wanted.notes]
    ops += [{"op": "add_group", "group": group.model_dump(mode="json")} for group in wanted.groups]
    said = wanted.model_dump(mode="json")
    patch = {
        key: said[key]
        for key in (
            "name",
            "description",
            "time_zone",
            "allowed_hosts",
            "variables",
            "concurrency",
            "priority",
            "on_failure",
        )
    }
    ops.append({"op": "set_blueprint", "patch": patch})
    if not wanted.nodes and not wanted.notes:
        raise FactoryError("This agent has no nodes, so there is nothing to import.", code="import.empty", status=422)
    desk.change(*ops)
    desk.fit_soon()
    tell(f"“{wanted.name}” is imported.", good=True)
