"""What the plain forms share: the hidden CSRF word, cookies, and problems above a form."""

from __future__ import annotations

import secrets
from html import escape
from typing import Annotated

from fastapi import Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from app.auth import SESSION_SECONDS, Auth


def the_auth(request: Request) -> Auth:
    """Accounts and sessions, for routes."""
    auth: Auth = request.app.state.auth
    return auth


TheAuth = Annotated[Auth, Depends(the_auth)]
Field = Annotated[str, Form(max_length=1000)]


def form_word(request: Request, auth: Auth) -> tuple[str, str]:
    """The hidden word of a form, and the cookie it belongs to."""
    cookie = request.cookies.get(auth.form_cookie, "")
    if not (40 <= len(cookie) <= 60):
        cookie = secrets.token_urlsafe(32)
    return auth.form_word(cookie), cookie


def error(problem: str) -> str:
    """A problem above a form, or nothing."""
    if not problem:
        return ""
    return f'<div class="af-note is-bad" role="alert"><span>{escape(problem)}</span></div>'


def signed_in(auth: Auth, token: str, next: str) -> Response:
    """Go on, with the session in a cookie."""
    response = RedirectResponse(next, 303)
    set_cookie(response, auth, auth.cookie, token, SESSION_SECONDS)
    response.delete_cookie(auth.form_cookie, path="/", secure=auth.https, httponly=True, samesite="lax")
    return response


def set_cookie(response: Response, auth: Auth, name: str, value: str, seconds: int) -> None:
    """A cookie that scripts cannot read and other sites cannot use."""
    response.set_cookie(name, value, seconds, path="/", secure=auth.https, httponly=True, samesite="lax")
