"""Fields that name something kept elsewhere: a secret, another agent, a file, a table, a public address, the model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import background_tasks, ui
from nicegui.events import UploadEventArguments

from app.environments import PLACES
from app.permissions import on
from app.pieces import heading, notice
from app.studio.desk import Desk, tell, titled_input
from app.studio.form import UNSET, Form, Spec
from app.studio.rooms import public_address
from nodes.errors import FactoryError
from runtime.environments import SHARED
from runtime.policy import Permission


def secret_field(form: Form, spec: Spec) -> None:
    """Secrets are chosen by name; their values are never shown."""
    desk = form.desk
    with form.head(spec):
        if form.editable and desk.may(Permission.SECRETS):

            async def added(name: str) -> None:
                made.set_options({**dict(made.options), name: name}, value=name)

            ui.button(
                "Add a secret", icon="add", on_click=on(lambda: add_secret(desk, added), Permission.SECRETS)
            ).props("flat dense").classes("st-mini")

    async def names() -> dict[str, str]:
        return {secret.name: secret.name for secret in await desk.factory.vault.names(desk.who)}

    made = _select(form, spec, names, empty="No secret is kept yet. An admin adds them here or in Settings.")


async def add_secret(desk: Desk, added: Callable[[str], Awaitable[None]]) -> None:
    """Ask for a name and a value, keep it, and never show it again."""
    with desk.place, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 st-dialog"):
        heading("Add a secret", 2)
        ui.label("It is kept encrypted. Nobody can read it back, also not you; it can only be replaced.").classes(
            "af-muted"
        )
        name = titled_input("Name", placeholder="shop_key").classes("w-full").mark("secret-name")
        value = titled_input("Value").props("type=password autocomplete=off").classes("w-full").mark("secret-value")
        place = ui.select(PLACES, value=SHARED, label="Counts in").classes("w-full").mark("secret-place")
        with ui.element("div").classes("af-actions w-full justify-end mt-4"):
            ui.button("Cancel", on_click=lambda: dialog.submit(False)).classes("af-secondary")
            ui.button("Keep it", on_click=lambda: dialog.submit(True)).mark("keep-secret")
    try:
        if await dialog:
            await desk.factory.vault.put(
                desk.who, (name.value or "").strip(), value.value or "", environment=str(place.value)
            )
            await added((name.value or "").strip())
            tell("The secret is kept.", good=True)
    finally:
        if not dialog.is_deleted:
            dialog.delete()


def agent_field(form: Form, spec: Spec) -> None:
    """Another agent of the team."""
    desk = form.desk
    form.head(spec)

    async def names() -> dict[str, str]:
        return {one.id: one.name for one in await desk.factory.blueprints.list(desk.who) if one.id != desk.id}

    _select(form, spec, names, empty="There is no other agent yet.")


def table_field(form: Form, spec: Spec) -> None:
    """A table of the team; a new name makes a new table."""
    desk = form.desk
    form.head(spec)

    async def names() -> dict[str, str]:
        return {table.name: table.name for table in await desk.factory.shelves.tables(desk.who)}

    _select(form, spec, names, empty="Type the name of a table.", free=True)


def file_field(form: Form, spec: Spec) -> None:
    """A file of the team, chosen or uploaded."""
    desk = form.desk
    form.head(spec)

    async def names() -> dict[str, str]:
        return {file.name: file.name for file in await desk.factory.shelves.files(desk.who)}

    made = _select(form, spec, names, empty="No file is kept yet: upload one.")

    async def uploaded(event: UploadEventArguments) -> None:
        content = await event.file.read()
        media_type = event.file.content_type or "application/octet-stream"
        info = await desk.factory.shelves.put_file(desk.who, event.file.name, content, media_type)
        made.set_options({**dict(made.options), info.name: info.name}, value=info.name)
        tell(f"“{info.name}” is uploaded.", good=True)

    if form.editable:
        upload = ui.upload(
            on_upload=on(uploaded, Permission.EDIT), auto_upload=True, max_files=1, max_file_size=20 * 1024 * 1024
        ).classes("hidden")
        ui.button("Upload a file", icon="upload", on_click=lambda: upload.run_method("pickFiles")).props(
            "flat dense"
        ).classes("st-add")


def path_field(form: Form, spec: Spec) -> None:
    """The last part of a public address, with the whole of it to copy."""
    form.head(spec)
    prefix = str(spec.schema.get("prefix", "/"))
    base = public_address()

    def change(event: Any) -> None:
        form.put(spec.path, event.value or "")
        show(event.value or "")

    made = ui.input(value=str(spec.value or ""), on_change=on(change, Permission.EDIT))
    made.props(f'debounce=250 prefix="{prefix}"').classes("w-full").mark(f"input-{'.'.join(map(str, spec.path))}")
    made.props["aria-label"] = spec.title
    if not form.editable:
        made.props("readonly")
    with ui.element("div").classes("st-address"):
        whole = ui.label().classes("st-address-text")
        copy = copy_button("")

    def show(path: str) -> None:
        address = f"{base}{prefix}{path}"
        whole.set_text(address)
        copy.props["data-copy"] = address
        copy.update()

    show(str(spec.value or ""))


def copy_button(text: str, label: str = "Copy") -> ui.element:
    """A button that copies in the browser, without asking the server."""
    with ui.element("button").classes("st-copy").props(f'type=button aria-label="{label}"') as made:
        ui.icon("content_copy").props("aria-hidden=true")
    made.props["data-copy"] = text
    return made


def model_field(form: Form, spec: Spec) -> None:
    """The model, and what to do when none is set up."""
    desk = form.desk
    form.head(spec)
    made = ui.input(
        value=str(spec.value or ""),
        placeholder=spec.placeholder,
        on_change=on(lambda event: form.put(spec.path, event.value or ""), Permission.EDIT),
    )
    made.props("debounce=250").classes("w-full").mark(f"input-{'.'.join(map(str, spec.path))}")
    made.props["aria-label"] = spec.title
    if not form.editable:
        made.props("readonly")
    box = ui.element("div").classes("w-full")

    async def say() -> None:
        chosen = (await desk.factory.preferences.model(desk.who)).model or desk.factory.options.model
        with box:
            if chosen:
                ui.label(f"Set up: {chosen}").classes("st-words")
                return
            notice(
                "No model is set up. Tests give a marked sample answer, and a deployed run stops here with an error. "
                "An admin sets one up in Settings → Model.",
                tone="warn",
                icon="psychology",
            ).mark("no-model")
            ui.link("Open Settings → Model", "/settings/model").classes("st-words")

    _later(box, say)


def _select(
    form: Form, spec: Spec, names: Callable[[], Awaitable[dict[str, str]]], *, empty: str, free: bool = False
) -> ui.select:
    value = str(spec.value or "") or None

    def read(given: Any) -> Any:
        return given if given else ("" if spec.required or spec.schema.get("default") == "" else UNSET)

    made = ui.select(
        {value: value} if value else {},
        value=value,
        with_input=True,
        clearable=not spec.required,
        new_value_mode="add-unique" if free else None,
        on_change=on(lambda event: form.put(spec.path, read(event.value)), Permission.EDIT),
    )
    made.props("options-dense hide-selected fill-input").classes("w-full").mark(
        f"input-{'.'.join(map(str, spec.path))}"
    )
    made.props["aria-label"] = spec.title
    made.set_enabled(form.editable)
    hint = ui.label().classes("st-words")

    def show_hint() -> None:
        hint.set_text("" if made.options else empty)

    made.on_value_change(show_hint)

    async def fill() -> None:
        known = await names()
        if value and value not in known:
            known = {value: f"{value} (not found)" if not free else value, **known}
        made.set_options(known, value=value)
        show_hint()

    _later(made, fill)
    return made


def _later(owner: ui.element, work: Callable[[], Awaitable[None]]) -> None:
    """Ask a service without keeping the form waiting."""

    async def run() -> None:
        if owner.is_deleted:
            return
        with owner:
            try:
                await work()
            except FactoryError as problem:
                tell(problem.message)

    background_tasks.create(run(), name="fill a field")
