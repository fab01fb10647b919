"""The first start: whoever holds the printed link makes the team and its first admin."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from app.auth import PASSWORD_LEAST, Auth, BadEntry, SetupClosed
from app.forms import Field, TheAuth, error, form_word, set_cookie, signed_in
from app.plain import page
from app.visit import Visit

router = APIRouter(include_in_schema=False)


@router.get("/setup")
async def show(request: Request, auth: TheAuth, token: str = "") -> Response:
    """The set-up form, for a link that is still good."""
    if not auth.is_setup_token(token):
        if not await auth.needs_setup():
            return RedirectResponse("/login", 303)
        raise SetupClosed()
    return form(request, auth, token, {})


@router.post("/setup")
async def set_up(
    request: Request,
    auth: TheAuth,
    token: Field = "",
    team: Field = "",
    name: Field = "",
    email: Field = "",
    password: Field = "",
    csrf: Field = "",
) -> Response:
    """Make the team and the admin, and sign in."""
    typed = {"team": team, "name": name, "email": email}
    if not auth.is_setup_token(token):
        raise SetupClosed()
    if not auth.is_form_word(request.cookies.get(auth.form_cookie, ""), csrf):
        return form(request, auth, token, typed, problem="The form was open for too long. Try again.")
    try:
        cookie, _ = await auth.set_up(token, name=name, email=email, password=password, team=team)
    except BadEntry as wrong:
        return form(request, auth, token, typed, problem=wrong.message, field=wrong.where.get("field", ""))
    return signed_in(auth, cookie, "/")


def form(
    request: Request, auth: Auth, token: str, typed: dict[str, str], *, problem: str = "", field: str = ""
) -> Response:
    """The set-up form as a page."""
    word, cookie = form_word(request, auth)

    def entry(name: str, label: str, hint: str, attributes: str) -> str:
        wrong = name == field
        first = name == "name" and not problem
        more = ' aria-invalid="true" autofocus' if wrong else " autofocus" if first else ""
        said = f'<span class="af-field-error" role="alert">{escape(problem)}</span>' if wrong else ""
        small = f'<span class="af-hint">{escape(hint)}</span>' if hint and not wrong else ""
        value = escape(typed.get(name, ""))
        return f'<label>{label}<input name="{name}" value="{value}" required {attributes}{more}>{said}{small}</label>'

    body = f"""<p class="af-lead">You are the first one here, so you become the admin. It takes a minute.</p>
<form class="af-form" method="post" action="/setup">
{error("" if field else problem)}
{entry("name", "Your name", "", 'autocomplete="name" maxlength="100"')}
{entry("email", "E-mail", "You sign in with it. Nothing is sent to it.", 'type="email" autocomplete="username" maxlength="254"')}
{entry("password", "Password", f"At least {PASSWORD_LEAST} characters. A few unrelated words work well.", f'type="password" autocomplete="new-password" minlength="{PASSWORD_LEAST}" maxlength="200"')}
{entry("team", "Team name", "Your company or group. You can add others later.", 'autocomplete="organization" maxlength="100"')}
<input type="hidden" name="token" value="{escape(token)}"><input type="hidden" name="csrf" value="{word}">
<button class="af-button" type="submit">Create the factory</button>
</form>"""
    response = page("Welcome", body, theme=Visit.of(request.scope).theme, status=422 if problem else 200)
    set_cookie(response, auth, auth.form_cookie, cookie, 3600)
    return response
