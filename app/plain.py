"""Pages without any script: sign in, set up and every error page. The guard can send them before anything else runs."""

from __future__ import annotations

from html import escape
from typing import Literal

from fastapi.responses import HTMLResponse, JSONResponse, Response

from app.assets import asset_path
from app.problems import retry_after
from nodes.errors import FactoryError

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
_PAGE = """<!doctype html>
<html lang="en" data-theme="{theme}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · Agent Factory</title>
<link rel="icon" href="/assets/icons/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{style}">
</head>
<body>
<div class="af-plain"><main class="af-plain-card {kind}">
<div class="af-brand"><span class="af-mark"></span>Agent Factory</div>
<h1>{title}</h1>
{body}
</main></div>
</body>
</html>
"""
_TITLES: dict[int | str, str] = {
    "auth.setup": "This link opens nothing",
    400: "That request makes no sense here",
    401: "You are signed out",
    403: "This is not yours to open",
    404: "Nothing is here",
    405: "That cannot be done here",
    413: "That is too big",
    429: "One moment, please",
    503: "Not ready yet",
}
_ADVICE = {
    404: "The address may have a typing error, or what was here has been deleted.",
    403: "Ask an admin of your team if you need it.",
    500: "Your work is saved. Try again; if it stays, tell your admin the number below.",
}

Kind = Literal["", "is-words"]


def page(
    title: str,
    body: str,
    *,
    theme: str = "system",
    status: int = 200,
    kind: Kind = "",
    headers: dict[str, str] | None = None,
) -> HTMLResponse:
    """A page in our look. `body` is HTML of ours: every value in it must have been escaped."""
    from app.theme import asset_url

    html = _PAGE.format(
        title=escape(title), body=body, theme=escape(theme), kind=kind, style=asset_url("css", "theme.css")
    )
    return HTMLResponse(
        html, status, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store", **(headers or {})}
    )


def problem_page(error: FactoryError, *, theme: str = "system") -> HTMLResponse:
    """An error as a page: what happened, what to do, the way home."""
    status = error.status
    title = _TITLES.get(error.code) or _TITLES.get(
        status, "Something went wrong" if status >= 500 else "That did not work"
    )
    says = error.message if error.message.rstrip(".") != title else ""
    advice = error.fix or _ADVICE.get(status, "")
    words = " ".join(part for part in (says, advice) if part)
    body = (
        f'<p class="af-lead">{escape(words)}</p><div class="af-actions"><a class="af-button" href="/">Go home</a></div>'
    )
    incident = error.where.get("incident")
    body += f'<p class="af-code">{status}{" · " + escape(str(incident)) if incident else ""}</p>'
    return page(title, body, theme=theme, status=status, kind="is-words")


def problem_json(error: FactoryError, headers: dict[str, str] | None = None) -> JSONResponse:
    """An error as the API says it."""
    said = {"Cache-Control": "no-store", **(headers or {})}
    if (seconds := retry_after(error)) is not None:
        said["Retry-After"] = str(seconds)
    return JSONResponse({"error": error.as_dict()}, error.status, headers=said)


def answer(error: FactoryError, *, path: str, accept: str, theme: str = "system") -> Response:
    """The error in the form that the asker reads: a page for browsers, JSON for programs."""
    if path.startswith("/api/") or path == "/api" or "text/html" not in accept:
        return problem_json(error)
    return problem_page(error, theme=theme)


def favicon() -> Response:
    """The icon of the tab."""
    return Response(asset_path("icons", "favicon.svg").read_bytes(), media_type="image/svg+xml")
