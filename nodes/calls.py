"""Calls of other systems over HTTP: the host that an address is held to, the headers, and what a refusal means."""

from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from pydantic import Field

from nodes.base import Context, HttpReply, NodeError, Row, Secret, SecretRef, Text
from nodes.compiling import Code, Writer, stiff
from nodes.compiling import quoted as text_literal
from nodes.texts import filled, quoted

HEADER_NAME = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"

_LATER = frozenset({408, 425})
_LONGEST_WAIT = 86_400.0


class Header(Row):
    """One header of a call."""

    name: str = Field(pattern=HEADER_NAME, max_length=200, title="Header", description="Its name, such as `X-Source`.")
    value: Text = Field(
        default="", max_length=8_000, title="Value", description="A text, with `{{ … }}` for what arrived."
    )
    secret: Secret = Field(
        default="", title="Secret", description="Send this secret behind the value, as in `Token ` and the secret."
    )


def headers_of(ctx: Context, rows: Iterable[Header]) -> dict[str, str | SecretRef]:
    """The headers with their formulas filled in, and secrets by name."""
    headers: dict[str, str | SecretRef] = {}
    for row in rows:
        text = filled(ctx, row.value)
        headers[row.name] = SecretRef(row.secret, prefix=text) if row.secret else text
    return headers


def literal_host(address: str) -> str:
    """The host of an address that may hold `{{ … }}`; empty when only a run can tell."""
    known, open_, _ = address.strip().partition("{{")
    scheme, colon, rest = known.partition("://")
    if not colon or scheme.lower() not in ("http", "https"):
        return ""
    place = rest
    for sign in "/?#":
        place = place.partition(sign)[0]
    # A formula right behind the host could go on with its name, and some read a backslash as the end of it.
    if "\\" in place or (open_ and place == rest):
        return ""
    try:
        return urlsplit(f"{scheme}://{place}").hostname or ""
    except ValueError:
        return ""


def checked_address(address: str) -> str:
    """The same address without spaces around it. Raises ValueError with a sentence."""
    address = address.strip()
    try:
        parts = urlsplit(address)
        right = parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
    except ValueError:
        right = False
    if not right or any(sign < " " for sign in address):
        shown = f"“{quoted(address)}”" if address else "nothing"
        raise ValueError(f"{shown} is not a web address such as https://api.example.com/orders")
    return address


def final_address(ctx: Context, written: str) -> str:
    """The address with its formulas filled in, at the host that its author wrote. Raises NodeError."""
    return held_address(filled(ctx, written), literal_host(written))


def held_address(text: str, wanted: str) -> str:
    """The address when it is one, at the host that is wanted if any is. Raises NodeError."""
    try:
        address = checked_address(text)
    except ValueError as error:
        said = str(error)
        raise NodeError(
            f"{said[:1].upper()}{said[1:]}.",
            category="configuration",
            fix="Check the address and what its `{{ … }}` becomes.",
        ) from None
    if wanted and urlsplit(address).hostname != wanted:
        raise NodeError(
            f"What arrived would change the address from {wanted} to another host.",
            fix="Check the fields used in the address; add `| url_encode` to each.",
        )
    return address


def failure(reply: HttpReply, who: str = "", *, repeatable: bool = True, missing: str = "") -> NodeError:
    """The error for an answer that is no success, which says whether trying again can help.

    `who` answered, else the host is named. `repeatable`: whether the same call may be made twice. `missing`: what helps when
    there is nothing at that address.
    """
    who = who or urlsplit(reply.url).hostname or "The other system"
    status, said = reply.status, _said(reply)
    details = {"status": status, "body": reply.text[:2_000]}
    if status == 429:
        return NodeError(
            f"{who} is busy (status 429).",
            category="rate_limit",
            retry=True,
            after=_wait(reply),
            fix="Set “Try again” for this step, or send fewer at a time.",
            details=details,
        )
    if status in _LATER or status >= 500:
        return NodeError(
            f"{who} failed (status {status}){said}",
            category="remote",
            retry=repeatable,
            after=_wait(reply),
            fix="Set “Try again” for this step, or try later."
            if repeatable
            else "Look whether it was done all the same before you try again.",
            details=details,
        )
    if status in (401, 403):
        return NodeError(
            f"{who} does not let us in (status {status}){said}",
            category="credential",
            fix="Check the secret, and what it may do over there.",
            details=details,
        )
    if status == 404:
        return NodeError(
            f"{who} does not know this address (status 404){said}",
            category="remote",
            fix=missing or "Check the address.",
            details=details,
        )
    return NodeError(
        f"{who} refused the request (status {status}){said}",
        category="remote",
        fix="Look at the answer in the details: it usually says what is wrong.",
        details=details,
    )


def _said(reply: HttpReply) -> str:
    """The end of the sentence: what the other side says, unless it is a page made for browsers."""
    said = "" if "html" in reply.headers.get("content-type", "").lower() else quoted(reply.text, 200)
    return f": {said}" if said else "."


def _wait(reply: HttpReply) -> float | None:
    """How many seconds the other side wants us to wait: it says a number, or a moment by its own clock."""
    text = reply.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _LONGEST_WAIT)
    if not text:
        return None
    try:
        moment, sent = parsedate_to_datetime(text), parsedate_to_datetime(reply.headers["date"])
        return min(max(0.0, (moment - sent).total_seconds()), _LONGEST_WAIT)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def written_address(w: Writer, written: str) -> Code:
    """The same as Python."""
    return w.use(held_address, w.words(written), text_literal(literal_host(written)))


def written_headers(w: Writer, rows: Iterable[Header]) -> list[tuple[str, Code]]:
    """Headers as Python, with secrets behind their values."""
    found = []
    for row in rows:
        text = w.words(row.value)
        found.append((row.name, stiff(f"{text} + {w.secret(row.secret)}", 7) if row.secret else text))
    return found
