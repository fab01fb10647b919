"""Settings → People: who is in the team and what each of them may do."""

from __future__ import annotations

import secrets

from nicegui import ui

from app.auth import BadEntry
from app.people import PersonInfo
from app.permissions import Permission, current_actor, current_people, current_session, on
from app.pieces import button, confirm, field_error, heading, notice, relative_time
from app.theme import ROLE_WORDS
from nodes.errors import FactoryError
from runtime.policy import Role

ROLES = {str(role): str(role).capitalize() for role in Role}


class Roster:
    """The list of one open page."""

    def __init__(self) -> None:
        self.box = ui.element("div")

    async def refresh(self) -> None:
        """Show who is there."""
        people = await current_people().everybody(current_actor())
        may = current_actor().may(Permission.ADMIN)
        self.box.clear()
        with self.box, ui.element("div").classes("af-list"):
            for one in people:
                self._row(one, may)

    def _row(self, one: PersonInfo, may: bool) -> None:
        me = one.id == current_actor().id
        with ui.element("div").classes("af-row" + (" is-off" if one.disabled else "")).mark(f"person-{one.email}"):
            with ui.element("div").classes("grow"):
                with ui.element("div").classes("flex items-center gap-2"):
                    ui.label(one.name).classes("af-strong af-one-line")
                    if me:
                        ui.label("you").classes("af-chip")
                    if one.disabled:
                        ui.label("locked out").classes("af-chip is-bad")
                with ui.element("div").classes("af-muted af-small af-one-line"):
                    if one.seen_at is None:
                        ui.label(one.email)
                    else:
                        ui.label(f"{one.email}, signed in ").classes("af-inline")
                        relative_time(one.seen_at)
            if not may or me:
                ui.label(ROLES[one.role]).classes("af-muted")
                return

            async def role(event: object) -> None:
                try:
                    await current_people().set_role(current_actor(), one.id, Role(str(getattr(event, "value", ""))))
                finally:
                    await self.refresh()

            chosen = ui.select(ROLES, value=str(one.role), on_change=on(role, Permission.ADMIN)).classes("af-role")
            chosen.props["aria-label"] = f"Role of {one.name}"
            more = ui.button(icon="more_vert").props("flat round dense").classes("af-quiet")
            more.props["aria-label"] = f"More for {one.name}"
            with more, ui.menu().props("auto-close anchor='bottom right' self='top right'"):
                ui.menu_item("Give a new password", on(lambda: self.password(one), Permission.ADMIN))
                words = "Let in again" if one.disabled else "Lock out"
                ui.menu_item(words, on(lambda: self.lock(one), Permission.ADMIN))

    async def lock(self, one: PersonInfo) -> None:
        """Lock somebody out after asking, or let them in again."""
        if not one.disabled:
            with ui.context.client.content:
                sure = await confirm(
                    f"Lock out {one.name}?",
                    "They are signed out at once, everywhere. What they made stays, and you can let them in again.",
                    yes="Lock out",
                    no="Keep",
                )
            if not sure:
                return
        await current_people().set_disabled(current_actor(), one.id, not one.disabled)
        await self.refresh()

    async def password(self, one: PersonInfo) -> None:
        """A new password, shown this once."""
        made = new_password()
        await current_people().give_password(current_actor(), one.id, made)
        shown_once(f"A new password for {one.name}", one.email, made)

    def add(self) -> None:
        """A dialog for somebody new."""
        with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog"):
            heading("Add somebody", 2)
            name = ui.input("Name").props("maxlength=100 autocomplete=off").classes("w-full").mark("person-name")
            email = ui.input("E-mail").props("type=email maxlength=254 autocomplete=off").classes("w-full")
            email.mark("person-email")
            role = ui.select(ROLES, value=str(Role.DEVELOPER), label="Role").classes("w-full").mark("person-role")
            about = ui.label(ROLE_WORDS[str(Role.DEVELOPER)]).classes("af-muted af-small")
            role.on_value_change(on(lambda event: about.set_text(ROLE_WORDS[event.value])))
            ui.label("They get a password that you pass on. It is shown once.").classes("af-muted af-small")
            problem = ui.element("div")

            async def save() -> None:
                problem.clear()
                made = new_password()
                try:
                    await current_people().add(
                        current_actor(),
                        name=name.value or "",
                        email=email.value or "",
                        password=made,
                        role=Role(role.value),
                    )
                except FactoryError as wrong:
                    if not isinstance(wrong, BadEntry) and wrong.status not in (409, 422):
                        raise
                    with problem:
                        field_error(f"{wrong.message} {wrong.fix or ''}".strip())
                    return
                dialog.close()
                shown_once(f"{name.value} can sign in now", email.value or "", made)
                await self.refresh()

            with ui.element("div").classes("af-actions w-full justify-end"):
                ui.button("Cancel", on_click=dialog.close).classes("af-secondary")
                ui.button("Add", on_click=on(save, Permission.ADMIN)).mark("person-save")
        dialog.on("hide", dialog.delete)
        dialog.open()


def new_password() -> str:
    """A password that nobody has to think up."""
    return "-".join(secrets.token_hex(3) for _ in range(4))


def shown_once(title: str, email: str, password: str) -> None:
    """Show what can be shown only now."""
    with ui.context.client.content, ui.dialog().props("persistent") as dialog, ui.card().classes("p-6 gap-4 af-dialog"):
        heading(title, 2)
        ui.label("Pass this on safely. The password cannot be shown again.").classes("af-muted")
        with ui.element("dl").classes("af-pairs"):
            for term, words in (("E-mail", email), ("Password", password)):
                with ui.element("dt"):
                    ui.label(term)
                with ui.element("dd"):
                    ui.label(words).classes("af-mono").mark(f"once-{term.lower()}")
        with ui.element("div").classes("af-actions w-full justify-end"):
            ui.button("Copy", on_click=lambda: ui.clipboard.write(password)).classes("af-secondary")
            ui.button("Done", on_click=dialog.close)
    dialog.on("hide", dialog.delete)
    dialog.open()


async def build() -> None:
    """The list with a way to add."""
    roster: Roster
    may = current_actor().may(Permission.ADMIN)
    with ui.element("div").classes("af-toolbar"):
        heading("People", 2)
        ui.element("div").classes("af-space")
        if may:
            button("Add somebody", on(lambda: roster.add(), Permission.ADMIN), icon="person_add").mark("add-person")
    roster = Roster()
    await roster.refresh()
    with ui.element("div").classes("mt-6"):
        notice(" ".join(f"{words}." for words in ROLE_WORDS.values()))
    if not may:
        ui.label(f"You are signed in as {current_session().email}. Admins change roles.").classes(
            "af-muted af-small mt-4"
        )
