"""Plan → Python: a blueprint as one module that runs without the factory, with a function for each step.

`run` holds the wiring as straight code: what a decision chooses is an `if`, a loop is a `for`, a step that the engine would
skip stands behind a condition. The same plan is read as the engine reads, so both come to the same result. What differs:
branches run one after the other, formulas have no budget, and the limits of the factory do not apply.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from nodes.base import Loop, PortType
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog
from nodes.compiling import CannotCompile, Code, Library, Writer, atom, call, identifier, literal, quoted, statement
from nodes.compiling.carry import RESERVED
from nodes.compiling.layout import STEP, docstring, loose
from nodes.errors import FactoryError
from runtime.compiled_text import closing, opening
from runtime.plan import Plan, Scope, Step, compile_plan

_SUB_PORTS = frozenset({PortType.MODEL, PortType.TOOL, PortType.MEMORY})
_RETURNS = {
    "value": "Any",
    "ports": "dict[str, Any]",
    "some": "dict[str, Any]",
    "yes_no": "bool",
    "way": "str",
    "ways": "list[str]",
    "nothing": "None",
}
_EMPTY = {
    "ports": ": dict[str, Any] = {}",
    "some": ": dict[str, Any] = {}",
    "yes_no": ": bool | None = None",
    "way": ' = ""',
    "ways": ": list[str] = []",
}


def compile_python(blueprint: Blueprint, types: Catalog) -> str:
    """The blueprint as the text of a Python module. Raises PlanError, or CannotCompile naming the node and why."""
    return _Module(compile_plan(blueprint, types)).text()


@dataclass(slots=True)
class _Function:
    """A step's function: its name, what it is given besides its ports, and what it returns."""

    name: str
    gives: str
    waits: bool = False
    extras: list[str] = field(default_factory=list)
    ports: tuple[str, ...] = ()


@dataclass(slots=True)
class _Out:
    """What can be read of a port in the wiring: whether it fired ("" is always), and its value."""

    fired: str
    value: str


@dataclass(slots=True)
class _Chunk:
    """Lines of the wiring that stand behind one condition, and what must be set before it."""

    condition: str
    before: list[str]
    lines: list[str]


class _Module:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.library = Library()
        self.library.taken |= {"run", "main", "World"}
        self.names: dict[str, str] = {}
        for step in plan.steps.values():
            self.names[step.id] = identifier(step.key, self.library.taken | RESERVED)
            self.library.taken |= {self.names[step.id], f"from_{self.names[step.id]}"}
        self.sources: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(lambda: defaultdict(list))
        for edge in plan.graph.edges:
            self.sources[edge.target][edge.target_port].append((edge.source, edge.source_port))
        self.functions: dict[str, _Function] = {}
        self.texts: dict[str, str] = {}
        self.outs: dict[tuple[str, str], _Out] = {}
        self.covers: list[tuple[frozenset[str], str]] = []
        """Conditions of which one is always true where the other condition is."""
        self.named: set[str] = set()
        """The steps that formulas ask for by name."""
        self.replies = False
        self.waits = False

    def text(self) -> str:
        """The module."""
        for step in self.plan.steps.values():
            if not step.placed.disabled:
                self._function(step)
        wiring = _Wiring(self).whole()
        self.library.need("from typing import Any")
        end = closing(self.library, waits=self.waits)
        parts = [wiring, *self.texts.values(), *end[:-1]]
        head = opening(self.plan.blueprint, self.plan.content_hash, self.library, self.names.values())
        constants = self._constants()
        text = "\n\n\n".join([*head, *constants, *parts, *self.library.texts, end[-1]]) + "\n"
        ast.parse(text)
        return text

    def _constants(self) -> list[str]:
        code = "\n".join(self.texts.values())
        found = []
        if re.search(r"\bVARIABLES\b", code):
            values = literal(dict(self.plan.variables))
            found.append("\n".join(statement(values, "VARIABLES: dict[str, Any] = ")))
        if re.search(r"\bRUN\b", code):
            for line in ("import time", "import uuid"):
                self.library.need(line)
            about = f'{{"id": uuid.uuid4().hex, "started_at": time.time(), "sandbox": False, "agent": {quoted(self.plan.blueprint.name)}}}'
            found.append("\n".join(statement(about, "RUN: dict[str, Any] = ", "  # fmt: skip")))
        return found

    def ports_of(self, step: Step) -> list[str]:
        """The ports by which values leave a step."""
        ports = self.plan.graph.outputs[step.id].values()
        return [port.name for port in ports if port.type not in _SUB_PORTS]

    def certain(self, step: Step, port: str) -> bool:
        """Whether something arrives at a port whenever the step runs."""
        return port in step.required or (not step.required and len(self.sources[step.id]) == 1)

    # --- a function for each step -----------------------------------------------------------------------------------------

    def _function(self, step: Step) -> None:
        fed = tuple(port for port in self.plan.graph.inputs[step.id] if port in self.sources[step.id])
        blank = tuple(step.blank)
        ports = ("event",) if step.is_trigger else tuple(dict.fromkeys((*fed, *blank)))
        main = "" if step.is_trigger or step.first_input not in ports else step.first_input
        fixed = {"input": main or "None", "steps": "steps", "vars": "VARIABLES", "run": "RUN"}
        if step.scope.loop is not None:
            fixed |= {"item": "item", "index": "index"}
        zone = self.plan.blueprint.time_zone
        writer = Writer(self.library, ports, main, time_zone=zone, fixed=fixed)
        if step.is_trigger:
            # A trigger's formulas, if it had any, would know nothing.
            writer.formulas.scope.ports = {}
        try:
            if isinstance(step.node, Loop) and step.node.rounds:
                raise CannotCompile(f"“{step.node.title}” decides after each round whether another follows.", fix="")
            step.node.as_python(writer)
        except FactoryError as error:
            raise CannotCompile(
                f"“{step.name}” cannot be compiled: {error.message}",
                fix=error.fix or "Run this agent in the factory, or put other steps in its place.",
                where={"node": step.id},
            ) from None
        used = writer.formulas.used
        extras: list[str] = [name for name in ("item", "index") if name in used and name in fixed]
        extras += ["steps"] if "steps" in used else []
        extras += ["replies"] if writer.answers else []
        extras += ["world"] if writer.outside else []
        self.replies = self.replies or writer.answers
        body = "\n".join(writer.lines)
        found = _Function(self.names[step.id], writer.gave, "await " in body, extras, ports)
        self.waits = self.waits or writer.outside
        self.functions[step.id] = found
        typed = {"steps": "dict[str, Any]", "replies": "list[Any]", "world": "World", "index": "int"}
        given = [f"{name}: {typed.get(name, 'Any')}" for name in dict.fromkeys((*ports, *extras))]
        about = step.node.describe()
        said = _sentence(f"{step.node.title}: {about}" if about else step.node.title)
        if step.placed.name and step.placed.name != step.node.title:
            said = f"{_sentence(step.placed.name)} {said}"
        head = f"{'async ' if found.waits else ''}def {found.name}("
        signature = statement(_arguments(head, given), "", f" -> {_RETURNS[found.gives]}:")
        self.texts[step.id] = "\n".join([*signature, docstring(said, 1), *writer.lines])
        for text in re.findall(r'\bsteps, "steps", "(\w+)"', body):
            self.named.add(text)
        if "steps" in used and not re.search(r'\bsteps, "steps", "', body):
            self.named.update(step.key for step in self.plan.steps.values())


def _arguments(head: str, given: Sequence[str]) -> Code:
    inside = ", ".join(given)
    return Code(f"{head}{inside})", head, tuple(atom(one) for one in given), ")")


class _Wiring:
    """The body of `run`: the steps one after the other, each behind the condition under which the engine would run it."""

    def __init__(self, module: _Module) -> None:
        self.module = module
        self.plan = module.plan
        self.items: dict[str, tuple[str, str]] = {}
        self.kinds: dict[str, str] = {}
        """What the variable of each step holds."""
        self.steps_name = "steps"

    def whole(self) -> str:
        """The function `run`."""
        module, plan = self.module, self.plan
        triggers = plan.triggers()
        lines: list[str] = []
        if module.waits:
            lines += [f"{STEP}world = world or World()"]
        if module.replies:
            lines += [f"{STEP}replies: list[Any] = []"]
        if module.named:
            lines += [f"{STEP}steps: dict[str, Any] = {{}}"]
        body = self.scope(plan.root, 1)
        ends = self.ends()
        given = ["event: Any = None"]
        if len(triggers) > 1:
            given.append(f"trigger: str = {quoted(triggers[0].key)}")
        if module.waits:
            given.append("world: World | None = None")
        head = f"{'async ' if module.waits else ''}def run("
        said = f"{plan.blueprint.name}: from what starts it to its result."
        signature = statement(_arguments(head, given), "", " -> Any:")
        return "\n".join([*signature, docstring(said, 1), *lines, *body, *ends])

    # --- one scope ------------------------------------------------------------------------------------------------------------

    def scope(self, scope: Scope, depth: int) -> list[str]:
        """The steps of the whole blueprint, or of a loop's body."""
        chunks: list[_Chunk] = []
        for step in self.ordered(scope):
            chunks += self.step(step)
        return _laid_out(chunks, depth)

    def ordered(self, scope: Scope) -> list[Step]:
        """The steps in an order that keeps those behind the same condition together."""
        waiting = {step.id: self._before(step, scope) for step in scope.steps}
        done: set[str] = set()
        order: list[Step] = []
        while len(order) < len(scope.steps):
            free = [step for step in scope.steps if step.id not in done and waiting[step.id] <= done]
            last = order[-1].id if order else ""
            follows = [step for step in free if last in waiting[step.id]]
            chosen = (follows or free)[0]
            order.append(chosen)
            done.add(chosen.id)
        return order

    def _before(self, step: Step, scope: Scope) -> set[str]:
        """The steps of the same scope that must come before, also for what stands inside of a loop."""
        inside = {one.id for one in scope.steps}
        found: set[str] = set()
        todo = [step]
        while todo:
            here = todo.pop()
            for sources in self.module.sources[here.id].values():
                found.update(source for source, _ in sources)
            if here.body is not None:
                todo += here.body.steps
        return (found & inside) - {step.id}

    # --- one step -------------------------------------------------------------------------------------------------------------

    def step(self, step: Step) -> list[_Chunk]:
        """The call of a step behind its condition."""
        condition, flags = self.condition(step)
        variable = f"from_{self.module.names[step.id]}"
        before: list[str] = []
        lines: list[str] = []
        if step.placed.disabled and not step.is_trigger:
            lines += loose(
                self.given(step, step.first_input, condition, lines),
                f"{variable} = ",
                f"  # “{_said(step.name)}” is switched off",
            )
            kind = "value"
            if step.out_ports:
                self.module.outs[step.id, step.out_ports[0]] = _Out(condition, variable)
        elif step.body is not None:
            kind = self.loop(step, condition, variable, lines)
        else:
            kind = self.called(step, condition, variable, lines)
        self.kinds[step.id] = kind
        if condition and kind in _EMPTY:
            before.append(f"{variable}{_EMPTY[kind]}")
        if step.key in self.module.named:
            lines += self.noted(step, kind, variable)
        chunks = [_Chunk("", [], flags)] if flags else []
        return [*chunks, _Chunk(condition, before, lines)]

    def condition(self, step: Step) -> tuple[str, list[str]]:
        """When the step runs ("" is always), and the line that works it out when that takes more than a name."""
        if step.is_trigger:
            return (f"trigger == {quoted(step.key)}" if len(self.plan.triggers()) > 1 else ""), []
        sources = self.module.sources[step.id]
        if not sources:
            return "", []
        wanted = [port for port in sources if port in step.required] or None
        ports = [self.any_of([self.out(*source).fired for source in sources[port]]) for port in wanted or sources]
        found = self.all_of(ports) if wanted else self.any_of(ports)
        if re.search(r" (and|or) ", found):
            flag = f"runs_{self.module.names[step.id]}"
            return flag, loose(found, f"{flag} = ")
        return found, []

    def out(self, source: str, port: str) -> _Out:
        """What a port gives. A port that never fires is never true."""
        if port == "item" and source in self.items:
            return _Out("", self.items[source][0])
        return self.module.outs.get((source, port), _Out("False", "None"))

    def any_of(self, conditions: Iterable[str]) -> str:
        found = dict.fromkeys(one for one in conditions if one != "False")
        again = True
        while again and "" not in found:
            again = False
            for group, whole in self.module.covers:
                if group <= found.keys():
                    found = dict.fromkeys([one for one in found if one not in group] + [whole])
                    again = True
                    break
        if "" in found:
            return ""
        return (" or ".join(_bracketed(one) for one in found) if len(found) > 1 else "".join(found)) or "False"

    def all_of(self, conditions: Iterable[str]) -> str:
        found = [one for one in dict.fromkeys(conditions) if one]
        return " and ".join(_bracketed(one) for one in found) if len(found) > 1 else "".join(found)

    def given(self, step: Step, port: str, condition: str, lines: list[str]) -> Code:
        """What arrives at a port, as an expression; a port that gathers several needs lines of its own."""
        known = self.plan.graph.inputs[step.id].get(port)
        sources = [self.out(*source) for source in self.module.sources[step.id].get(port, ())]
        sources = [out for out in sources if out.fired != "False"]
        if known is not None and known.many:
            if all(out.fired in ("", condition) for out in sources):
                return _listed([out.value for out in sources])
            name = f"{port}_of_{self.module.names[step.id]}"
            lines.append(f"{name}: list[Any] = []")
            for out in sources:
                if out.fired in ("", condition):
                    lines.append(f"{name}.append({out.value})")
                else:
                    lines += [f"if {out.fired}:", f"{STEP}{name}.append({out.value})"]
            return atom(name)
        return atom(self.first_of(sources, condition, self.module.certain(step, port)))

    @staticmethod
    def first_of(sources: Sequence[_Out], condition: str, required: bool) -> str:
        """The value of the first source that fired."""
        text, closed = "", False
        for out in sources:
            if out.fired in ("", condition):
                text, closed = text + out.value, True
                break
            text += f"{out.value} if {out.fired} else "
        if closed or not text:
            return text or "None"
        if required:
            # One of them fired, or the step would not run: the last needs no question.
            return text[: text.rindex(f" if {sources[-1].fired} else ")]
        return f"{text}None"

    def call(self, step: Step, condition: str, lines: list[str]) -> Code:
        """The call of the step's function."""
        function = self.module.functions[step.id]
        if step.is_trigger:
            arguments = [atom("event")]
        else:
            arguments = [self.given(step, port, condition, lines) for port in function.ports]
        loop = step.scope.loop
        if loop is not None and loop.id in self.items:
            item, index = self.items[loop.id]
            arguments += [
                atom({"item": item, "index": index}[name]) for name in function.extras if name in ("item", "index")
            ]
        arguments += [
            atom(self.steps_name if name == "steps" else name)
            for name in function.extras
            if name not in ("item", "index")
        ]
        made = call(function.name, *arguments)
        policy = step.policy
        if policy.retries and function.waits:
            again = self.module.library.kit("again")
            only = [literal([str(one) for one in policy.retry_on])] if policy.retry_on else []
            made = call(
                again,
                atom(f"lambda: {made.flat}"),
                str(policy.retries),
                repr(policy.first_delay),
                repr(policy.max_delay),
                *only,
            )
        if function.waits:
            return Code(f"await {made.flat}", f"await {made.head}", made.parts, made.close)
        return made

    def called(self, step: Step, condition: str, variable: str, lines: list[str]) -> str:
        """Lines that call a step; what its ports give. Returns what the variable holds."""
        function = self.module.functions[step.id]
        made, kind = self.call(step, condition, lines), function.gives
        what = self.passed(step, condition)
        if step.policy.on_error == "stop":
            lines += loose(made, "" if kind == "nothing" else f"{variable} = ")
            self._tell(step, condition, variable, kind, what)
            return kind
        ports = self.module.ports_of(step)
        first = step.out_ports[0] if step.out_ports else ""
        carried = step.policy.on_error == "continue"
        simple = carried and kind == "value"
        lines.append("try:")
        if simple:
            lines += _in(loose(made, f"{variable} = "))
        elif kind == "value":
            lines += _in(loose(_record({next(iter(ports)): made}), f"{variable} = "))
        elif kind in ("ports", "some"):
            lines += _in(loose(made, f"{variable} = "))
        elif kind == "nothing":
            lines += _in(loose(made))
        elif kind == "yes_no":
            yes, no = list(ports)[:2]
            chosen = f"{{{quoted(yes)}: {what}}} if {made.flat} else {{{quoted(no)}: {what}}}"
            lines += _in([f"{variable} = {chosen}  # fmt: skip"])
        else:
            ways = f"[{made.flat}]" if kind == "way" else made.flat
            lines += _in([f"{variable} = dict.fromkeys({ways}, {what})  # fmt: skip"])
        if carried:
            value = literal(step.policy.on_error_value)
            lines.append("except Exception:")
            failed = value if simple else _record({first: value}) if first else atom("{}")
            lines += _in(loose(failed, f"{variable} = "))
        else:
            lines.append("except Exception as error:")
            told = call(self.module.library.kit("explained"), "error", quoted(step.id), quoted(step.name))
            lines += _in(loose(_record({"error": told}), f"{variable} = "))
        kind = "value" if simple else "some"
        self._tell(step, condition, variable, kind, what, first_only=carried and kind == "value")
        if kind == "some" and len([port for port in ports if port != "error"]) == 1:
            group = frozenset(f"{quoted(port)} in {variable}" for port in ports)
            self.module.covers.append((group, condition))
        return kind

    def passed(self, step: Step, condition: str) -> str:
        """What a step that chooses a way passes on: what arrived at its first port."""
        if step.is_trigger:
            return "event"
        sources = [self.out(*source) for source in self.module.sources[step.id].get(step.first_input, ())]
        text = self.first_of(
            [out for out in sources if out.fired != "False"], condition, step.first_input in step.required
        )
        return f"({text})" if " if " in text else text

    def _tell(
        self, step: Step, condition: str, variable: str, kind: str, what: str, *, first_only: bool = False
    ) -> None:
        """Note what each port gives, and when."""
        outs, ports = self.module.outs, self.module.ports_of(step)
        if kind == "value":
            outs[step.id, step.out_ports[0] if first_only else ports[0]] = _Out(condition, variable)
        elif kind == "ports":
            for port in ports:
                if port != "error":
                    outs[step.id, port] = _Out(condition, f"{variable}[{quoted(port)}]")
        elif kind == "some":
            for port in ports:
                outs[step.id, port] = _Out(f"{quoted(port)} in {variable}", f"{variable}[{quoted(port)}]")
        elif kind == "yes_no":
            yes, no = (variable, f"{variable} is False") if condition else (variable, f"not {variable}")
            outs[step.id, ports[0]], outs[step.id, ports[1]] = _Out(yes, what), _Out(no, what)
            self.module.covers.append((frozenset({yes, no}), condition))
        elif kind in ("way", "ways"):
            tests = [f"{variable} == {quoted(p)}" if kind == "way" else f"{quoted(p)} in {variable}" for p in ports]
            for port, test in zip(ports, tests, strict=True):
                outs[step.id, port] = _Out(test, what)
            if kind == "way":
                fired = [test for port, test in zip(ports, tests, strict=True) if port != "error"]
                self.module.covers.append((frozenset(fired), condition))

    def noted(self, step: Step, kind: str, variable: str) -> list[str]:
        """The line that lets formulas find what a step gave by the step's name."""
        ports = [port for port in self.module.ports_of(step) if (step.id, port) in self.module.outs]
        target = f"{self.steps_name}[{quoted(step.key)}] = "
        if kind in ("ports", "some"):
            return [f"{target}{variable}"]
        pairs = {port: self.module.outs[step.id, port].value for port in ports}
        if kind == "value":
            return loose(_record({port: atom(value) for port, value in pairs.items()}), target)
        tests = [
            f"**({{{quoted(p)}: {v}}} if {self.module.outs[step.id, p].fired} else {{}})" for p, v in pairs.items()
        ]
        return [f"{target}{{{', '.join(tests)}}}  # fmt: skip"] if tests else []

    # --- loops ----------------------------------------------------------------------------------------------------------------

    def loop(self, step: Step, condition: str, variable: str, lines: list[str]) -> str:
        """A `for` over the members, with the steps of the body inside."""
        module, node = self.module, step.node
        assert isinstance(node, Loop)
        assert step.body is not None
        made = self.call(step, condition, lines)
        number = len(self.items)
        item, index = ("item", "index") if not number else (f"item_{number + 1}", f"index_{number + 1}")
        self.items[step.id] = (item, index)
        outside, self.steps_name = self.steps_name, f"{self.steps_name}_inside"
        body = self.scope(step.body, 0)
        if any(one.key in module.named for one in step.body.steps):
            body.insert(0, f"{self.steps_name} = dict({outside})")
        else:
            body = [re.sub(rf"\b{self.steps_name}\b", outside, line) for line in body]
        self.steps_name = outside
        policy = node.when_item_fails()
        inner: list[str] = []
        results = f"results_of_{module.names[step.id]}"
        if step.collects:
            inner = self.result(step, results)
        failed = f"{results}.append(None)" if policy == "continue" and step.collects else "continue"
        body = [*body, *inner]
        work: list[str] = []
        members = f"members_of_{module.names[step.id]}"
        if step.collects:
            work.append(f"{results}: list[Any] = []")
        if not step.body.steps:
            work += loose(made, f"{members} = ")
        else:
            work += loose(made, f"{members} = ")
            if policy == "stop":
                name = call(module.library.kit("item_of"), quoted(step.name), index)
                body = [f"with {name.flat}:", *_in(body)]
            else:
                body = ["try:", *_in(body), "except Exception:", f"{STEP}{failed}"]
            counted = any(re.search(rf"\b{index}\b", line) for line in body)
            head = f"for {index}, {item} in enumerate({members}):" if counted else f"for {item} in {members}:"
            work += [head, *_in(body)]
        done = results if step.collects else members
        on_error = step.policy.on_error
        if on_error == "stop":
            lines += [*work, f"{variable} = {done}"]
            module.outs[step.id, "done"] = _Out(condition, variable)
            return "value"
        lines += ["try:", *_in(work)]
        if on_error == "continue":
            lines += [f"{STEP}{variable} = {done}", "except Exception:"]
            lines += _in(loose(literal(step.policy.on_error_value), f"{variable} = "))
            module.outs[step.id, "done"] = _Out(condition, variable)
            return "value"
        told = call(module.library.kit("explained"), "error", quoted(step.id), quoted(step.name))
        lines += [f'{STEP}{variable} = {{"done": {done}}}', "except Exception as error:"]
        lines += _in(loose(_record({"error": told}), f"{variable} = "))
        for port in ("done", "error"):
            module.outs[step.id, port] = _Out(f"{quoted(port)} in {variable}", f"{variable}[{quoted(port)}]")
        both = frozenset(f"{quoted(port)} in {variable}" for port in ("done", "error"))
        module.covers.append((both, condition))
        return "some"

    def result(self, step: Step, results: str) -> list[str]:
        """Lines that keep what one iteration came to."""
        found = [self.out(edge.source, edge.source_port) for edge in self.plan.graph.back if edge.target == step.id]
        lines: list[str] = []
        for out in [out for out in reversed(found) if out.fired != "False"]:
            if not out.fired:
                return [
                    *lines,
                    *(
                        ["else:", f"{STEP}{results}.append({out.value})"]
                        if lines
                        else [f"{results}.append({out.value})"]
                    ),
                ]
            lines += [f"{'elif' if lines else 'if'} {out.fired}:", f"{STEP}{results}.append({out.value})"]
        return lines

    # --- the end --------------------------------------------------------------------------------------------------------------

    def ends(self) -> list[str]:
        """Lines that return what the run came to: the answer that a step gave, or what its last steps gave."""
        module = self.module
        lines: list[str] = []
        if module.replies:
            lines += [f"{STEP}if replies:", f"{STEP * 2}return replies[0]"]
        found: list[tuple[Step, str, str]] = []
        for step in self.plan.root.steps:
            found += [(step, test, value) for test, value in self.end(step)]
        if len(found) == 1 and not found[0][1]:
            return [*lines, f"{STEP}return {found[0][2]}"]
        if not found:
            return [*lines, f"{STEP}return None"]
        lines.append(f"{STEP}ends: dict[str, Any] = {{}}")
        chunks = [_Chunk(test, [], [f"ends[{quoted(step.key)}] = {value}"]) for step, test, value in found]
        lines += _laid_out(chunks, 1)
        return [*lines, f"{STEP}return {module.library.kit('result_of')}(ends)"]

    def end(self, step: Step) -> list[tuple[str, str]]:
        """When a step is an end of the run, and what it gave."""
        module, variable = self.module, f"from_{self.module.names[step.id]}"
        ports = [port for port in self.module.ports_of(step) if (step.id, port) in module.outs]
        linked = [port for port in ports if port in step.out]
        outs = [module.outs[step.id, port] for port in ports]
        kind = self.kinds[step.id]
        if kind in ("value", "ports"):
            return [(outs[0].fired, outs[0].value)] if outs and not linked else []
        if kind in ("yes_no", "way"):
            free = [out for port, out in zip(ports, outs, strict=True) if port not in linked]
            if kind == "yes_no" and len(free) == 2:
                base = next(whole for group, whole in module.covers if free[0].fired in group)
                return [(base, free[0].value)]
            return [(out.fired, out.value) for out in free]
        if kind == "nothing" or not outs:
            return []
        value = f"next(iter({variable}.values()))" if kind == "some" else outs[0].value
        if linked:
            names = ", ".join(quoted(port) for port in linked)
            here = f"{variable}.keys()" if kind == "some" else f"set({variable})"
            return [(f"{variable} and not {here} & {{{names}}}", value)]
        return [(variable, value)]


def _laid_out(chunks: Sequence[_Chunk], depth: int) -> list[str]:
    """Chunks as lines: what stands behind the same condition under one `if`, and its contrary under `else`."""
    lines: list[str] = []
    chain: list[_Chunk] = []

    def close() -> None:
        for chunk in chain:
            lines.extend(STEP * depth + line for line in chunk.before)
        for number, chunk in enumerate(chain):
            if not chunk.condition:
                lines.extend(STEP * depth + line for line in chunk.lines)
                continue
            contrary = number and len(chain) == 2 and _contrary(chain[0].condition, chunk.condition)
            head = "else:" if contrary else f"{'elif' if number else 'if'} {chunk.condition}:"
            lines.append(STEP * depth + head)
            lines.extend(STEP * (depth + 1) + line for line in chunk.lines or ["pass"])
        chain.clear()

    for chunk in chunks:
        if chain and chunk.condition == chain[-1].condition:
            chain[-1].before += chunk.before
            chain[-1].lines += chunk.lines
        elif chain and chunk.condition and _exclusive(chain, chunk.condition):
            chain.append(_Chunk(chunk.condition, list(chunk.before), list(chunk.lines)))
        else:
            close()
            chain.append(_Chunk(chunk.condition, list(chunk.before), list(chunk.lines)))
    close()
    return lines


def _contrary(one: str, other: str) -> bool:
    return other in (f"not {one}",) or one in (f"not {other}",)


def _exclusive(chain: Sequence[_Chunk], condition: str) -> bool:
    """Whether a condition cannot be true together with those before it."""
    if len(chain) == 1 and _contrary(chain[0].condition, condition):
        return True
    left, is_, _ = condition.partition(" == ")
    return bool(is_) and all(chunk.condition.startswith(f"{left} == ") for chunk in chain)


def _in(lines: Sequence[str]) -> list[str]:
    return [STEP + line for line in lines]


def _bracketed(text: str) -> str:
    return f"({text})" if re.search(r" (and|or) ", text) else text


def _listed(values: Sequence[str]) -> Code:
    return Code(f"[{', '.join(values)}]", "[", tuple(atom(value) for value in values), "]")


def _record(pairs: dict[str, Code]) -> Code:
    inside = [
        Code(f"{quoted(k)}: {v.flat}", f"{quoted(k)}: {v.head}" if v.parts else "", v.parts, v.close, v.stiff)
        for k, v in pairs.items()
    ]
    return Code(f"{{{', '.join(part.flat for part in inside)}}}", "{", tuple(inside), "}")


def _sentence(text: str) -> str:
    text = _said(text)
    return text if text.endswith((".", "?", "!", "…")) else f"{text}."


def _said(name: str) -> str:
    return " ".join(name.split())
