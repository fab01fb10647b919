"""What a node type is given to say, in Python, what it does with its present settings: the body of one function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import orjson

from nodes.compiling.carry import CALLS, DOORS, Library
from nodes.compiling.layout import (
    STEP,
    WIDTH,
    Code,
    atom,
    call,
    identifier,
    led,
    listed,
    literal,
    mapping,
    quoted,
    statement,
    stiff,
    words_in,
)
from nodes.errors import FactoryError
from nodes.formula.python import Formulas, Scope

Gives = Literal["value", "ports", "some", "yes_no", "way", "ways", "nothing"]
"""What the function returns: the value of the only port; a record of all ports, or of some; whether to go to the first port
or the second with what arrived; the one port, or the list of ports, to go to with what arrived; or that it never returns."""

_CLASSES = {
    "http": "Web",
    "memory": "Memory",
    "tables": "Tables",
    "mail": "Mail",
    "people": "Terminal",
    "clock": "Clock",
    "events": "Events",
}
_SAID = {
    "memory": "Memory is the file memory.json in the folder AGENT_FOLDER, or here.",
    "tables": "Tables (as JSON) and files are in the folder AGENT_FOLDER, or here.",
    "mail": "Mail goes through SMTP_HOST and SMTP_PORT, as SMTP_USER with SMTP_PASSWORD, from MAIL_FROM.",
    "events": "Events come from agents of this module, or from the program around it: see the class Events.",
    "llm": "The language model is the one in MODEL, such as openai/gpt-4o-mini; its key is where its provider wants it.",
}


class CannotCompile(FactoryError):
    """A node, or the way it is set, has no Python of its own."""

    code = "compile.refused"
    status = 422


class Writer:
    """Collects the lines of one step's function. Expressions come as `Code`, which knows how to be laid out."""

    def __init__(self, library: Library, ports: Sequence[str], main: str, *, time_zone: str, fixed: Mapping[str, str]):
        self.library = library
        self.ports = tuple(ports)
        """The input ports that something arrives at: the parameters of the function."""
        self.main = main
        self.time_zone = time_zone or "UTC"
        self.lines: list[str] = []
        self.gave: Gives = "nothing"
        self.outside = False
        """Whether it needs the world: the clock, the web, memory, a person."""
        self.answers = False
        """Whether it answers the caller."""
        self.agents: Callable[[str], str] | None = None
        """The function that another agent becomes, by its id."""
        self.called: set[str] = set()
        """The other agents that it calls or starts, and "" when it asks for one that was started."""
        self.starts = False
        self.hears = False
        """Whether it must know which events it has heard in this run."""
        variables = {name: name for name in self.ports}
        self.formulas = Formulas(library, Scope(self.main or None, variables, fixed))
        self._depth = 1

    # What settings say

    def formula(self, text: str, *, member: str = "", over: str = "") -> Code:
        """A formula. `member`: the variable with one member of a list, whose fields it can name; its place is `index`.

        `over`: the same with a result, whose fields go before all other names.
        """
        known = self.formulas.scope
        scope = Scope(known.main, known.ports, known.fixed, over=over) if over else self._scope(member)
        return self.formulas.formula(text.strip(), scope)

    def text(self, template: str, *, member: str = "") -> Code:
        """A text with formulas in it; one that is a single formula keeps its kind."""
        return self.formulas.text(template, self._scope(member))

    def words(self, template: str) -> Code:
        """The same, always as a text."""
        return self.formulas.words(template)

    def json(self, text: str) -> Code:
        """JSON with formulas in its texts."""
        whole = text.strip()
        if not whole:
            return atom("None")
        if whole.startswith("{{") and whole.endswith("}}") and whole.count("{{") == 1:
            return self.text(whole)
        return self._filled(orjson.loads(whole))

    def _filled(self, value: Any) -> Code:
        if isinstance(value, str):
            return self.text(value) if "{{" in value else literal(value)
        if isinstance(value, list):
            return listed(self._filled(part) for part in value)
        if isinstance(value, dict):
            return mapping((key, self._filled(part)) for key, part in value.items())
        return literal(value)

    def _scope(self, member: str) -> Scope:
        known = self.formulas.scope
        return Scope(known.main, known.ports, known.fixed, member) if member else known

    def arrived(self, port: str) -> Code:
        """What arrived at a port, or nothing."""
        return atom(port if port in self.ports else "None")

    # What it uses

    def use(self, thing: Callable[..., Any] | type, *arguments: Code | str) -> Code:
        """A call of a function or class of the product, which is copied into the module."""
        return call(self.library.use(thing), *arguments)

    def kit(self, name: str, *arguments: Code | str) -> Code:
        """The same for what compiled modules have of their own."""
        return call(self.library.kit(name), *arguments)

    def door(self, name: str, *arguments: Code | str) -> Code:
        """A call of a function of the world outside, such as the one that signs."""
        return call(self.library.place(DOORS, name), *arguments)

    def world(self, name: str, *arguments: Code | str) -> Code:
        """A call into the world outside, such as `http.request`, which is waited for."""
        self.outside = True
        door = name.partition(".")[0]
        self.library.notes |= {_SAID[door]} if door in _SAID else set()
        if door == "llm":
            self.model()
        else:
            self.library.doors[door] = (DOORS, _CLASSES[door])
        return led("await ", call(f"world.{name}", *arguments))

    def model(self, *, tools: bool = False) -> None:
        """Say that it asks a language model, which may ask for tools."""
        self.outside = True
        self.library.notes.add(_SAID["llm"])
        self.library.model(tools=tools)

    def now(self) -> Code:
        """The present moment."""
        self.outside = True
        return atom("world.now()")

    def heard(self) -> Code:
        """The events that this step has heard in this run: a set to add to."""
        self.hears = True
        return atom("heard")

    def fresh(self) -> Code:
        """A key that no other call has."""
        self.library.need("import uuid")
        return atom("uuid.uuid4().hex")

    def secret(self, name: str) -> Code:
        """A secret, which compiled modules read from the environment."""
        variable = f"SECRET_{identifier(name).upper()}"
        self.library.secrets[name] = variable
        return self.door("secret", quoted(name), quoted(variable))

    # Other agents

    def calls(self, what: str, *arguments: Code | str) -> Code:
        """A call of what this run has to do with other agents, such as `end_of`."""
        self.outside = True
        self.called.add("")
        self.library.place(CALLS, "Calls")
        return call(f"calls.{what}", *arguments)

    def other(self, what: str, blueprint: str, given: Code) -> Code:
        """Call or start another agent, which becomes a function of the same module."""
        assert self.agents is not None
        found = self.calls(what, self.agents(blueprint), given)
        self.called.add(blueprint)
        self.starts = self.starts or what == "start"
        return found

    # What is true

    def equal(self, name: str, text: str) -> Code:
        """Whether a variable is this very text."""
        return stiff(f"{name} == {quoted(text)}", 6, truth=True)

    def yes_no(self, answer: Code, what: str = "", *, words: str = "") -> Code:
        """An answer that is yes or no; anything else is an error that begins with these words."""
        if answer.truth:
            return answer
        said = [words or quoted(what)] if words or what else []
        found = self.kit("yes_or_no", answer, *said)
        return Code(found.flat, found.head, found.parts, found.close, truth=True)

    def words_of(self, code: Code) -> Code:
        """A value as it looks inside a text."""
        return self.kit("as_text", code)

    # Lines

    def line(self, code: Code | str, lead: str = "", tail: str = "") -> None:
        """One statement: `lead`, the expression, `tail`."""
        self.lines += statement(code, lead, tail, self._depth)

    def let(self, name: str, code: Code | str) -> str:
        """`name = code`; the name."""
        self.line(code, f"{name} = ")
        return name

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Lines inside of `if …:`, `for …:` and the like."""
        self.lines.append(f"{STEP * self._depth}{head}")
        self._depth += 1
        yield
        self._depth -= 1

    @contextmanager
    def when(self, condition: Code | str) -> Iterator[None]:
        """Lines inside of an `if`."""
        flat = str(condition)
        if len(flat) + len(STEP) * self._depth + 4 > WIDTH:
            flat = self.let("fits", condition)
        with self.block(f"if {flat}:"):
            yield

    @contextmanager
    def loop(self, members: Code | str, *uses: Code, index: bool = False) -> Iterator[None]:
        """Lines for each `item`; with its `index` where it is used."""
        members = self.let("members", members) if len(str(members)) > 60 else str(members)
        counted = index or any("index" in words_in(code.flat) for code in uses)
        with self.block(f"for index, item in enumerate({members}):" if counted else f"for item in {members}:"):
            yield

    def decide(self, answer: Code) -> None:
        """Return whether to go to the first port or to the second, with what arrived."""
        self.gave = "yes_no"
        found = self.yes_no(answer)
        if found.stiff:
            self.line(found, "answer: bool = ")
            found = atom("answer")
        self.line(found, "return ")

    def answers_yes_no(self) -> None:
        """Say that the lines return yes or no by themselves."""
        self.gave = "yes_no"

    def fail(self, error: Code) -> None:
        """Raise an error."""
        self.line(error, "raise ")

    def choose(self, ways: Sequence[tuple[str, Code]], otherwise: str, *, several: bool) -> None:
        """Return the first way that fits, or all of them; what arrived goes there."""
        self.gave = "ways" if several else "way"
        if several:
            self.let("ways", "[]")
        for port, fits in ways:
            with self.when(fits):
                self.line(call("ways.append", quoted(port)) if several else quoted(port), "" if several else "return ")
        self.line(f"ways or [{quoted(otherwise)}]" if several else quoted(otherwise), "return ")

    def note(self, sentence: str) -> None:
        """Say something at the top of the module."""
        self.library.notes.add(sentence)

    def answer(self, body: Code) -> None:
        """Answer the caller; the first answer is the result of the run."""
        self.answers = True
        self.line(call("replies.append", body))

    def give(self, code: Code | str) -> None:
        """Return the value of the only output port."""
        self.gave = "value"
        self.line(code, "return ")

    def gives(self, **ports: Code | str) -> None:
        """Return what each of several ports gives."""
        # Different records at different ends: only a look at the record tells which ports fire.
        self.gave = "ports" if self.gave == "nothing" else "some"
        pairs = [(name, atom(code) if isinstance(code, str) else code) for name, code in ports.items()]
        self.line(mapping(pairs), "return ")

    def refuse(self, why: str, fix: str = "Run it in the factory, or put another node in its place.") -> CannotCompile:
        """The error for settings that have no Python."""
        return CannotCompile(why, fix=fix)
