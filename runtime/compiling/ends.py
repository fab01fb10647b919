"""The end of a compiled run, or of a tool: what it came to, by the steps that nothing follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nodes.called import keep_promise
from nodes.compiling import call, listed, literal, quoted
from nodes.compiling.layout import loose
from nodes.listen import CalledField
from runtime.compiling.chunks import Chunk, kept_whole, laid_out, moved_in
from runtime.plan import Scope, Step

if TYPE_CHECKING:
    from runtime.compiling.wiring import Wiring


class Ends:
    """The ends of one drawing."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.drawing = wiring.drawing

    def ends(self, tool: Scope | None = None) -> list[str]:
        """Lines that return what the run, or a tool, came to: the answer that a step gave, or what its last steps gave."""
        drawing, scope = self.drawing, tool or self.drawing.plan.root
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
        chunks = [Chunk(test, [], [kept_whole(f"ends[{quoted(step.key)}] = {value}")]) for step, test, value in found]
        lines += laid_out(chunks, 0)
        return [*lines, *returned(f"{drawing.library.kit('result_of')}(ends)")]

    def returned(self, value: str) -> list[str]:
        """Lines that return what it came to, once that is what its callers were promised."""
        library, triggers = self.drawing.library, self.drawing.plan.triggers()
        lines: list[str] = []
        for step in triggers:
            if fields := self.drawing.plan.returns.get(step.id):
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
        kind = self.wiring.kinds[step.id]
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
