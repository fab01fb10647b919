"""No formula or text that a person, a model or an imported file brings ever runs as code in the server.

Every payload of the corpus is compiled and worked out over data chosen to provoke, while an audit hook watches the
interpreter: a single event of execution, import, file, process, socket or foreign code fails the test.
"""

import json
import math
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from types import NoneType

import pytest

from nodes.formula import FormulaError, check_formula, check_text, compile_formula, compile_text, infer, warm
from nodes.formula.compiled import compile_formula as cached_formulas
from nodes.formula.compiled import compile_text as cached_texts
from nodes.formula.parse import parse
from nodes.shape import shape_of

CORPUS = json.loads((Path(__file__).parent / "hostile_expressions.json").read_text())
WATCHED = (
    "exec", "compile", "import", "open", "code.", "function.__new__", "os.", "subprocess", "socket", "ctypes",
    "pickle", "marshal", "shutil", "pty", "sys._getframe", "sys.setprofile", "sys.settrace", "gc.", "builtins.",
    "object.__", "urllib", "http", "ftplib", "smtplib", "webbrowser", "tempfile", "glob", "cpython.",
)  # fmt: skip


class _Strange:
    """What no scope should ever hold: reading it must not reach anything."""

    secret = "reached"

    def __call__(self) -> str:
        return self.secret

    def __getitem__(self, key: object) -> str:
        return self.secret


def _deep(levels: int) -> object:
    value: object = "bottom"
    for _ in range(levels):
        value = [value]
    return value


NESTED: list[object] = ["x"]
for _ in range(40):
    NESTED = [NESTED, NESTED]

SCOPE = {
    "name": "Ada Lovelace",
    "total": 1200,
    "ratio": 0.75,
    "ok": True,
    "none": None,
    "order": {
        "total": 1200,
        "items": [{"price": 3, "qty": 2}],
        "formula": "range(10**12)",
        "customer": {"tier": "gold"},
    },
    "items": [{"price": 3, "qty": 2, "name": "pen"}, {"price": 5, "qty": 1, "name": "cup"}],
    "evil": "''.__class__.__mro__[1].__subclasses__()",
    "big": "x" * 2_000_000,
    "nested": NESTED,
    "deep_list": _deep(5000),
    "strange": _Strange(),
    "moment": datetime(2026, 11, 21),
    "huge": 10**400,
    "nan": math.nan,
    "infinite": math.inf,
    "surrogate": "\ud800",
    "oddkeys": {1: 2, None: 3},
}
SCHEMA = shape_of({key: SCOPE[key] for key in ("name", "total", "ratio", "ok", "order", "items", "evil", "big")})

_seen: list[str] = []
_watching = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _watching and event.startswith(WATCHED):
        _seen.append(f"{event} {str(arguments)[:200]}")


def _is_plain(value: object) -> bool:
    """Whether a value is plain JSON data all through; what the scope itself brought in is not looked into."""
    pending, looked = [value], 0
    while pending and looked < 20_000:
        part = pending.pop()
        looked += 1
        if any(part is own for own in SCOPE.values()):
            continue
        if type(part) is list:
            pending.extend(part)
        elif type(part) is dict:
            pending.extend(part.values())
            pending.extend(part)
        elif type(part) not in (str, int, float, bool, NoneType):
            return False
    return True


def _outcome(kind: str, text: str) -> str:
    formula = kind == "formula"
    try:
        compiled = compile_formula(text) if formula else compile_text(text)
        value = compiled.evaluate(SCOPE)
    except FormulaError as error:
        assert error.message
        assert error.fix, (text[:80], error.message)
        assert error.code != "formula.internal", (text[:80], error.__cause__)
        return error.code
    finally:
        (check_formula if formula else check_text)(text, SCHEMA)
        infer(text, SCHEMA)
    assert _is_plain(value), text[:80]
    return "value"


@pytest.fixture(scope="module", autouse=True)
def _tripwire() -> None:
    warm()
    for payload in CORPUS:  # whatever is imported or opened once, is now
        if len(payload["text"]) < 200:
            _outcome(payload["kind"], payload["text"])
            break
    sys.addaudithook(_hook)


def test_the_tripwire_sees_what_it_must_catch() -> None:
    """A trap that never closes proves nothing."""
    global _watching
    _seen.clear()
    _watching = True
    try:
        eval("1 + 1")
        with open(__file__) as file:
            file.read(1)
    finally:
        _watching = False
    assert any(event.startswith("compile") for event in _seen)
    assert any(event.startswith("open") for event in _seen)


def test_no_payload_runs_anything() -> None:
    """Compiling, working out and checking all payloads fires no watched event; each ends in an error or plain data."""
    global _watching
    for cache in (cached_formulas, cached_texts, parse):
        cache.cache_clear()
    outcomes: Counter[str] = Counter()
    fired: dict[str, list[str]] = {}
    for payload in CORPUS:
        _seen.clear()
        _watching = True
        try:
            outcomes[_outcome(payload["kind"], payload["text"])] += 1
        finally:
            _watching = False
        if _seen:
            fired[payload["text"][:80]] = list(_seen)
    assert fired == {}
    assert sum(outcomes.values()) == len(CORPUS) >= 250
    assert {"formula.syntax", "formula.unknown_name", "formula.forbidden", "formula.budget", "formula.type"} <= set(
        outcomes
    )


def test_the_corpus_has_no_payload_twice() -> None:
    assert len({(payload["kind"], payload["text"]) for payload in CORPUS}) == len(CORPUS)


def test_a_payload_arriving_as_data_stays_data() -> None:
    """A text from outside is never read as a formula, wherever it is used."""
    for payload in CORPUS:
        hostile = payload["text"]
        assert compile_text("{{ message }}").evaluate({"message": hostile}) == hostile
        assert compile_text("> {{ message }}").evaluate({"message": hostile}) == f"> {hostile}"
        assert compile_formula("message | trim | length").evaluate({"message": hostile}) == len(hostile.strip())
        for use in ("[1] | map(message)", "[1] | filter(message)", "[1] | sort(message)", "[1] | where(message, 1)"):
            with pytest.raises(FormulaError) as caught:
                compile_formula(use).evaluate({"message": hostile})
            assert caught.value.code == "formula.forbidden"
