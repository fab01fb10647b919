"""Small node types that show the engine's rules without the product's own nodes."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from nodes.base import (
    SKIP,
    Context,
    Effect,
    Family,
    Formula,
    ListLoop,
    Loop,
    Node,
    NodeError,
    Out,
    Pause,
    PortInfo,
    Simulated,
    Value,
)
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog


class World:
    """What the outside would see: how often each key acted, and gates that hold a step until a test lets it go."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.keys: Counter[str] = Counter()
        self.fail_times = 0
        self.fail_at: Any = None
        """The value on which an effect fails."""
        self.hold = asyncio.Event()
        self.at_once = 0
        self.most_at_once = 0
        self.asked: list[int] = []
        """The rounds after which a loop was asked whether there is another."""


world = World()


class Start(Node):
    """Begins."""

    type = "t.start"
    family, title, effect = Family.TRIGGER, "Start", Effect.E0

    async def run(self, ctx: Context, event: Any) -> Value:
        return Value(event)


class Compute(Node):
    """Gives what a formula gives."""

    type = "t.compute"
    family, title, effect = Family.CONTEXT, "Compute", Effect.E0
    formula: Formula = "input"

    async def run(self, ctx: Context, value: Any = None) -> Value:
        return Value(ctx.evaluate(self.formula))


class Fork(Out):
    yes: Any = SKIP
    no: Any = SKIP


class Branch(Node):
    """Yes or no."""

    type = "t.branch"
    family, title, effect = Family.VALIDATION, "Branch", Effect.E0
    formula: str = "true"

    async def run(self, ctx: Context, value: Any) -> Fork:
        return Fork(yes=value) if ctx.evaluate(self.formula) else Fork(no=value)


class Both(Node):
    """Adds two."""

    type = "t.both"
    family, title, effect = Family.ACTION, "Both", Effect.E0

    async def run(self, ctx: Context, a: Any, b: Any) -> Value:
        return Value([a, b])


class Gather(Node):
    """All that arrives."""

    type = "t.gather"
    family, title, effect = Family.FLOW, "Gather", Effect.E0

    async def run(self, ctx: Context, values: Annotated[list[Any], PortInfo(many=True)]) -> Value:
        return Value(values)


class FirstOf(Node):
    """The first that arrives."""

    type = "t.first"
    family, title, effect, join = Family.FLOW, "First", Effect.E0, "first"

    async def run(self, ctx: Context, values: Annotated[list[Any], PortInfo(many=True)]) -> Value:
        return Value(values[0])


class Effecting(Node):
    """Reaches outside under its key; fails, waits or holds as told."""

    type = "t.effect"
    family, title, effect, keyed = Family.ACTION, "Effect", Effect.E4, True
    fail: bool = False
    retry: bool = False
    seconds: float = 0.0
    hold: bool = False

    async def run(self, ctx: Context, value: Any) -> Value:
        world.at_once += 1
        world.most_at_once = max(world.most_at_once, world.at_once)
        try:
            world.calls.append(value)
            world.keys[ctx.idempotency_key] += 1
            if self.seconds:
                await asyncio.sleep(self.seconds)
            if self.hold:
                await world.hold.wait()
            if self.fail or (world.fail_at is not None and value == world.fail_at):
                raise NodeError("it said no", retry=self.retry, category="remote", fix="ask again")
            if world.fail_times > 0:
                world.fail_times -= 1
                raise NodeError("busy", retry=True, category="remote")
            return Value(value)
        finally:
            world.at_once -= 1

    async def simulate(self, ctx: Context, value: Any) -> Simulated:
        return Simulated(f"would send {value}", Value(f"sent {value}"))


class Unkeyed(Effecting):
    """The same, and the other side knows no keys."""

    type = "t.unkeyed"
    family, title, effect, keyed = Family.ACTION, "Unkeyed", Effect.E4, False


class Reading(Effecting):
    """The same, but it only reads."""

    type = "t.read"
    family, title, effect = Family.CONTEXT, "Read", Effect.E1


class Bug(Node):
    """Fails in a way nobody foresaw."""

    type = "t.bug"
    family, title, effect = Family.ACTION, "Bug", Effect.E0

    async def run(self, ctx: Context, value: Any) -> Value:
        raise ZeroDivisionError("secret detail")


class Ask(Node):
    """Waits for a person."""

    type = "t.ask"
    family, title, effect, gate = Family.VALIDATION, "Ask", Effect.E0, True
    expires: float | None = None

    async def run(self, ctx: Context, value: Any) -> Fork | Pause:
        return Pause("approval", self.expires, {"title": f"May {value}?", "details": value, "choices": []})

    async def resume(self, ctx: Context, answer: Any, **inputs: Any) -> Fork:
        return Fork(yes=inputs["value"]) if answer["approved"] else Fork(no=answer)


class Sleep(Node):
    """Waits for the clock."""

    type = "t.sleep"
    family, title, effect = Family.FLOW, "Sleep", Effect.E0
    until: float

    async def run(self, ctx: Context, value: Any) -> Value | Pause:
        return Pause("until", self.until)

    async def resume(self, ctx: Context, answer: Any, **inputs: Any) -> Value:
        return Value(inputs["value"])


class Call(Node):
    """Calls another blueprint."""

    type = "t.call"
    family, title, effect = Family.FLOW, "Call", Effect.E0
    blueprint: str

    async def run(self, ctx: Context, value: Any) -> Value | Pause:
        return Pause("call", data={"blueprint": self.blueprint, "input": value})

    async def resume(self, ctx: Context, answer: Any, **inputs: Any) -> Value:
        if answer["state"] != "succeeded":
            raise NodeError(f"the called one {answer['state']}: {answer['error']['message']}")
        return Value(answer["output"])


class Respond(Node):
    """Answers the caller."""

    type = "t.respond"
    family, title, effect = Family.ACTION, "Respond", Effect.E0

    async def run(self, ctx: Context, value: Any) -> Value:
        ctx.respond(status=201, body=value)
        return Value(value)


class Turns(Out):
    item: Any = SKIP
    done: list[Any] = SKIP


class Each(ListLoop):
    """For each."""

    type = "t.each"
    family, title, effect = Family.FLOW, "Each", Effect.E0

    def items_of(self, ctx: Context, items: Any) -> list[Any]:
        if not isinstance(items, list):
            raise NodeError("that is no list")
        return items

    async def run(
        self, ctx: Context, items: list[Any], result: Annotated[Any, PortInfo(back=True)] = None
    ) -> Turns: ...


class Again(Loop):
    """Repeat until a formula holds."""

    type = "t.again"
    family, title, effect = Family.FLOW, "Again", Effect.E0
    rounds = True
    until: str
    most: int = 50
    drop: bool = False

    def items_of(self, ctx: Context, items: Any) -> list[Any]:
        return [items]

    def again(self, ctx: Context, result: Any, index: int) -> bool:
        world.asked.append(index)
        if index >= self.most:
            raise NodeError("that is enough", category="limit")
        return not ctx.evaluate(self.until, result=result, index=index)

    def when_item_fails(self) -> Literal["stop", "continue", "drop"]:
        return "drop" if self.drop else "stop"

    async def run(self, ctx: Context, value: Any, result: Annotated[Any, PortInfo(back=True)] = None) -> Turns: ...


class FirstTwo(Node):
    """The first two that arrive."""

    type = "t.two"
    family, title, effect, join = Family.FLOW, "Two", Effect.E0, "first"

    def enough(self) -> int:
        return 2

    async def run(self, ctx: Context, values: Annotated[list[Any], PortInfo(many=True)]) -> Value:
        return Value(values)


class Noted(Out):
    value: Any
    variable: Any


class Note(Node):
    """Sets a variable of the run."""

    type = "t.note"
    family, title, effect = Family.FLOW, "Note", Effect.E0
    name: str
    formula: str = "input"

    async def run(self, ctx: Context, value: Any = None) -> Noted:
        return Noted(value, ctx.evaluate(self.formula))

    def sets_variable(self) -> str:
        return self.name


TYPES = Catalog(
    [
        Again, FirstTwo, Note,
        Start, Compute, Branch, Both, Gather, FirstOf, Effecting, Unkeyed, Reading, Bug, Ask, Sleep, Call, Respond, Each,
    ]
)  # fmt: skip


def drawn(nodes: Mapping[str, Any], *wires: str, **more: Any) -> Blueprint:
    """A blueprint from `{"id": "type"}` or `{"id": ("type", settings, policy)}` and wires `a.port > b.port`."""
    placed = []
    for id_, what in nodes.items():
        type_, settings, policy = (what, {}, {}) if isinstance(what, str) else (*what, {}, {})[:3]
        placed.append({"id": id_, "type": f"t.{type_}", "settings": settings, "policy": policy})
    edges = []
    for number, wire in enumerate(wires):
        (source, out), (target, into) = (end.strip().split(".") for end in wire.split(">"))
        edges.append({"id": f"e{number}", "source": source, "source_port": out, "target": target, "target_port": into})
    return Blueprint.parse({"name": "Small", "nodes": placed, "edges": edges, **more}, kept=True)
