"""The wiring of a compiled module: the body of `run`, with each step behind the condition under which the engine runs it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nodes.compiling import Code, atom, call, literal, quoted, statement
from nodes.compiling.layout import STEP, docstring, loose
from runtime.compiling.chunks import Chunk, kept_whole, laid_out, moved_in
from runtime.compiling.ends import Ends
from runtime.compiling.loops import Loops
from runtime.compiling.steps import (
    Fired,
    Function,
    arguments,
    listed_names,
    loop_around,
    record_of,
    steps_in,
    tried_again,
    tries,
)
from runtime.plan import Scope, Step, Tool

if TYPE_CHECKING:
    from runtime.compiling.drawing import Drawing

_EMPTY = {
    "ports": ": dict[str, Any] = {}",
    "some": ": dict[str, Any] = {}",
    "yes_no": ": bool | None = None",
    "way": ' = ""',
    "ways": ": list[str] = []",
}


class Wiring:
    """The body of `run`: the steps one after the other, each behind the condition under which the engine would run it."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.plan = drawing.plan
        self.items: dict[str, tuple[str, str]] = {}
        self.kinds: dict[str, str] = {}
        """What the variable of each step holds."""
        self.steps_name = "steps"

    def whole(self) -> str:
        """The function `run`, or that of an agent which is called."""
        drawing, plan = self.drawing, self.plan
        calls = bool(drawing.calls)
        starts = drawing.is_main and calls and drawing.module.starts
        lines: list[str] = []
        if drawing.is_main and drawing.waits:
            lines += ["world = world or World()"]
        if drawing.is_main and calls and not starts:
            lines += ["calls = Calls(world)"]
        if drawing.about:
            lines += loose(call(drawing.library.kit("this_run"), quoted(plan.blueprint.name)), "about = ")
        if drawing.replies:
            lines += ["replies: list[Any] = []"]
        hearing = [one.name for one in drawing.functions.values() if "heard" in one.extras]
        lines += [f"heard_by_{name}: set[float] = set()" for name in hearing]
        if drawing.named:
            lines += ["steps: dict[str, Any] = {}"]
        if drawing.sets:
            lines += loose(literal(drawing.variables), "variables: dict[str, Any] = ")
        body = [*self.scope(plan.root, 0), *Ends(self).ends()]
        if starts:
            lines += ["async with Calls(world) as calls:", *moved_in(body)]
        else:
            lines += body
        said = f"{plan.blueprint.name}: from what starts it to its result."
        return "\n".join([*self._head(), docstring(said, 1), *moved_in(lines)])

    def _head(self) -> list[str]:
        drawing = self.drawing
        triggers, first = self.plan.triggers(), drawing.first_trigger()
        given = ["event: Any = None"] if drawing.is_main else ["event: Any", "calls: Calls", "world: World"]
        if len(triggers) > 1 and first is not None:
            given.append(f"trigger: str = {quoted(first.key)}")
        if drawing.is_main and drawing.waits:
            given.append("world: World | None = None")
        head = f"{'async ' if drawing.waits else ''}def {drawing.entry}("
        return statement(arguments(head, given), "", " -> Any:")

    # --- one scope ------------------------------------------------------------------------------------------------------------

    def scope(self, scope: Scope, depth: int) -> list[str]:
        """The steps of the whole blueprint, or of a loop's body."""
        chunks: list[Chunk] = []
        for step in self.ordered(scope):
            chunks += self.step(step)
        return laid_out(chunks, depth)

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
            for sources in self.drawing.sources[here.id].values():
                found.update(source for source, _ in sources)
            todo += steps_in(here)
        return (found & inside) - {step.id}

    # --- one step -------------------------------------------------------------------------------------------------------------

    def step(self, step: Step) -> list[Chunk]:
        """The call of a step behind its condition."""
        condition, flags = self.condition(step)
        variable = f"from_{self.drawing.names[step.id]}"
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
                self.drawing.outs[step.id, step.out_ports[0]] = Fired(condition, variable)
        elif step.body is not None:
            kind = Loops(self).loop(step, condition, variable, lines)
        else:
            lines += self.tools(step)
            kind = self.called(step, condition, variable, lines)
            lines += self.remembered(step, kind, variable)
        self.kinds[step.id] = kind
        if condition and kind in _EMPTY:
            before.append(f"{variable}{_EMPTY[kind]}")
        if step.key in self.drawing.named:
            lines += self.noted(step, kind, variable)
        chunks = [Chunk("", [], flags)] if flags else []
        return [*chunks, Chunk(condition, before, lines)]

    def condition(self, step: Step) -> tuple[str, list[str]]:
        """When the step runs ("" is always), and the line that works it out when that takes more than a name."""
        if step.is_trigger:
            return (f"trigger == {quoted(step.key)}" if len(self.plan.triggers()) > 1 else ""), []
        sources = self.drawing.sources[step.id]
        if not sources:
            return "", []
        wanted = [port for port in sources if port in step.required] or None
        ports = [self.any_of([self.out(*source).fired for source in sources[port]]) for port in wanted or sources]
        if not wanted:
            ports += [out.fired for out in self.drawing.feeds.get(step.id, {}).values()]
        found = self.all_of(ports) if wanted else self.any_of(ports)
        if re.search(r" (and|or) ", found):
            flag = f"runs_{self.drawing.names[step.id]}"
            return flag, loose(found, f"{flag} = ")
        return found, []

    def out(self, source: str, port: str) -> Fired:
        """What a port gives. A port that never fires is never true."""
        if port == "item" and source in self.items:
            return Fired("", self.items[source][0])
        return self.drawing.outs.get((source, port), Fired("False", "None"))

    def any_of(self, conditions: Iterable[str]) -> str:
        found = dict.fromkeys(one for one in conditions if one != "False")
        again = True
        while again and "" not in found:
            again = False
            for group, whole in self.drawing.covers:
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
        if (fed := self.drawing.feeds.get(step.id, {}).get(port)) is not None:
            return atom(self.first_of([fed], "", required=False))
        sources = [self.out(*source) for source in self.drawing.sources[step.id].get(port, ())]
        sources = [out for out in sources if out.fired != "False"]
        if known is not None and known.many:
            if all(out.fired in ("", condition) for out in sources):
                return listed_names([out.value for out in sources])
            name = f"{port}_of_{self.drawing.names[step.id]}"
            lines.append(f"{name}: list[Any] = []")
            for out in sources:
                if out.fired in ("", condition):
                    lines.append(f"{name}.append({out.value})")
                else:
                    lines += [f"if {out.fired}:", f"{STEP}{name}.append({out.value})"]
            return atom(name)
        return atom(self.first_of(sources, condition, self.drawing.certain(step, port)))

    @staticmethod
    def first_of(sources: Sequence[Fired], condition: str, required: bool) -> str:
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
        function = self.drawing.functions[step.id]
        made = self.called_with(function, step, condition, lines)
        if tried_again(step, function.waits) and not step.policy.ask_first:
            kit = self.drawing.library.kit
            made = tries(step, lambda name, *arguments: call(kit(name), *arguments), made)
        if function.waits:
            return Code(f"await {made.flat}", f"await {made.head}", made.parts, made.close)
        return made

    def called_with(self, function: Function, step: Step, condition: str, lines: list[str], *after: str) -> Code:
        """The call of one of the step's functions; `after` are the result and the place of a round that has ended."""
        if step.is_trigger:
            arguments = [atom("event")]
        else:
            arguments = [self.given(step, port, condition, lines) for port in function.ports]
        arguments += [atom(name) for name in after]
        names = {"steps": self.steps_name}
        loop = loop_around(step)
        if loop is not None and loop.id in self.items:
            names["item"], names["index"] = self.items[loop.id]
        if step.toolbox is not None:
            uses = {tool.name: self.tool_name(step, tool) for tool in step.toolbox.tools.values()}
            names["tools"] = record_of({name: atom(use) for name, use in uses.items()}).flat
        names["heard"] = f"heard_by_{function.name}"
        arguments += [atom(names.get(name, name)) for name in function.extras]
        return call(function.name, *arguments)

    def called(self, step: Step, condition: str, variable: str, lines: list[str]) -> str:
        """Lines that call a step; what its ports give. Returns what the variable holds."""
        function = self.drawing.functions[step.id]
        made, kind = self.call(step, condition, lines), function.gives
        what = self.passed(step, condition)
        if step.policy.on_error == "stop":
            lines += loose(made, "" if kind == "nothing" else f"{variable} = ")
            self._tell(step, condition, variable, kind, what)
            return kind
        ports = self.drawing.ports_of(step)
        first = step.out_ports[0] if step.out_ports else ""
        carried = step.policy.on_error == "continue"
        simple = carried and kind == "value"
        lines.append("try:")
        if simple:
            lines += moved_in(loose(made, f"{variable} = "))
        elif kind == "value":
            lines += moved_in(loose(record_of({next(iter(ports)): made}), f"{variable} = "))
        elif kind in ("ports", "some"):
            lines += moved_in(loose(made, f"{variable} = "))
        elif kind == "nothing":
            lines += moved_in(loose(made))
        elif kind == "yes_no":
            yes, no = list(ports)[:2]
            chosen = f"{{{quoted(yes)}: {what}}} if {made.flat} else {{{quoted(no)}: {what}}}"
            lines += moved_in([f"{variable} = {chosen}  # fmt: skip"])
        else:
            ways = f"[{made.flat}]" if kind == "way" else made.flat
            lines += moved_in([f"{variable} = dict.fromkeys({ways}, {what})  # fmt: skip"])
        if carried:
            value = literal(step.policy.on_error_value)
            lines.append("except Exception:")
            failed = value if simple else record_of({first: value}) if first else atom("{}")
            lines += moved_in(loose(failed, f"{variable} = "))
        else:
            lines.append("except Exception as error:")
            told = call(self.drawing.library.kit("explained"), "error", quoted(step.id), quoted(step.name))
            lines += moved_in(loose(record_of({"error": told}), f"{variable} = "))
        kind = "value" if simple else "some"
        self._tell(step, condition, variable, kind, what, first_only=carried and kind == "value")
        if kind == "some" and len([port for port in ports if port != "error"]) == 1:
            group = frozenset(f"{quoted(port)} in {variable}" for port in ports)
            self.drawing.covers.append((group, condition))
        return kind

    def passed(self, step: Step, condition: str) -> str:
        """What a step that chooses a way passes on: what arrived at its first port."""
        if step.is_trigger:
            return "event"
        sources = [self.out(*source) for source in self.drawing.sources[step.id].get(step.first_input, ())]
        text = self.first_of(
            [out for out in sources if out.fired != "False"], condition, step.first_input in step.required
        )
        return f"({text})" if " if " in text else text

    def _tell(
        self, step: Step, condition: str, variable: str, kind: str, what: str, *, first_only: bool = False
    ) -> None:
        """Note what each port gives, and when."""
        outs, ports = self.drawing.outs, self.drawing.ports_of(step)
        if kind == "value":
            outs[step.id, step.out_ports[0] if first_only else ports[0]] = Fired(condition, variable)
        elif kind == "ports":
            for port in ports:
                if port != "error":
                    outs[step.id, port] = Fired(condition, f"{variable}[{quoted(port)}]")
        elif kind == "some":
            for port in ports:
                outs[step.id, port] = Fired(f"{quoted(port)} in {variable}", f"{variable}[{quoted(port)}]")
        elif kind == "yes_no":
            yes, no = (variable, f"{variable} is False") if condition else (variable, f"not {variable}")
            outs[step.id, ports[0]], outs[step.id, ports[1]] = Fired(yes, what), Fired(no, what)
            self.drawing.covers.append((frozenset({yes, no}), condition))
        elif kind in ("way", "ways"):
            tests = [f"{variable} == {quoted(p)}" if kind == "way" else f"{quoted(p)} in {variable}" for p in ports]
            for port, test in zip(ports, tests, strict=True):
                outs[step.id, port] = Fired(test, what)
            if kind == "way":
                fired = [test for port, test in zip(ports, tests, strict=True) if port != "error"]
                self.drawing.covers.append((frozenset(fired), condition))

    def noted(self, step: Step, kind: str, variable: str) -> list[str]:
        """The line that lets formulas find what a step gave by the step's name."""
        ports = [port for port in self.drawing.ports_of(step) if (step.id, port) in self.drawing.outs]
        target = f"{self.steps_name}[{quoted(step.key)}] = "
        if kind in ("ports", "some"):
            return [kept_whole(f"{target}{variable}")]
        pairs = {port: self.drawing.outs[step.id, port].value for port in ports}
        if kind == "value":
            return loose(record_of({port: atom(value) for port, value in pairs.items()}), target)
        tests = [
            f"**({{{quoted(p)}: {v}}} if {self.drawing.outs[step.id, p].fired} else {{}})" for p, v in pairs.items()
        ]
        return [f"{target}{{{', '.join(tests)}}}  # fmt: skip"] if tests else []

    @staticmethod
    def remembered(step: Step, kind: str, variable: str) -> list[str]:
        """Lines that give a variable of the run the value that the step worked out."""
        if not step.sets or kind not in ("ports", "some"):
            return []
        line = kept_whole(f'variables = {{**variables, {quoted(step.sets)}: {variable}["variable"]}}')
        return [line] if kind == "ports" else [f'if "variable" in {variable}:', f"{STEP}{line}"]

    # --- agents ---------------------------------------------------------------------------------------------------------------

    def tools(self, step: Step) -> list[str]:
        """A function for each tool of an agent, which is given what the model says."""
        lines: list[str] = []
        for tool in step.toolbox.tools.values() if step.toolbox is not None else ():
            name = self.tool_name(step, tool)
            lines += [
                *([] if lines else [""]),
                f"async def {name}(args: dict[str, Any]) -> Any:",
                *moved_in(self.inside(tool.scope)),
            ]
            ends = Ends(self).ends(tool.scope)
            lines += [*moved_in(ends), ""]
        return lines

    def tool_name(self, step: Step, tool: Tool) -> str:
        """The function of a tool."""
        return f"use_{self.drawing.names[tool.head.id]}"

    def inside(self, scope: Scope) -> list[str]:
        """The steps of a scope inside of another, which see what the steps around them gave."""
        outside, self.steps_name = self.steps_name, f"{self.steps_name}_inside"
        lines = self.scope(scope, 0)
        if any(one.key in self.drawing.named for one in scope.steps):
            lines.insert(0, f"{self.steps_name} = dict({outside})")
        else:
            lines = [_renamed(line, self.steps_name, outside) for line in lines]
        self.steps_name = outside
        return lines


def _bracketed(text: str) -> str:
    return f"({text})" if re.search(r" (and|or) ", text) else text


def _renamed(line: str, name: str, new: str) -> str:
    return re.sub(r"\w+", lambda found: new if found[0] == name else found[0], line)


def _said(name: str) -> str:
    return " ".join(name.split())
