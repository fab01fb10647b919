"""Loops in the wiring of a compiled module: over members one by one or several at once, and of rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from nodes.base import Loop
from nodes.compiling import call, literal, quoted
from nodes.compiling.layout import STEP, loose, words_in
from runtime.compiling.chunks import moved_in
from runtime.compiling.steps import Fired, record_of, scopes_in
from runtime.plan import Scope, Step

if TYPE_CHECKING:
    from runtime.compiling.wiring import Wiring


class Loops:
    """The loops of one drawing."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.drawing = wiring.drawing

    def loop(self, step: Step, condition: str, variable: str, lines: list[str]) -> str:
        """The members, and the steps of the body for each of them. Returns what the variable holds."""
        drawing, node = self.drawing, step.node
        assert isinstance(node, Loop)
        assert step.body is not None
        members, results = (f"{kind}_of_{drawing.names[step.id]}" for kind in ("members", "results"))
        if node.rounds:
            members, _ = self.wiring.items[step.id] = _item_names(step)
        work = loose(self.wiring.call(step, condition, lines), f"{members} = ")
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
        item, index = self.wiring.items[step.id]
        counted = any(index in words_in(line) for line in body)
        head = f"for {index}, {item} in enumerate({members}):" if counted else f"for {item} in {members}:"
        before = [f"{results}: list[Any] = []"] if step.collects else []
        return [*before, head, *moved_in(body)]

    def rounds(self, step: Step, condition: str) -> list[str]:
        """A `for` without an end, which the function that looks at the last result leaves."""
        item, index = self.wiring.items[step.id]
        lines = self.body(
            step, lambda value: f"{item} = {value}" if value != item else "pass", f"{item} = None", "pass"
        )
        until = self.wiring.called_with(self.drawing.untils[step.id], step, condition, lines, item, index)
        waits = "await " if self.drawing.untils[step.id].waits else ""
        lines += [f"if {waits}{until.flat}:", f"{STEP}break"]
        self.drawing.library.need("import itertools")
        return [f"for {index} in itertools.count():", *moved_in(lines)]

    def together(self, step: Step, members: str, results: str, at_once: int) -> list[str]:
        """A function for one member, and several of them going on at once."""
        failed = "return [None]" if step.collects else "return []"
        body = self.body(step, lambda value: f"return [{value}]", failed, "return []")
        item, index = self.wiring.items[step.id]
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
        _, index = self.wiring.items[step.id] = _item_names(step)
        lines = self.wiring.inside(step.body)
        lines += self.result(step, keep) if step.collects else []
        policy = node.when_item_fails()
        if policy == "stop":
            what = ['"Round"'] if node.rounds else []
            name = call(drawing.library.kit("item_of"), quoted(step.name), index, *what)
            return [f"with {name.flat}:", *moved_in(lines)]
        return ["try:", *moved_in(lines), "except Exception:", f"{STEP}{failed if policy == 'continue' else dropped}"]

    def result(self, step: Step, keep: Callable[[str], str]) -> list[str]:
        """Lines that keep what one iteration came to."""
        found = [
            self.wiring.out(edge.source, edge.source_port)
            for edge in self.drawing.plan.graph.back
            if edge.target == step.id
        ]
        lines: list[str] = []
        for out in [out for out in reversed(found) if out.fired != "False"]:
            if not out.fired:
                return [*lines, "else:", f"{STEP}{keep(out.value)}"] if lines else [keep(out.value)]
            lines += [f"{'elif' if lines else 'if'} {out.fired}:", f"{STEP}{keep(out.value)}"]
        return lines


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
