"""The wiring of a compiled module: the body of `run`, with each step behind the condition under which the engine runs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from nodes.base import Loop, Node
from nodes.called import keep_promise
from nodes.compiling import Code, atom, call, listed, literal, quoted, statement
from nodes.compiling.layout import STEP, WIDTH, docstring, loose, words_in
from nodes.listen import CalledField
from runtime.compiling.chunks import Chunk, laid_out, moved_in
from runtime.compiling.steps import (
    Fired,
    Function,
    arguments,
    listed_names,
    loop_around,
    record_of,
    scopes_in,
    steps_in,
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
        if drawing.named:
            lines += ["steps: dict[str, Any] = {}"]
        if drawing.sets:
            lines += loose(literal(dict(plan.variables)), "variables: dict[str, Any] = ")
        body = [*self.scope(plan.root, 0), *self.ends()]
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
            kind = self.loop(step, condition, variable, lines)
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
        policy = step.policy
        # What a step waited for is not asked for again: neither does a run.
        if policy.retries and function.waits and type(step.node).resume is Node.resume and step.toolbox is None:
            again = self.drawing.library.kit("again")
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
            return [_kept_whole(f"{target}{variable}")]
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
        line = _kept_whole(f'variables = {{**variables, {quoted(step.sets)}: {variable}["variable"]}}')
        return [line] if kind == "ports" else [f'if "variable" in {variable}:', f"{STEP}{line}"]

    # --- loops ----------------------------------------------------------------------------------------------------------------

    def loop(self, step: Step, condition: str, variable: str, lines: list[str]) -> str:
        """The members, and the steps of the body for each of them. Returns what the variable holds."""
        drawing, node = self.drawing, step.node
        assert isinstance(node, Loop)
        assert step.body is not None
        members, results = (f"{kind}_of_{drawing.names[step.id]}" for kind in ("members", "results"))
        if node.rounds:
            members, _ = self.items[step.id] = _item_names(step)
        work = loose(self.call(step, condition, lines), f"{members} = ")
        waits = any(drawing.functions[one.id].waits for one in _inside(step.body) if one.id in drawing.functions)
        if step.body.steps and node.rounds:
            work += self.rounds(step, condition)
        elif step.body.steps and waits and node.at_once() > 1:
            work += self.together(step, members, results, node.at_once())
        elif step.body.steps:
            work += self.turns(step, members, results)
        done = results if step.collects and not node.rounds else members
        on_error = step.policy.on_error
        if on_error == "stop":
            lines += [*work, f"{variable} = {done}"]
            drawing.outs[step.id, "done"] = Fired(condition, variable)
            return "value"
        lines += ["try:", *moved_in(work)]
        if on_error == "continue":
            lines += [f"{STEP}{variable} = {done}", "except Exception:"]
            lines += moved_in(loose(literal(step.policy.on_error_value), f"{variable} = "))
            drawing.outs[step.id, "done"] = Fired(condition, variable)
            return "value"
        told = call(drawing.library.kit("explained"), "error", quoted(step.id), quoted(step.name))
        lines += [f'{STEP}{variable} = {{"done": {done}}}', "except Exception as error:"]
        lines += moved_in(loose(record_of({"error": told}), f"{variable} = "))
        for port in ("done", "error"):
            drawing.outs[step.id, port] = Fired(f"{quoted(port)} in {variable}", f"{variable}[{quoted(port)}]")
        both = frozenset(f"{quoted(port)} in {variable}" for port in ("done", "error"))
        drawing.covers.append((both, condition))
        return "some"

    def turns(self, step: Step, members: str, results: str) -> list[str]:
        """A `for` over the members."""
        failed = f"{results}.append(None)" if step.collects else "continue"
        body = self.body(step, lambda value: f"{results}.append({value})", failed, "continue")
        item, index = self.items[step.id]
        counted = any(index in words_in(line) for line in body)
        head = f"for {index}, {item} in enumerate({members}):" if counted else f"for {item} in {members}:"
        before = [f"{results}: list[Any] = []"] if step.collects else []
        return [*before, head, *moved_in(body)]

    def rounds(self, step: Step, condition: str) -> list[str]:
        """A `for` without an end, which the function that looks at the last result leaves."""
        item, index = self.items[step.id]
        lines = self.body(
            step, lambda value: f"{item} = {value}" if value != item else "pass", f"{item} = None", "pass"
        )
        until = self.called_with(self.drawing.untils[step.id], step, condition, lines, item, index)
        waits = "await " if self.drawing.untils[step.id].waits else ""
        lines += [f"if {waits}{until.flat}:", f"{STEP}break"]
        self.drawing.library.need("import itertools")
        return [f"for {index} in itertools.count():", *moved_in(lines)]

    def together(self, step: Step, members: str, results: str, at_once: int) -> list[str]:
        """A function for one member, and several of them going on at once."""
        failed = "return [None]" if step.collects else "return []"
        body = self.body(step, lambda value: f"return [{value}]", failed, "return []")
        item, index = self.items[step.id]
        name = f"one_of_{self.drawing.names[step.id]}"
        made = call(self.drawing.library.kit("side_by_side"), name, members, str(at_once))
        return [
            "",
            f"async def {name}({index}: int, {item}: Any) -> list[Any]:",
            *moved_in(body),
            f"{STEP}return []",
            "",
            *loose(made, f"{results} = await " if step.collects else "await "),
        ]

    def body(self, step: Step, keep: Callable[[str], str], failed: str, dropped: str) -> list[str]:
        """One iteration: its steps, how its result is kept, and what happens when one of them fails."""
        drawing, node = self.drawing, step.node
        assert isinstance(node, Loop)
        assert step.body is not None
        _, index = self.items[step.id] = _item_names(step)
        lines = self.inside(step.body)
        lines += self.result(step, keep) if step.collects else []
        policy = node.when_item_fails()
        if policy == "stop":
            what = ['"Round"'] if node.rounds else []
            name = call(drawing.library.kit("item_of"), quoted(step.name), index, *what)
            return [f"with {name.flat}:", *moved_in(lines)]
        return ["try:", *moved_in(lines), "except Exception:", f"{STEP}{failed if policy == 'continue' else dropped}"]

    def result(self, step: Step, keep: Callable[[str], str]) -> list[str]:
        """Lines that keep what one iteration came to."""
        found = [self.out(edge.source, edge.source_port) for edge in self.plan.graph.back if edge.target == step.id]
        lines: list[str] = []
        for out in [out for out in reversed(found) if out.fired != "False"]:
            if not out.fired:
                return [*lines, "else:", f"{STEP}{keep(out.value)}"] if lines else [keep(out.value)]
            lines += [f"{'elif' if lines else 'if'} {out.fired}:", f"{STEP}{keep(out.value)}"]
        return lines

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
            ends = self.ends(tool.scope)
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

    # --- the end --------------------------------------------------------------------------------------------------------------

    def ends(self, tool: Scope | None = None) -> list[str]:
        """Lines that return what the run, or a tool, came to: the answer that a step gave, or what its last steps gave."""
        drawing, scope = self.drawing, tool or self.plan.root
        lines: list[str] = []
        if drawing.replies and tool is None:
            lines += ["if replies:", *moved_in(self.returned("replies[0]"))]
        found: list[tuple[Step, str, str]] = []
        for step in scope.steps:
            found += [(step, test, value) for test, value in self.end(step, whole=tool is not None)]
        returned = self.returned if tool is None else _plainly
        if len(found) == 1 and not found[0][1]:
            return [*lines, *returned(found[0][2])]
        if not found:
            return [*lines, *returned("None")]
        lines.append("ends: dict[str, Any] = {}")
        chunks = [Chunk(test, [], [_kept_whole(f"ends[{quoted(step.key)}] = {value}")]) for step, test, value in found]
        lines += laid_out(chunks, 0)
        return [*lines, *returned(f"{drawing.library.kit('result_of')}(ends)")]

    def returned(self, value: str) -> list[str]:
        """Lines that return what it came to, once that is what its callers were promised."""
        library, triggers = self.drawing.library, self.plan.triggers()
        lines: list[str] = []
        for step in triggers:
            if fields := self.plan.returns.get(step.id):
                promised = listed(
                    call(library.use(CalledField), quoted(one.name), quoted(one.kind), literal(one.required))
                    for one in fields
                )
                kept = loose(call(library.use(keep_promise), promised, value), "return ")
                if len(triggers) == 1:
                    return kept
                lines += [f"if trigger == {quoted(step.key)}:", *moved_in(kept)]
        return [*lines, f"return {value}"]

    def end(self, step: Step, *, whole: bool = False) -> list[tuple[str, str]]:
        """When a step is an end of the run, and what it gave: by its first port, or by all where there are several."""
        drawing, variable = self.drawing, f"from_{self.drawing.names[step.id]}"
        ports = [port for port in self.drawing.ports_of(step) if (step.id, port) in drawing.outs]
        linked = [port for port in ports if port in step.out]
        outs = [drawing.outs[step.id, port] for port in ports]
        kind = self.kinds[step.id]
        if kind == "ports" and whole and len(outs) > 1 and not linked:
            return [(outs[0].fired, variable)]
        if kind in ("value", "ports"):
            return [(outs[0].fired, outs[0].value)] if outs and not linked else []
        if kind in ("yes_no", "way"):
            free = [out for port, out in zip(ports, outs, strict=True) if port not in linked]
            if kind == "yes_no" and len(free) == 2:
                base = next(whole for group, whole in drawing.covers if free[0].fired in group)
                return [(base, free[0].value)]
            return [(out.fired, out.value) for out in free]
        if kind == "nothing" or not outs:
            return []
        value = f"next(iter({variable}.values()))" if kind == "some" else outs[0].value
        if whole:
            given = variable if kind == "some" else f"dict.fromkeys({variable}, {outs[0].value})"
            value = f"{self.drawing.library.kit('given_by')}({given})"
        if linked:
            names = ", ".join(quoted(port) for port in linked)
            here = f"{variable}.keys()" if kind == "some" else f"set({variable})"
            return [(f"{variable} and not {here} & {{{names}}}", value)]
        return [(variable, value)]


def _plainly(value: str) -> list[str]:
    return [f"return {value}"]


def _kept_whole(line: str) -> str:
    """A line that a formatter would break in a way of its own, if it is that long."""
    return f"{line}  # fmt: skip" if len(line) > WIDTH - 4 * len(STEP) else line


def _inside(scope: Scope) -> Iterator[Step]:
    """All steps of a loop's body, and of the loops in it."""
    for step in scope.steps:
        yield step
        for inner in scopes_in(step):
            yield from _inside(inner)


def _depth(step: Step) -> int:
    """How many loops are around a step."""
    loop, depth = step.scope.loop, 0
    while loop is not None:
        loop, depth = loop.scope.loop, depth + 1
    return depth


def _item_names(step: Step) -> tuple[str, str]:
    """What the present item of a loop and its place are called."""
    depth = _depth(step)
    return ("item", "index") if not depth else (f"item_{depth + 1}", f"index_{depth + 1}")


def _bracketed(text: str) -> str:
    return f"({text})" if re.search(r" (and|or) ", text) else text


def _renamed(line: str, name: str, new: str) -> str:
    return re.sub(r"\w+", lambda found: new if found[0] == name else found[0], line)


def _said(name: str) -> str:
    return " ".join(name.split())
