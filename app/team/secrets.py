"""Settings → Secrets: names that steps refer to. A value goes in and never comes out again."""

from __future__ import annotations

from nicegui import ui

from app.environments import PLACES, environment_chip
from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import button, confirm, empty_state, field_error, heading, relative_time
from nodes.errors import FactoryError
from runtime.environments import SHARED
from runtime.vault import SecretInfo


class Cabinet:
    """The list of one open page."""

    def __init__(self) -> None:
        self.box = ui.element("div")

    async def refresh(self) -> None:
        """Show which secrets there are."""
        names = await current_factory().vault.names(current_actor())
        may = current_actor().may(Permission.SECRETS)
        self.box.clear()
        with self.box:
            if not names:
                add = (("Add a secret", on(lambda: self.ask(), Permission.SECRETS)),) if may else ()
                empty_state(
                    "key",
                    "No secrets yet",
                    "A secret is a key or password that steps need, such as the key of a service. Steps name it; its "
                    "value is kept encrypted, and nobody can read it back: not you, not an agent.",
                    add,
                )
                return
            with ui.element("div").classes("af-list"):
                for one in names:
                    self._row(one, may)

    def _row(self, one: SecretInfo, may: bool) -> None:
        with ui.element("div").classes("af-row"):
            ui.icon("key").classes("af-muted").props("aria-hidden=true")
            with ui.element("div").classes("grow"):
                ui.label(one.name).classes("af-strong af-one-line")
                with ui.element("div").classes("af-muted af-small"):
                    ui.label(f"set by {one.updated_by} ").classes("af-inline")
                    relative_time(one.updated_at)
            environment_chip(one.environment)
            ui.label("••••••••").classes("af-muted").props('aria-label="hidden"')
            if may:
                ui.button("Replace", on_click=on(lambda: self.ask(one), Permission.SECRETS)).props("dense").classes(
                    "af-secondary"
                )
                gone = ui.button(icon="delete", on_click=on(lambda: self.delete(one), Permission.SECRETS))
                gone.props("flat round dense").classes("af-quiet").mark(f"delete-{one.name}")
                gone.props["aria-label"] = f"Delete {one.name}"

    def ask(self, known: SecretInfo | None = None) -> None:
        """A dialog for a new value, of a new secret or a known one."""
        name = known.name if known else ""
        with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog"):
            heading(f"Replace “{name}”" if name else "Add a secret", 2)
            named = ui.input("Name", value=name, placeholder="Orders key").props(
                "stack-label maxlength=100 autocomplete=off"
            )
            named.classes("w-full").mark("secret-name").set_enabled(not name)
            value = ui.input("Value", password=True).props("autocomplete=new-password maxlength=32768")
            value.classes("w-full").mark("secret-value")
            place = ui.select(PLACES, value=known.environment if known else SHARED, label="Counts in")
            place.classes("w-full").mark("secret-place").set_enabled(known is None)
            ui.label(
                "With a value of its own, test never uses the key of live. One that is set for live only is missing in test."
            ).classes("af-muted af-small")
            ui.label("Kept encrypted. Once saved it cannot be shown again.").classes("af-muted af-small")
            problem = ui.element("div")

            async def save() -> None:
                problem.clear()
                try:
                    await current_factory().vault.put(
                        current_actor(),
                        (named.value or "").strip(),
                        value.value or "",
                        environment=str(place.value),
                    )
                except FactoryError as wrong:
                    if wrong.status != 422:
                        raise
                    with problem:
                        field_error(wrong.message)
                    return
                value.value = ""
                dialog.close()
                await self.refresh()

            value.on("keydown.enter", on(save, Permission.SECRETS))
            with ui.element("div").classes("af-actions w-full justify-end"):
                ui.button("Cancel", on_click=dialog.close).classes("af-secondary")
                ui.button("Save", on_click=on(save, Permission.SECRETS)).mark("secret-save")
        dialog.on("hide", dialog.delete)
        dialog.open()

    async def delete(self, one: SecretInfo) -> None:
        """Ask, then forget it."""
        with ui.context.client.content:
            sure = await confirm(
                f"Delete “{one.name}”?",
                "Steps that use it fail from now on. It cannot be brought back, only set again.",
            )
        if sure:
            await current_factory().vault.delete(current_actor(), one.name, environment=one.environment)
            await self.refresh()


async def build() -> None:
    """The list with a way to add."""
    cabinet: Cabinet
    with ui.element("div").classes("af-toolbar"):
        heading("Secrets", 2)
        ui.element("div").classes("af-space")
        if current_actor().may(Permission.SECRETS):
            button("Add a secret", on(lambda: cabinet.ask(), Permission.SECRETS), icon="add").mark("add-secret")
    cabinet = Cabinet()
    await cabinet.refresh()
    if not current_actor().may(Permission.SECRETS):
        ui.label("Admins add and replace secrets.").classes("af-muted af-small mt-4")
