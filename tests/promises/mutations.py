"""Breaks documents in every way that a program, a person or an attacker does. Each is made from a number, so it can be made again."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from nodes.catalog import catalog

TEMPLATES = Path(__file__).resolve().parents[2] / "assets" / "templates"

ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**400, 0.1, -0.0, 1e308, 5e-324, float("nan"),
    float("inf"), float("-inf"), "", " ", "0", "null", "x" * 3000, "\x00", "\ud800", "\udfff\ud800", "a\u202eb", "\ufeff",
    "é" * 130, "😀" * 40, "\u2028", "\r\n", "../../etc/passwd", "__proto__", "constructor", "%s%n", "{{", "}}", "{{ }}",
    "{% for x in y %}", "{{ value.__class__ }}", "{{ 1/0 }}", "${7*7}", "<script>alert(1)</script>", "'; DROP TABLE run;--",
    "file:///etc/passwd", "http://127.0.0.1:1", "http://[::1", "http://" + "a" * 300, "0 0 31 2 *", "* * * * * *", "@yearly",
    "Mars/Olympus", "2026-02-30", "9" * 400, [], {}, [[]], [None], {"": {}}, {"a": 1}, [1, "a", None, {}], {"value": []},
]  # fmt: skip
TYPOS = [
    "total >", "(total", "total ** ** 2", "custmer.tier == 'gold'", "items | map(", "items | nothing", "1 +", "a b c", "'open",
    "total > 'x'", "not", "x if", "[1, 2", "{'a': }", "f()", "().__class__", "value[", "value[0", "1 if 2 else", "9" * 5000,
    "(" * 300 + ")" * 300, "-" * 500 + "1", "a." * 500 + "a", "'" + "x" * 9000 + "'", "range(10**12)", "'x' * 10**9", "2 ** 10 ** 10",
    "items | sum | sum | sum", "now() + now()", "{{ {{ a }} }}", "a\x00b", "é + ü", "\ud800", "1e999", "0x10", "1_000", "lambda: 1",
]  # fmt: skip
KEYS = [
    "tenant_id",
    "id",
    "revision",
    "__class__",
    "",
    "\ud800",
    "x" * 300,
    "format",
    "nodes",
    "settings",
    "\x00",
    "type",
    "a.b",
]


@cache
def valid() -> tuple[str, ...]:
    """Documents that are right: the templates, one agent per example of each node type, loops, empty and full ones."""
    found = [path.read_text() for path in sorted(TEMPLATES.glob("*.json")) if path.name != "index.json"]
    for cls in catalog():
        for example in cls.examples:
            nodes = [
                {"id": "go", "type": "trigger.manual"},
                {"id": "n", "type": cls.type, "settings": dict(example.settings)},
            ]
            inputs = [port.name for port in cls.model_validate(example.settings).inputs()]
            edge = {
                "id": "e",
                "source": "go",
                "source_port": "value",
                "target": "n",
                "target_port": inputs[0] if inputs else "value",
            }
            found.append(json.dumps({"name": example.title, "nodes": nodes, "edges": [edge] if inputs else []}))
    found.append("{}")
    found.append(json.dumps(chain(12)))
    return tuple(found)


def chain(length: int) -> dict[str, Any]:
    """A trigger and a long row of decisions behind it."""
    nodes: list[dict[str, Any]] = [{"id": "go", "type": "trigger.manual"}]
    edges = []
    for place in range(length):
        nodes.append(
            {"id": f"n{place}", "type": "validation.decide", "settings": {"condition": "total > 10"}, "x": place * 10}
        )
        source, port = (f"n{place - 1}", "yes") if place else ("go", "value")
        edges.append(
            {"id": f"e{place}", "source": source, "source_port": port, "target": f"n{place}", "target_port": "value"}
        )
    return {"name": "Long", "nodes": nodes, "edges": edges}


# --- one document ------------------------------------------------------------------------------------------------


def broken(number: int) -> bytes:
    """The body of a request: the mutated document with that number."""
    dice = Random(f"document {number}")
    if dice.random() < 1 / 400:
        return dice.choice(HEAVY)(dice)
    value = json.loads(dice.choice(valid()))
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        value = _DOCUMENT[dice.randrange(len(_DOCUMENT))](dice, value)
    text = json.dumps(value, allow_nan=True, ensure_ascii=dice.random() < 0.8).encode("utf-8", "surrogatepass")
    return garbled(dice, text) if dice.random() < 0.15 else text


def mutated(dice: Random, value: Any) -> Any:
    """Any JSON value, changed at one place or more."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 2, 4))):
        value = _ANY[dice.randrange(len(_ANY))](dice, value)
    return value


def garbled(dice: Random, text: bytes) -> bytes:
    """Text with damaged bytes."""
    place, other = sorted((dice.randrange(len(text) + 1), dice.randrange(len(text) + 1)))
    return dice.choice(
        (
            lambda: text[:place],
            lambda: text[place:],
            lambda: text[:place] + bytes([dice.randrange(256)]) + text[place + 1 :],
            lambda: (
                text[:place]
                + dice.choice((b"\xff", b"\x00", b"\xed\xa0\x80", b"\\u", b"\\ud800", b"//", b",", b"]"))
                + text[place:]
            ),
            lambda: text[:place] + text[other:],
            lambda: text[:other] + text[place:],
            lambda: b"\xef\xbb\xbf" + text,
            lambda: text.decode("utf-8", "replace").encode("utf-16"),
            lambda: b"[" * dice.choice((60, 70, 1100, 50_000)) + text,
            lambda: b'{"nodes":' * 3000 + text,
            lambda: text + text,
            lambda: b"",
            lambda: text.replace(b'"', b"'"),
            lambda: text.replace(b":", b"=", 3),
        )
    )()


# --- changes of any value ----------------------------------------------------------------------------------------


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of everything inside."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        keys = item.keys() if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in list(keys):
            yield item, key
            waiting.append(item[key])


def _at(dice: Random, value: Any, kinds: tuple[type, ...] = ()) -> tuple[Any, Any] | None:
    found = [(box, key) for box, key in _places(value) if not kinds or isinstance(box[key], kinds)]
    return dice.choice(found) if found else None


def _other_value(dice: Random, value: Any) -> Any:
    place = _at(dice, value)
    if place is None or dice.random() < 0.03:
        return copy.deepcopy(dice.choice(ODD))
    place[0][place[1]] = copy.deepcopy(dice.choice(ODD))
    return value


def _gone(dice: Random, value: Any) -> Any:
    if place := _at(dice, value):
        del place[0][place[1]]
    return value


def _another_key(dice: Random, value: Any) -> Any:
    boxes = [value, *(box[key] for box, key in _places(value))]
    boxes = [box for box in boxes if isinstance(box, dict)]
    if boxes:
        dice.choice(boxes)[dice.choice(KEYS)] = copy.deepcopy(dice.choice(ODD))
    return value


def _renamed(dice: Random, value: Any) -> Any:
    if (place := _at(dice, value)) and isinstance(place[0], dict):
        place[0][dice.choice(KEYS)] = place[0].pop(place[1])
    return value


def _twice(dice: Random, value: Any) -> Any:
    if (place := _at(dice, value, (list,))) and (found := place[0][place[1]]):
        found.extend(copy.deepcopy(dice.choice(found)) for _ in range(dice.choice((1, 2, 30))))
    return value


def _swapped(dice: Random, value: Any) -> Any:
    one, other = _at(dice, value), _at(dice, value)
    if one and other:
        moved, put = copy.deepcopy(other[0][other[1]]), copy.deepcopy(one[0][one[1]])
        one[0][one[1]], other[0][other[1]] = moved, put
    return value


def _wrapped(dice: Random, value: Any) -> Any:
    if place := _at(dice, value):
        inner = place[0][place[1]]
        for _ in range(dice.choice((1, 2, 61, 70, 300))):
            inner = [inner] if dice.random() < 0.5 else {"a": inner}
        place[0][place[1]] = inner
    return value


def _other_text(dice: Random, value: Any) -> Any:
    if place := _at(dice, value, (str,)):
        text = place[0][place[1]]
        spot = dice.randrange(len(text) + 1)
        place[0][place[1]] = dice.choice(
            (
                text[:spot],
                text[:spot] + text[spot + 1 :],
                text[:spot] + dice.choice("(){}[]|.'\"%#\\\x00é\u202e\ud800 ~") + text[spot:],
                text * 50,
                text.swapcase(),
                "{{ " + dice.choice(TYPOS) + " }}",
                dice.choice(TYPOS),
            )
        )
    return value


def _other_number(dice: Random, value: Any) -> Any:
    if place := _at(dice, value, (int, float)):
        number = place[0][place[1]]
        others = [-number, number * 10**6, number - 1, 2**63, 1e300, float("nan"), "7", 0.5]
        place[0][place[1]] = dice.choice(others)
    return value


_ANY: tuple[Callable[[Random, Any], Any], ...] = (
    _other_value, _other_value, _gone, _another_key, _renamed, _twice, _swapped, _wrapped, _other_text, _other_text,
    _other_number,
)  # fmt: skip


# --- changes that only a graph can have --------------------------------------------------------------------------


def _parts(value: Any, name: str) -> list[dict[str, Any]]:
    found = value.get(name) if isinstance(value, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _wire(dice: Random, value: Any) -> Any:
    nodes = _parts(value, "nodes")
    if nodes and isinstance(value.setdefault("edges", []), list):
        for place in range(dice.choice((1, 3, 40))):
            source, target = dice.choice(nodes), dice.choice(nodes)
            ports = ("value", "yes", "no", "item", "result", "done", "body", "error", "nothing")
            value["edges"].append(
                {
                    "id": f"w{place}{dice.randrange(1000)}",
                    "source": source.get("id"),
                    "source_port": dice.choice(ports),
                    "target": target.get("id"),
                    "target_port": dice.choice(ports),
                }
            )
    return value


def _circle(dice: Random, value: Any) -> Any:
    for edge in _parts(value, "edges"):
        if dice.random() < 0.5:
            edge["source"], edge["target"] = edge.get("target"), edge.get("source")
    return value


def _other_type(dice: Random, value: Any) -> Any:
    if nodes := _parts(value, "nodes"):
        strange = ["no.such", "trigger", "", ".", "validation.decide.x", "../x", "x" * 200, 7]
        dice.choice(nodes)["type"] = dice.choice([*strange, *(cls.type for cls in catalog())])
    return value


def _more_nodes(dice: Random, value: Any) -> Any:
    nodes = _parts(value, "nodes")
    if nodes:
        for place in range(dice.choice((1, 10, 60))):
            value["nodes"].append({**copy.deepcopy(dice.choice(nodes)), "id": f"m{place}"})
    return value


def _settings_of_another(dice: Random, value: Any) -> Any:
    nodes = _parts(value, "nodes")
    if len(nodes) > 1:
        dice.choice(nodes)["settings"] = copy.deepcopy(dice.choice(nodes).get("settings"))
    return value


def _typo(dice: Random, value: Any) -> Any:
    places = [
        (box, key)
        for node in _parts(value, "nodes")
        for box, key in _places(node.get("settings"))
        if isinstance(box[key], str)
    ]
    if places:
        box, key = dice.choice(places)
        text = dice.choice(TYPOS)
        box[key] = text if dice.random() < 0.5 else f"Dear {{{{ {text} }}}}"
    return value


def _policy(dice: Random, value: Any) -> Any:
    if nodes := _parts(value, "nodes"):
        key = dice.choice(("retries", "timeout", "on_error", "first_delay", "strange"))
        dice.choice(nodes)["policy"] = {key: copy.deepcopy(dice.choice([*ODD, "port", "continue", 3]))}
    return value


def _pinned(dice: Random, value: Any) -> Any:
    if nodes := _parts(value, "nodes"):
        dice.choice(nodes)[dice.choice(("pinned", "disabled", "name"))] = copy.deepcopy(
            dice.choice([*ODD, {"value": 1}, True])
        )
    return value


def _extras(dice: Random, value: Any) -> Any:
    if isinstance(value, dict):
        part = dice.choice(
            ("notes", "groups", "variables", "allowed_hosts", "time_zone", "description", "format", "name")
        )
        made = {"notes": {"id": "k", "text": "x", "color": "mauve"}, "groups": {"id": "g", "nodes": ["n", "gone"]},
                "variables": {"name": "1x", "value": {}}}.get(part)  # fmt: skip
        value[part] = [made] * dice.choice((1, 2, 600)) if made else copy.deepcopy(dice.choice(ODD))
    return value


_DOCUMENT = (
    *_ANY, _wire, _wire, _circle, _other_type, _more_nodes, _settings_of_another, _typo, _typo, _typo, _policy, _pinned, _extras,
)  # fmt: skip


# --- large ones --------------------------------------------------------------------------------------------------


def _two_thousand_nodes(dice: Random) -> bytes:
    return json.dumps(chain(2000)).encode()


def _as_many_as_fit(dice: Random) -> bytes:
    return json.dumps(chain(990)).encode()


def _a_knot(dice: Random) -> bytes:
    value = chain(400)
    for place in range(3500):
        source, target = dice.randrange(400), dice.randrange(400)
        value["edges"].append(
            {
                "id": f"k{place}",
                "source": f"n{source}",
                "source_port": "no",
                "target": f"n{target}",
                "target_port": "value",
            }
        )
    return json.dumps(value).encode()


def _a_long_text(dice: Random) -> bytes:
    node = {"id": "a", "type": "action.text_template", "settings": {"text": "{{ total }} é " * 120_000}}
    return json.dumps({"name": "x", "nodes": [node]}, ensure_ascii=False).encode()


def _ten_megabytes(dice: Random) -> bytes:
    return json.dumps({"name": "x", "description": "y" * 10_000_000}).encode()


def _a_wide_value(dice: Random) -> bytes:
    node = {"id": "a", "type": "context.set_values", "settings": {f"k{place}": place for place in range(100_000)}}
    return json.dumps({"name": "x", "nodes": [node]}).encode()


def _many_formulas(dice: Random) -> bytes:
    nodes = [
        {"id": f"n{place}", "type": "validation.decide", "settings": {"condition": dice.choice(TYPOS)}}
        for place in range(500)
    ]
    return json.dumps({"name": "x", "nodes": nodes}).encode("utf-8", "surrogatepass")


HEAVY: tuple[Callable[[Random], bytes], ...] = (
    _two_thousand_nodes, _as_many_as_fit, _a_knot, _a_long_text, _ten_megabytes, _a_wide_value, _many_formulas,
)  # fmt: skip
