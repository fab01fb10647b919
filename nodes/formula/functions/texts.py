"""Functions that work on texts."""

import base64 as base64_codec
import binascii
import hashlib
import hmac
import html
import unicodedata
from typing import Any
from urllib.parse import quote, unquote

import orjson
import re2

from nodes.formula.functions import wants
from nodes.formula.meter import Meter
from nodes.formula.problems import short, too_much, wrong_type, wrong_value
from nodes.formula.table import function
from nodes.formula.values import contains as holds
from nodes.formula.values import to_json, to_text

_TAG = re2.compile(r"<[^>]*>")
_NOT_WORD = re2.compile(r"[^\pL\pN]+")
_GROUP = re2.compile(r"\$(\d|\$)")


@function("Text", "text", '"hello" | upper', "HELLO", returns="text", aliases=("uppercase", "toUpperCase"))
def upper(meter: Meter, value: str) -> str:
    """Makes all letters capitals."""
    return value.upper()


@function("Text", "text", '"HELLO" | lower', "hello", returns="text", aliases=("lowercase", "toLowerCase", "casefold"))
def lower(meter: Meter, value: str) -> str:
    """Makes all letters small."""
    return value.lower()


@function("Text", "text", '"hELLO world" | capitalize', "Hello world", returns="text")
def capitalize(meter: Meter, value: str) -> str:
    """Makes the first letter a capital and the others small."""
    return value.capitalize()


@function("Text", "text", '"it\'s a test" | title', "It's A Test", returns="text")
def title(meter: Meter, value: str) -> str:
    """Makes the first letter of each word a capital."""
    return " ".join(word[:1].upper() + word[1:].lower() for word in _split(meter, value, " "))


@function("Text", "text", '"  hello " | trim', "hello", returns="text", aliases=("strip",))
def trim(meter: Meter, value: str, characters: Any = None) -> str:
    """Removes spaces, or the given characters, at both ends."""
    return value.strip(None if characters is None else wants.text(characters, "characters"))


@function("Text", "text", '"  hello" | trim_start', "hello", returns="text", aliases=("lstrip", "trimStart"))
def trim_start(meter: Meter, value: str, characters: Any = None) -> str:
    """Removes spaces, or the given characters, at the start."""
    return value.lstrip(None if characters is None else wants.text(characters, "characters"))


@function("Text", "text", '"hello  " | trim_end', "hello", returns="text", aliases=("rstrip", "trimEnd"))
def trim_end(meter: Meter, value: str, characters: Any = None) -> str:
    """Removes spaces, or the given characters, at the end."""
    return value.rstrip(None if characters is None else wants.text(characters, "characters"))


@function("Text", "text", '"a-b-c" | replace("-", "+")', "a+b+c", returns="text", aliases=("replaceAll",))
def replace(meter: Meter, value: str, old: Any, new: Any) -> str:
    """Replaces every occurrence of a text by another."""
    before, after = wants.text(old, "text to replace"), wants.text(new, "new text")
    found = value.count(before)
    meter.step(found >> 5)
    meter.make(found * max(len(after) - len(before), 0))
    return value.replace(before, after)


@function("Text", "text", '"a, b" | split(", ")', ["a", "b"], returns="list of text")
def split(meter: Meter, value: str, separator: Any = None) -> list[str]:
    """Cuts a text into a list at each separator, or at spaces when none is given."""
    if separator is not None and not wants.text(separator, "separator"):
        raise wrong_value("The separator is empty.", 'Write the text to cut at, such as `split(",")`.')
    return _split(meter, value, separator)


@function("Text", "text", '"one\\ntwo" | lines', ["one", "two"], returns="list of text", aliases=("splitlines",))
def lines(meter: Meter, value: str) -> list[str]:
    """Cuts a text into its lines."""
    return [line.removesuffix("\r") for line in _split(meter, value, "\n")]


@function("Text", "text", '"two words" | words', ["two", "words"], returns="list of text")
def words(meter: Meter, value: str) -> list[str]:
    """Cuts a text into its words."""
    return _split(meter, value, None)


@function(
    "Text", "list", '["a", 2] | join(", ")', "a, 2", returns="text", keywords={"attribute": "field", "d": "separator"}
)
def join(meter: Meter, value: list[Any], separator: Any = "", field: Any = None) -> str:
    """Puts the items of a list together in one text, with a separator between them."""
    between = wants.text(separator, "separator")
    meter.step(len(value))
    meter.make(len(between) * len(value))
    parts = []
    for item in value:
        part = to_text(_field(item, field) if field is not None else item, meter)
        meter.make(len(part))
        parts.append(part)
    return between.join(parts)


@function("Text", "text", '"A long story" | truncate(8)', "A long…", returns="text")
def truncate(meter: Meter, value: str, length: Any = 100, end: Any = "…") -> str:
    """Shortens a text to a length, at a word's end when there is one near."""
    limit, mark = wants.whole(length, "length", 0, 10_000_000), wants.text(end, "end")
    if len(value) <= limit:
        return value
    kept = value[: max(limit - len(mark), 0)]
    space = kept.rfind(" ")
    if value[len(kept) : len(kept) + 1] != " " and space > len(kept) // 2:
        kept = kept[:space]
    return (kept.rstrip() + mark)[:limit]


@function("Text", "text or list or record", '"hello" | contains("ell")', True, returns="yes/no", aliases=("includes",))
def contains(meter: Meter, value: Any, part: Any) -> bool:
    """Whether a text contains a text, a list an item, or a record a field name."""
    return holds(value, part, meter)


@function("Text", "text", '"hello" | starts_with("he")', True, returns="yes/no", aliases=("startswith", "startsWith"))
def starts_with(meter: Meter, value: str, start: Any) -> bool:
    """Whether a text begins with another."""
    return value.startswith(wants.text(start, "start"))


@function("Text", "text", '"hello" | ends_with("lo")', True, returns="yes/no", aliases=("endswith", "endsWith"))
def ends_with(meter: Meter, value: str, end: Any) -> bool:
    """Whether a text ends with another."""
    return value.endswith(wants.text(end, "end"))


@function("Text", "text", '"hello" | find("l")', 2, returns="number", aliases=("indexOf", "position"))
def find(meter: Meter, value: str, part: Any) -> int:
    """Where a text first occurs, counted from 0; -1 when it does not."""
    return value.find(wants.text(part, "text to find"))


@function("Text", "text", '"a-b-a" | occurrences("a")', 2, returns="number")
def occurrences(meter: Meter, value: str, part: Any) -> int:
    """How often a text occurs in another."""
    return value.count(wants.text(part, "text to count"))


@function("Text", "text", '"Order 123" | matches("[0-9]+")', True, returns="yes/no", aliases=("test", "search"))
def matches(meter: Meter, value: str, pattern: Any, ignore_case: Any = False) -> bool:
    """Whether a pattern (a regular expression) occurs anywhere in a text; use `^` and `$` for all of it."""
    _patience(meter, value)
    return wants.pattern(pattern, ignore_case).search(value) is not None


@function("Text", "text", '"Order 123 of May" | extract("Order ([0-9]+)")', "123", aliases=("match",))
def extract(meter: Meter, value: str, pattern: Any, group: Any = None, ignore_case: Any = False) -> Any:
    """The first part that matches a pattern, or its bracketed group; nothing when there is none."""
    compiled = wants.pattern(pattern, ignore_case)
    _patience(meter, value)
    found = compiled.search(value)
    if found is None:
        return None
    if group is None:
        return found.group(1 if compiled.groups else 0)
    return found.group(wants.whole(group, "group", 0, compiled.groups))


@function("Text", "text", '"a1 b22" | extract_all("[0-9]+")', ["1", "22"], returns="list", aliases=("findall",))
def extract_all(meter: Meter, value: str, pattern: Any, ignore_case: Any = False) -> list[Any]:
    """All parts that match a pattern, or their bracketed group."""
    compiled = wants.pattern(pattern, ignore_case)
    _patience(meter, value)
    out: list[Any] = []
    for found in compiled.finditer(value):
        meter.step(12)
        meter.make(20)
        out.append(found.group(0) if not compiled.groups else found.group(1))
    return out


@function(
    "Text", "text", '"2026-11-21" | replace_pattern("(....)-(..)-(..)", "$3.$2.$1")', "21.11.2026", returns="text"
)
def replace_pattern(meter: Meter, value: str, pattern: Any, new: Any, ignore_case: Any = False) -> str:
    """Replaces what matches a pattern; `$1` in the new text stands for the first bracketed group."""
    compiled, new = wants.pattern(pattern, ignore_case), wants.text(new, "new text")
    pieces = _GROUP.split(new)
    _patience(meter, value)

    def fill(found: Any) -> str:
        meter.step(12 + len(pieces))
        out = [pieces[0]]
        for which, literal in zip(pieces[1::2], pieces[2::2], strict=True):
            if which == "$":
                out.append("$")
            elif int(which) <= compiled.groups:
                out.append(found.group(int(which)) or "")
            else:
                raise wrong_value(f"The pattern has no group {which}.", "Count its brackets.")
            out.append(literal)
        text = "".join(out)
        meter.make(len(text) + 8)
        return text

    return str(compiled.sub(fill, value))


@function(
    "Text", "text or number", '"7" | pad_start(3, "0")', "007", returns="text", aliases=("rjust", "padStart", "zfill")
)
def pad_start(meter: Meter, value: Any, length: Any, character: Any = " ") -> str:
    """Fills a text at its start up to a length."""
    size, fill = wants.whole(length, "length", 0, 10_000_000), wants.text(character, "character")
    meter.make(size)
    return to_text(value, meter).rjust(size, _one(fill))


@function("Text", "text or number", '"7" | pad_end(3, ".")', "7..", returns="text", aliases=("ljust", "padEnd"))
def pad_end(meter: Meter, value: Any, length: Any, character: Any = " ") -> str:
    """Fills a text at its end up to a length."""
    size, fill = wants.whole(length, "length", 0, 10_000_000), wants.text(character, "character")
    meter.make(size)
    return to_text(value, meter).ljust(size, _one(fill))


@function("Text", "text", '"ab" | repeat(2)', "abab", returns="text")
def repeat(meter: Meter, value: str, times: Any) -> str:
    """Writes a text several times in a row."""
    count = wants.whole(times, "number of times", 0, 10_000_000)
    meter.make(len(value) * count)
    return value * count


@function("Text", "text", '"A b & ü" | slug', "a-b-u", returns="text", aliases=("slugify",))
def slug(meter: Meter, value: str) -> str:
    """Makes a text fit for an address: small letters, digits and hyphens."""
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", value[:1000]) if not unicodedata.combining(sign))
    return str(_NOT_WORD.sub(lambda _: "-", plain.lower())).strip("-")


@function(
    "Text", "any", '"a b&c" | url_encode', "a%20b%26c", returns="text", aliases=("urlencode", "encodeURIComponent")
)
def url_encode(meter: Meter, value: Any) -> str:
    """Makes a text, or a record of settings, fit to stand in a web address."""
    if type(value) is dict:
        meter.step(len(value))
        return "&".join(f"{_quoted(key, meter)}={_quoted(part, meter)}" for key, part in value.items())
    return _quoted(value, meter)


@function("Text", "text", '"a%20b" | url_decode', "a b", returns="text", aliases=("decodeURIComponent",))
def url_decode(meter: Meter, value: str) -> str:
    """Turns a text from a web address back into plain text."""
    meter.step(len(value) >> 4)
    return unquote(value)


@function("Text", "text", '"<b>" | escape', "&lt;b&gt;", returns="text", aliases=("e", "escape_html"))
def escape(meter: Meter, value: str) -> str:
    """Makes a text safe to stand in a web page or an HTML mail."""
    meter.make(len(value))
    return html.escape(value)


@function("Text", "text", '"<b>Hi</b> you" | strip_tags', "Hi you", returns="text", aliases=("striptags",))
def strip_tags(meter: Meter, value: str) -> str:
    """Removes HTML tags and leaves their text."""
    _patience(meter, value)
    meter.step(value.count("<"))
    return html.unescape(str(_TAG.sub(lambda _: "", value))).strip()


@function("Text", "text", '"hello" | base64', "aGVsbG8=", returns="text", aliases=("base64_encode", "b64encode"))
def base64(meter: Meter, value: str) -> str:
    """Writes a text in base64."""
    meter.make(len(value))
    return base64_codec.b64encode(_bytes(value)).decode()


@function("Text", "text", '"aGVsbG8=" | base64_decode', "hello", returns="text", aliases=("b64decode",))
def base64_decode(meter: Meter, value: str) -> str:
    """Reads a text that was written in base64."""
    meter.make(len(value))
    try:
        return base64_codec.b64decode(
            _bytes(value) + b"==", altchars=b"-_" if "-" in value or "_" in value else None
        ).decode()
    except (binascii.Error, ValueError):
        raise wrong_value("This is not a base64 text.", "Check that the whole text arrived.") from None


@function("Text", "text", '"hello" | sha256 | truncate(8, "")', "2cf24dba", returns="text", aliases=("hash",))
def sha256(meter: Meter, value: str) -> str:
    """The SHA-256 fingerprint of a text, as 64 hexadecimal digits."""
    meter.step(len(value) >> 9)
    return hashlib.sha256(_bytes(value)).hexdigest()


@function("Text", "text", '"hello" | hmac_sha256("key") | truncate(8, "")', "9307b3b9", returns="text")
def hmac_sha256(meter: Meter, value: str, key: Any) -> str:
    """Signs a text with a secret key, as 64 hexadecimal digits."""
    meter.step(len(value) >> 9)
    return hmac.new(_bytes(wants.text(key, "key")), _bytes(value), hashlib.sha256).hexdigest()


@function(
    "Text", "any", '{"a": [1, 2]} | to_json', '{"a":[1,2]}', returns="text", aliases=("tojson", "json", "stringify")
)
def to_json_(meter: Meter, value: Any, indent: Any = False) -> str:
    """Writes any value as JSON text."""
    return to_json(value, meter, indent=bool(indent))


@function("Text", "text", '"{\\"a\\": 1}" | parse_json', {"a": 1}, aliases=("from_json", "fromjson", "parseJson"))
def parse_json(meter: Meter, value: str) -> Any:
    """Reads a JSON text as a value."""
    meter.step(len(value) >> 6)
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise wrong_value(
            f"This is not JSON: `{short(value, 40)}`.", "Check what arrives, or add a schema check."
        ) from None
    meter.weigh(parsed)
    return parsed


def _split(meter: Meter, value: str, separator: str | None) -> list[str]:
    most = meter.size // 16
    parts = value.split(separator, most + 1)
    if len(parts) > most:
        raise too_much("Cutting this text would make too many parts.", "Work on a shorter text.")
    meter.make(len(parts) * 16)
    return parts


def _field(item: Any, name: Any) -> Any:
    name = wants.text(name, "field")
    if type(item) is dict and name in item:
        return item[name]
    raise wrong_value(f"An item has no field `{short(name)}`.", 'Use `map("…")` before `join`.')


def _quoted(value: Any, meter: Meter) -> str:
    text = to_text(value, meter)
    meter.step(len(text) >> 4)
    meter.make(len(text) * 3)
    return quote(_bytes(text), safe="")


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "replace")


def _one(fill: str) -> str:
    if len(fill) != 1:
        raise wrong_type("The filling must be exactly one character.", 'Write for example `"0"`.')
    return fill


def _patience(meter: Meter, value: str) -> None:
    meter.step(5 + (len(value) >> 7))
