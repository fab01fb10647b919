"""Addresses that one run gave out: what happens when somebody calls one. It works once, and only by more than looking at it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from nodes.errors import FactoryError, NotFound
from runtime.waits import Waits

SAFE = b"sandbox allow-forms; default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
_HTML = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", SAFE),
    (b"cache-control", b"no-store"),
]
_JSON = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1.1rem/1.5 system-ui, sans-serif; display: grid; place-items: center; min-height: 90vh; margin: 0; }}
main {{ max-width: 28rem; padding: 1.5rem; text-align: center; }}
button {{ font: inherit; font-weight: 600; padding: .7rem 1.6rem; border-radius: .6rem; border: 1px solid; cursor: pointer; }}
</style></head>
<body><main><h1>{title}</h1><p>{words}</p>{more}</main></body></html>
"""


class UsedUp(FactoryError):
    """The address has been called, or it is too late."""

    code = "hook.used"
    status = 410


@dataclass(frozen=True, slots=True)
class Resumed:
    """What goes back over HTTP."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


async def call(waits: Waits, token: str, method: str, headers: Mapping[str, str], event: Mapping[str, Any]) -> Resumed:
    """Take a call of an address; `event` is what the run gets. Raises NotFound, UsedUp, FactoryError for another method."""
    if method not in ("GET", "HEAD", "POST", "PUT"):
        raise FactoryError(f"This address takes POST, not {method[:10]}.", code="hook.method", status=405)
    row = await waits.find(token[:200])
    if row is None:
        raise NotFound("Nothing answers at this address.", fix="Check the address with whoever gave it to you.")
    late = row.state != "waiting" or row.expires_at <= waits.engine.clock()
    people = "text/html" in headers.get("accept", "")
    if method in ("GET", "HEAD") and not late:
        # Programs that look at the links of a mail open them; only a person presses the button.
        button = '<form method="post"><button type="submit">Confirm</button></form>'
        return Resumed(200, _HTML, _page("One more step", "Press the button to confirm. It works once.", button))
    if late or not await waits.arrive(row, dict(event)):
        if people:
            return Resumed(410, _HTML, _page("This link was used", "It was confirmed already, or it is too late."))
        raise UsedUp("This address was called already, or it is too late.", fix="Ask for a new one.")
    if people:
        return Resumed(202, _HTML, _page("Thank you", "That was all. You can close this page."))
    return Resumed(202, _JSON, orjson.dumps({"state": "taken"}))


def _page(title: str, words: str, more: str = "") -> bytes:
    return _PAGE.format(title=title, words=words, more=more).encode()
