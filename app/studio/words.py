"""Sentences of the studio: what is wrong with a setting, what changed between two versions, values in one line."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import orjson

from app.sentences import count, spoken
from nodes.blueprint import Blueprint, Change, diff
from nodes.catalog import Catalog
from nodes.plain import in_words


def plain_problem(said: str) -> str:
    """A validation message as a person says it, as a sentence of its own."""
    said = spoken(in_words(said))
    said = said[:1].upper() + said[1:]
    return said if said.endswith((".", "?", "!")) else f"{said}."


EMPTY = plain_problem("Field required")


def one_line(value: Any, limit: int = 80) -> str:
    """A value in one line, as people read it."""
    if isinstance(value, str):
        text = value if value else "(empty text)"
    elif value is None:
        text = "nothing"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        text = str(int(value))
    elif isinstance(value, Mapping) and value:
        text = ", ".join(f"{name}: {_brief(inner, limit)}" for name, inner in islice(value.items(), limit))
    elif isinstance(value, list) and value:
        text = f"{_brief(value, limit)}: {', '.join(_brief(inner, limit) for inner in islice(value, limit))}"
    elif isinstance(value, Mapping | list):
        text = _brief(value, limit)
    else:
        text = as_json(value)
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _brief(value: Any, limit: int) -> str:
    """A value inside of another one: how much a record or a list holds, not what."""
    if isinstance(value, Mapping):
        return count(len(value), "field") if value else "(no fields)"
    if isinstance(value, list):
        return count(len(value), "item") if value else "(no items)"
    return one_line(value, limit)


def item_words(iteration: str, turn: int = 0) -> str:
    """Which item of a loop (and of the loops around it) a step worked on, counted from one as people do; or an agent's turn."""
    if turn:
        return f"turn {turn}"
    return "item " + ".".join(str(int(part) + 1) if part.isdecimal() else part for part in iteration.split("."))


def as_json(value: Any, *, pretty: bool = False) -> str:
    """A value as JSON text."""
    options = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if pretty else 0)
    return orjson.dumps(value, default=str, option=options).decode()


def json_problem(text: str) -> tuple[Any, int, str]:
    """The value of a JSON text, or the line and the sentence of what is wrong with it (line 0: nothing is)."""
    if not text.strip():
        return None, 0, ""
    try:
        return orjson.loads(text), 0, ""
    except orjson.JSONDecodeError as error:
        return None, error.lineno, f"Line {error.lineno}, column {error.colno}: this is not valid JSON ({error.msg})."
    except UnicodeEncodeError:
        return None, 1, "The text has characters that cannot be sent."


_ONE = {"edges": "connection", "notes": "note", "groups": "group", "variables": "variable"}
_FIELDS = {
    "settings": "its settings",
    "name": "its name",
    "policy": "what happens on an error",
    "disabled": "whether it is on",
    "pinned": "its pinned data",
    "type": "what it is",
    "text": "its text",
    "title": "its title",
    "nodes": "what is in it",
    "value": "its value",
    "description": "its description",
    "color": "its colour",
    "width": "its size",
    "height": "its size",
}
_WHOLE = {
    "name": "The agent's name changed",
    "description": "The description changed",
    "time_zone": "The time zone changed",
    "allowed_hosts": "The allowed hosts changed",
    "on_failure": "The agent that is started after a failure changed",
    "concurrency": "How many runs go on at once changed",
    "priority": "The priority changed",
}


def changes(before: Blueprint, after: Blueprint, types: Catalog) -> list[tuple[str, str]]:
    """What changed, as (added, changed or removed; sentence), from one document to another."""
    titles = {**_titles(before, types), **_titles(after, types)}
    said = [(change.what, _sentence(change, titles, before, after)) for change in diff(before, after)]
    return list(dict.fromkeys(said))


def _titles(blueprint: Blueprint, types: Catalog) -> dict[str, str]:
    return {
        node.id: node.name or (types.get(node.type).title if node.type in types else node.type)
        for node in blueprint.nodes
    }


def _sentence(change: Change, titles: Mapping[str, str], before: Blueprint, after: Blueprint) -> str:
    if change.part == "blueprint":
        return _WHOLE.get(change.id, "The agent changed")
    if change.part == "edges":
        document = before if change.what == "removed" else after
        edge = next(edge for edge in document.edges if edge.id == change.id)
        ends = f"“{titles[edge.source]}” ({edge.source_port}) → “{titles[edge.target]}” ({edge.target_port})"
        return f"Connection {change.what}: {ends}"
    label = titles.get(change.id, change.label) if change.part == "nodes" else change.label
    noun = _ONE.get(change.part, "")
    shown = f"{noun} “{label[:60]}”" if noun else f"“{label}”"
    shown = shown[:1].upper() + shown[1:]
    if change.what != "changed":
        return f"{shown} {change.what}"
    inside = ", ".join(dict.fromkeys(_FIELDS.get(field, field.replace("_", " ")) for field in change.fields))
    if change.part == "nodes" and change.fields == ("settings",):
        return f"{shown}: {_settings(change.id, before, after)} changed"
    return f"{shown}: {inside} changed"


def _settings(id_: str, before: Blueprint, after: Blueprint) -> str:
    old, new = before.node(id_), after.node(id_)
    assert old is not None
    assert new is not None
    names = [key for key in {**old.settings, **new.settings} if old.settings.get(key) != new.settings.get(key)]
    return ", ".join(f"“{name.replace('_', ' ')}”" for name in names[:4]) + (" and more" if len(names) > 4 else "")
