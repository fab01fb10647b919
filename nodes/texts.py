"""What node types share: texts filled in, names that a list's member gives to formulas, and answers of other systems."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson

from nodes.base import Context, HttpReply, NodeError
from nodes.formula import compile_formula, infer
from nodes.shape import ANY, Shape, record

_AS_TEXT = compile_formula("value | text")
_OURS = frozenset({"input", "steps", "vars", "run"})


def filled(ctx: Context, template: str) -> str:
    """The template as a text, also where it is one single `{{ … }}` that gives a number or a list."""
    return as_text(ctx.render(template))


def as_text(value: Any) -> str:
    """A value as it looks inside a text."""
    return value if type(value) is str else str(_AS_TEXT.evaluate({"value": value}))


def as_json(value: Any, *, indent: bool = False) -> bytes:
    """A value as JSON, to be sent or kept."""
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None)
    except orjson.JSONEncodeError as error:
        raise NodeError(f"This cannot be written as JSON: {error}.", fix="Make it flatter with “Transform”.") from None


def names_of(item: Any, index: int) -> dict[str, Any]:
    """The names that a formula may use for one member of a list: its fields, `item` and `index`."""
    names = {key: part for key, part in item.items() if key not in _OURS} if isinstance(item, dict) else {}
    names["item"] = item
    names["index"] = index
    return names


def shape_by(formula: str, main: Shape, *, member: Shape | None = None) -> Shape:
    """The shape of a formula's result, as far as what arrives is known."""
    fields = dict((main if member is None else member).fields)
    fields["input"] = main
    if member is not None:
        fields["item"] = member
    return infer(formula, record(fields, open=True)) if formula.strip() else ANY


def quoted(text: str, longest: int = 80) -> str:
    """The beginning of a text in one line, for a sentence."""
    line = " ".join(text[: longest * 4].split())
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def host_in(address: str) -> str:
    """The host of an address with formulas in it; empty when only a run can tell."""
    start, found, _ = address.strip().partition("{{")
    scheme, colon, rest = start.partition("://")
    place = rest
    for sign in "/?#\\":
        place = place.partition(sign)[0]
    # A formula right behind the host could go on with its name.
    if not colon or scheme.lower() not in ("http", "https") or (found and place == rest):
        return ""
    try:
        return urlsplit(f"{scheme}://{place}").hostname or ""
    except ValueError:
        return ""


def keep_host(written: str, address: str) -> None:
    """Refuse an address whose formulas changed the host that its author wrote."""
    wanted = host_in(written)
    if wanted and host_in(address) != wanted:
        raise NodeError(
            f"What arrived would change the address from {wanted} to another host.",
            fix="Check the fields used in the address; add `| url_encode` to each.",
        )


def body_of(reply: HttpReply) -> Any:
    """The answer as a value: JSON where it says so or looks like it, else text."""
    kind = reply.headers.get("content-type", "")
    text = reply.text
    if "json" in kind or text.lstrip()[:1] in ("{", "["):
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return text
    return text


def refuse_failure(reply: HttpReply, who: str, *, repeatable: bool) -> None:
    """Raise for a status that means failure; says whether the same call may be made again."""
    status = reply.status
    if status < 400:
        return
    said = quoted(reply.text, 200)
    details: Mapping[str, Any] = {"status": status, "body": reply.text[:2000]}
    if status == 429:
        raise NodeError(
            f"{who} asks us to slow down.",
            category="rate_limit",
            retry=True,
            after=_after(reply),
            fix="Try again later, or send fewer at a time.",
            details=details,
        )
    if status in (401, 403):
        raise NodeError(
            f"{who} does not accept us (status {status}): {said}",
            category="credential",
            fix="Check the secret that is used, and whether it is still valid.",
            details=details,
        )
    raise NodeError(
        f"{who} answered with status {status}: {said}",
        category="remote",
        retry=repeatable and (status >= 500 or status == 408),
        fix="Check what is sent." if status < 500 else "Try again; if it stays, the other side has a problem.",
        details=details,
    )


def _after(reply: HttpReply) -> float | None:
    seconds = reply.headers.get("retry-after", "").strip()
    return min(float(seconds), 3600.0) if seconds.isascii() and seconds.isdigit() and len(seconds) < 7 else None
