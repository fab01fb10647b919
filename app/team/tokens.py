"""Settings → API tokens: how programs sign in."""

from __future__ import annotations

from nicegui import ui

from app.auth import BadEntry
from app.people import TokenInfo
from app.permissions import Permission, current_actor, current_people, on
from app.pieces import button, confirm, empty_state, field_error, heading, relative_time
from runtime.policy import Role

ROLES = {str(role): str(role).capitalize() for role in Role}
DAYS = {7: "7 days", 30: "30 days", 90: "90 days", 365: "A year"}


class Ring:
    """The list of one open page."""

    def __init__(self) -> None:
        self.box = ui.element("div")

    async def refresh(self) -> None:
        """Show which tokens there are."""
        tokens = await current_people().tokens(current_actor())
        self.box.clear()
        with self.box:
            if not tokens:
                empty_state(
                    "vpn_key",
                    "No tokens yet",
                    "A token lets a program use the API in your team's name: start runs, read results, deploy. "
                    "It has a role and an end, and you can take it back at any time.",
                    (("Make a token", on(self.add, Permission.ADMIN)), ("Read about the API", "/api/docs")),
                )
                return
            with ui.element("div").classes("af-list"):
                for one in tokens:
                    self._row(one)

    def _row(self, one: TokenInfo) -> None:
        with ui.element("div").classes("af-row"):
            ui.icon("vpn_key").classes("af-muted").props("aria-hidden=true")
            with ui.element("div").classes("grow"):
                ui.label(one.name).classes("af-strong af-one-line")
                with ui.element("div").classes("af-muted af-small"):
                    ui.label(f"{ROLES[one.role]}, made ").classes("af-inline")
                    relative_time(one.created_at)
                    ui.label(", ends ").classes("af-inline")
                    relative_time(one.expires_at)
            gone = ui.button("Take back", on_click=on(lambda: self.revoke(one), Permission.ADMIN)).props("dense")
            gone.classes("af-secondary").mark(f"revoke-{one.name}")

    async def revoke(self, one: TokenInfo) -> None:
        """Ask, then end it."""
        with ui.context.client.content:
            sure = await confirm(
                f"Take back “{one.name}”?",
                "Programs that use it are refused from now on. It cannot be given out again.",
                yes="Take back",
            )
        if sure:
            await current_people().revoke_token(current_actor(), one.id)
            await self.refresh()

    def add(self) -> None:
        """A dialog for a new token."""
        with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog"):
            heading("Make a token", 2)
            name = (
                ui.input("What it is for", placeholder="Nightly import")
                .props("stack-label maxlength=100")
                .classes("w-full")
            )
            name.mark("token-name")
            role = ui.select(ROLES, value=str(Role.DEVELOPER), label="Role").classes("w-full")
            days = ui.select(DAYS, value=90, label="Lasts").classes("w-full")
            problem = ui.element("div")

            async def save() -> None:
                problem.clear()
                try:
                    token = await current_people().make_token(
                        current_actor(), name=name.value or "", role=Role(role.value), days=int(days.value)
                    )
                except BadEntry as wrong:
                    with problem:
                        field_error(wrong.message)
                    return
                dialog.close()
                _shown_once(token)
                await self.refresh()

            with ui.element("div").classes("af-actions w-full justify-end"):
                ui.button("Cancel", on_click=dialog.close).classes("af-secondary")
                ui.button("Make it", on_click=on(save, Permission.ADMIN)).mark("token-save")
        dialog.on("hide", dialog.delete)
        dialog.open()


def _shown_once(token: str) -> None:
    with ui.context.client.content, ui.dialog().props("persistent") as dialog, ui.card().classes("p-6 gap-4 af-dialog"):
        heading("Your token", 2)
        ui.label("Copy it now. It cannot be shown again. Programs send it as “Authorization: Bearer …”.").classes(
            "af-muted"
        )
        ui.label(token).classes("af-mono af-well break-words w-full").mark("token")
        with ui.element("div").classes("af-actions w-full justify-end"):
            ui.button("Copy", on_click=lambda: ui.clipboard.write(token)).classes("af-secondary")
            ui.button("Done", on_click=dialog.close)
    dialog.on("hide", dialog.delete)
    dialog.open()


async def build() -> None:
    """The list with a way to add."""
    ring: Ring
    with ui.element("div").classes("af-toolbar"):
        heading("API tokens", 2)
        ui.element("div").classes("af-space")
        button("Make a token", on(lambda: ring.add(), Permission.ADMIN), icon="add").mark("add-token")
    ring = Ring()
    await ring.refresh()
