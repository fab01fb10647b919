"""Settings → Profile: one's own name, password and colours."""

from __future__ import annotations

from nicegui import ui

from app.auth import PASSWORD_LEAST, BadEntry
from app.permissions import current_people, current_session, on
from app.pieces import field_error, heading
from app.theme import ROLE_WORDS, theme_choice


async def build() -> None:
    """Three small forms."""
    session = current_session()
    heading("You", 2)
    ui.label(f"{session.email}. {ROLE_WORDS[str(session.actor.role)]}.").classes("af-muted mb-4")
    _name(session.actor.name)
    ui.separator().classes("mt-8 mb-6")
    heading("Password", 2).classes("mb-4")
    _password()
    ui.separator().classes("mt-8 mb-6")
    heading("Colours", 2).classes("mb-4")
    with ui.element("div").classes("af-choice"):
        theme_choice()
    ui.label("Kept in this browser.").classes("af-muted af-small mt-2")


def _name(name: str) -> None:
    with ui.element("div").classes("af-fields"):
        entry = ui.input("Your name", value=name).props("maxlength=100 autocomplete=name").mark("own-name")
    problem = ui.element("div")

    async def save() -> None:
        problem.clear()
        try:
            await current_people().change_own_name(current_session().actor, entry.value or "")
        except BadEntry as wrong:
            with problem:
                field_error(wrong.message)
            return
        ui.notify("Saved.", type="positive")

    ui.button("Save", on_click=on(save)).classes("mt-4").mark("save-name")


def _password() -> None:
    with ui.element("div").classes("af-fields"):
        old = ui.input("Present password", password=True).props("autocomplete=current-password maxlength=200")
        new = ui.input("New password", password=True).props("autocomplete=new-password maxlength=200")
        new.props["hint"] = f"At least {PASSWORD_LEAST} characters. A few unrelated words work well."
    old.mark("old-password")
    new.mark("new-password")
    problem = ui.element("div").classes("mt-4")

    async def save() -> None:
        problem.clear()
        try:
            await current_people().change_own_password(current_session(), old=old.value or "", new=new.value or "")
        except BadEntry as wrong:
            with problem:
                field_error(wrong.message)
            return
        old.value = new.value = ""
        ui.notify("Changed. You are signed out everywhere else.", type="positive")

    ui.button("Change the password", on_click=on(save)).classes("mt-6").mark("save-password")
