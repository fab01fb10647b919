"""Python code as text that a formatter leaves as it is: pieces that fit stand in one line, others are opened up."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 120
STEP = "    "


@dataclass(frozen=True, slots=True)
class Code:
    """An expression: how it looks in one line, and what it is opened up into when that is too long."""

    flat: str
    head: str = ""
    parts: tuple[Code, ...] = ()
    close: str = ""
    stiff: bool = False
    """Whether a formatter would break it in a way of its own."""
    rank: int = 9
    """How tightly it binds: 9 stands alone, 6 is a comparison, 5 `not`, 4 `and`, 3 `or`, 2 `if else`, 1 `lambda`."""
    truth: bool = False
    """Whether it is always true or false."""

    def within(self, rank: int) -> str:
        """The same inside of an operator of this rank."""
        return self.flat if self.rank >= rank else f"({self.flat})"

    def __str__(self) -> str:
        return self.flat


def atom(text: str) -> Code:
    """A name, a number, a text: what cannot be opened up."""
    return Code(text)


def call(name: str, *arguments: Code | str) -> Code:
    """`name(arguments)`."""
    return group(f"{name}(", [_code(one) for one in arguments], ")")


def group(head: str, parts: Sequence[Code], close: str) -> Code:
    """Parts between brackets."""
    inside = ", ".join(part.flat for part in parts)
    return Code(f"{head}{inside}{close}", head, tuple(parts), close)


def led(lead: str, code: Code) -> Code:
    """Something before an expression: `"key": `, `name=`, `*`."""
    return Code(lead + code.flat, lead + code.head if code.parts else "", code.parts, code.close, code.stiff, 9)


def deferred(code: Code, names: str = "") -> Code:
    """`lambda names: code`."""
    return stiff(f"lambda {names}: {code.flat}" if names else f"lambda: {code.flat}", 1)


def stiff(text: str, rank: int, truth: bool = False) -> Code:
    """Operators between expressions, which are never opened up."""
    return Code(text, stiff=True, rank=rank, truth=truth)


def mapping(pairs: Iterable[tuple[str, Code]]) -> Code:
    """`{"key": value}`."""
    return group("{", [led(f"{quoted(key)}: ", value) for key, value in pairs], "}")


def listed(parts: Iterable[Code]) -> Code:
    """`[a, b]`."""
    return group("[", list(parts), "]")


def tuples(rows: Iterable[Sequence[Any]]) -> Code:
    """A list of tuples of plain values."""
    return listed(group("(", [literal(part) for part in row], ")") for row in rows)


def literal(value: Any) -> Code:
    """Plain JSON data as Python."""
    if isinstance(value, str):
        return atom(quoted(value))
    if isinstance(value, dict):
        return mapping((str(key), literal(part)) for key, part in value.items())
    if isinstance(value, list | tuple):
        return listed(literal(part) for part in value)
    return atom(repr(value))


def quoted(text: str) -> str:
    """A text as a Python literal, in the quotes that a formatter chooses."""
    inside = repr(f"'\"{text}")[1:-1].removeprefix("\\'\"").removeprefix("'\\\"").removeprefix("'\"")
    # `repr` of a text with both quotes stands in single ones: its own are escaped, the double ones are not.
    plain = inside.replace("\\'", "'")
    if text.count('"') > text.count("'"):
        return "'" + plain.replace("'", "\\'") + "'"
    return '"' + plain.replace('"', '\\"') + '"'


def loose(code: Code | str, lead: str = "", tail: str = "") -> list[str]:
    """A statement without indentation, which still fits when it is moved in by a few levels."""
    deep = 6
    return [line[deep * len(STEP) :] for line in statement(code, lead, tail, deep, wrap=False)]


def statement(code: Code | str, lead: str = "", tail: str = "", depth: int = 0, *, wrap: bool = True) -> list[str]:
    """One statement as lines: `lead`, the expression, `tail`."""
    code = _code(code)
    indent = STEP * depth
    lines, rigid = _lines(code, depth, lead, tail)
    if rigid:
        return [*lines[:-1], f"{lines[-1]}  # fmt: skip"]
    if wrap and len(lines) == 1 and len(lines[0]) > WIDTH and not tail and lead and code.flat[:1] in "'\"":
        inner = f"{indent}{STEP}{code.flat}"
        if len(inner) <= WIDTH:
            return [f"{indent}{lead}(", inner, f"{indent})"]
    return lines


def _lines(code: Code, depth: int, lead: str, tail: str) -> tuple[list[str], bool]:
    indent = STEP * depth
    whole = f"{indent}{lead}{code.flat}{tail}"
    if len(whole) <= WIDTH:
        return [whole], False
    if not code.parts:
        return [whole], code.stiff
    lines, rigid = [f"{indent}{lead}{code.head}"], False
    for part in code.parts:
        inner, bad = _lines(part, depth + 1, "", ",")
        lines += inner
        rigid = rigid or bad
    return [*lines, f"{indent}{code.close}{tail}"], rigid


def docstring(text: str, depth: int = 0) -> str:
    """A sentence as a docstring in one line."""
    line = " ".join(text.split()).replace("\\", "/").replace('"""', "”")
    line = f"{line[:-1]}”" if line.endswith('"') else line
    return f'{STEP * depth}"""{line or "A step."}"""'


def words_in(code: str) -> frozenset[str]:
    """All names in a piece of code, and the words of its texts."""
    return frozenset(re.findall(r"\w+", code))


def identifier(text: str, taken: Iterable[str] = ()) -> str:
    """A name that Python takes, and that is not taken."""
    base = re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_")[:40].strip("_") or "step"
    base = f"step_{base}" if base[0].isdigit() else base
    used = set(taken)
    name, number = base, 2
    while name in used or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        name, number = f"{base}_{number}", number + 1
    return name


def _code(given: Code | str) -> Code:
    return given if isinstance(given, Code) else atom(given)
