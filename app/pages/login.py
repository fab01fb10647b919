"""Signing in and out: plain forms, no script."""

from __future__ import annotations

import secrets
from html import escape

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from app.auth import Auth
from app.forms import Field, TheAuth, error, form_word, set_cookie, signed_in
from app.guard import next_page
from app.plain import page
from app.visit import Visit
from nodes.errors import Denied, FactoryError

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def show(request: Request, auth: TheAuth, next: str = "/") -> Response:
    """The sign-in form; whoever is signed in already goes on."""
    if Visit.of(request.scope).session is not None:
        return RedirectResponse(next_page(next), 303)
    if await auth.needs_setup():
        body = (
            '<p class="af-lead">This factory has no account yet. Open the set-up link that it printed '
            "when it started: look at the terminal or the log.</p>"
        )
        return page("Set up first", body, theme=Visit.of(request.scope).theme, kind="is-words")
    return form(request, auth, next_page(next))


@router.post("/login")
async def sign_in(
    request: Request, auth: TheAuth, email: Field = "", password: Field = "", next: Field = "/", csrf: Field = ""
) -> Response:
    """Sign in and go on to where the person wanted to go."""
    if not auth.is_form_word(request.cookies.get(auth.form_cookie, ""), csrf):
        return form(request, auth, next_page(next), email=email, problem="The form was open for too long. Try again.")
    try:
        token, _ = await auth.sign_in(email, password, address=Visit.of(request.scope).address)
    except FactoryError as error:
        says = f"{error.message} {error.fix or ''}".strip()
        return form(request, auth, next_page(next), email=email, problem=says, status=error.status)
    return signed_in(auth, token, next_page(next))


@router.post("/logout")
async def sign_out(request: Request, auth: TheAuth, csrf: Field = "") -> Response:
    """End the session: this page, every other tab and every socket of it."""
    session = Visit.of(request.scope).session
    if session is not None:
        if not secrets.compare_digest(csrf.encode(), session.csrf.encode()):
            raise Denied("This request lacks its CSRF word.", fix="Sign out from the menu.", code="request.csrf")
        await auth.end(session)
    response = RedirectResponse("/login", 303)
    response.delete_cookie(auth.cookie, path="/", secure=auth.https, httponly=True, samesite="lax")
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


def form(request: Request, auth: Auth, next: str, *, email: str = "", problem: str = "", status: int = 200) -> Response:
    """The sign-in form as a page."""
    word, cookie = form_word(request, auth)
    body = f"""<p class="af-lead">Sign in to draw, test and run agents.</p>
<form class="af-form" method="post" action="/login">
{error(problem)}
<label>E-mail<input name="email" type="email" autocomplete="username" required maxlength="254" value="{escape(email)}"{"" if email else " autofocus"}></label>
<label>Password<input name="password" type="password" autocomplete="current-password" required maxlength="200"{" autofocus" if email else ""}></label>
<input type="hidden" name="next" value="{escape(next)}"><input type="hidden" name="csrf" value="{word}">
<button class="af-button" type="submit">Sign in</button>
</form>
<p class="af-code">Forgot your password? An admin of your team can give you a new one.</p>"""
    response = page("Sign in", body, theme=Visit.of(request.scope).theme, status=status)
    set_cookie(response, auth, auth.form_cookie, cookie, 3600)
    return response
