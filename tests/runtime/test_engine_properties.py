"""Random graphs run as a plain recursive reading of the rules says: values, branches, joins, loops, failures, crashes.

The engine schedules, joins, retries and replays; `Oracle` below only asks each step's sources, and so on back to the start.
"""

import asyncio
import json
import os
import zlib
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count, product
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodes.base import SKIP, Context, Effect, Family, ListLoop, Loop, Node, NodeError, Out, PortInfo, PortType, Value
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog
from nodes.ids import new_id
from runtime.events import Fact
from runtime.execution import Execution, Order
from runtime.journal import Plans
from runtime.states import APPROVAL, DEPLOYMENT, RUN, STEP, ForbiddenMove, StepState, ends, move
from runtime.story import Story
from runtime.views import RunView
from runtime.workers.states import WORKER
from tests.runtime.engines import TENANT, WHO, Rig, open_rig

GRAPHS = int(os.environ.get("FACTORY_SOAK_GRAPHS", "0")) or 120
random_graphs = settings(max_examples=GRAPHS, deadline=None, suppress_health_check=list(HealthCheck))
ENDED = {StepState.SUCCEEDED, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED}


# --- what the graphs are made of -------------------------------------------------------------------------------------------


def digest(values: Any, salt: int) -> int:
    """One small number for anything; every error is alike, since which of several comes first is not promised."""
    text = json.dumps(values, sort_keys=True, default=lambda _: "?")
    return zlib.crc32(f"{salt} {text}".encode()) % 1_000


def plain(value: Any) -> Any:
    """A value with every error in it made alike."""
    if isinstance(value, dict):
        return "error" if "category" in value else {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value


class Begin(Node):
    """Begins."""

    type = "p.begin"
    family, title, effect = Family.TRIGGER, "Begin", Effect.E0

    async def run(self, ctx: Context, event: Any) -> Value:
        return Value(event)


class Mix(Node):
    """Makes a number of what arrives, or fails."""

    type = "p.mix"
    family, title, effect = Family.ACTION, "Mix", Effect.E0
    salt: int = 0
    fails: int = 0
    turns: int = 0
    """How often it lets others go first."""

    async def run(self, ctx: Context, a: Any, b: Any, c: Any = None) -> Value:
        return Value(await self.made({"a": a, "b": b, "c": c}))

    async def made(self, values: Mapping[str, Any]) -> int:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        found = digest(plain(dict(values)), self.salt)
        if found % 10 < self.fails:
            raise NodeError("it said no")
        return found


class Look(Mix):
    """The same as a task of its own."""

    type = "p.look"
    family, title, effect = Family.CONTEXT, "Look", Effect.E1

    async def run(self, ctx: Context, a: Any, b: Any, c: Any = None) -> Value:
        return Value(await self.made({"a": a, "b": b, "c": c}))


class Act(Mix):
    """The same with an effect that is safe before and after."""

    type = "p.act"
    family, title, effect, keyed = Family.ACTION, "Act", Effect.E3, True

    async def run(self, ctx: Context, a: Any, b: Any, c: Any = None) -> Value:
        return Value(await self.made({"a": a, "b": b, "c": c}))


class Ways(Out):
    even: Any = SKIP
    odd: Any = SKIP


class Choose(Node):
    """One way or the other."""

    type = "p.choose"
    family, title, effect = Family.VALIDATION, "Choose", Effect.E0
    salt: int = 0

    async def run(self, ctx: Context, a: Any) -> Ways:
        return Ways(even=a) if digest(plain(a), self.salt) % 2 == 0 else Ways(odd=a)


class All(Node):
    """Everything that arrives, in the document's order."""

    type = "p.all"
    family, title, effect = Family.FLOW, "All", Effect.E0

    async def run(self, ctx: Context, a: Annotated[list[Any], PortInfo(many=True, type=PortType.ANY)]) -> Value:
        return Value(a)


class Any1(Node):
    """That something arrives; which one comes first is not promised."""

    type = "p.any"
    family, title, effect, join = Family.FLOW, "Any", Effect.E0, "first"

    async def run(self, ctx: Context, a: Annotated[list[Any], PortInfo(many=True, type=PortType.ANY)]) -> Value:
        return Value("arrived")


class Any2(Any1):
    """That something arrives, of two if two come."""

    type = "p.some"

    def enough(self) -> int:
        return 2


class Turns(Out):
    item: Any = SKIP
    done: list[Any] = SKIP


class Each(ListLoop):
    """For each; up to three numbers are made of what arrives."""

    type = "p.each"
    family, title, effect = Family.FLOW, "Each", Effect.E0
    salt: int = 0

    def items_of(self, ctx: Context, items: Any) -> list[Any]:
        return members(plain(items), self.salt)

    async def run(self, ctx: Context, items: Any, result: Annotated[Any, PortInfo(back=True)] = None) -> Turns: ...


class Again(Loop):
    """Up to four rounds, as the results have it."""

    type = "p.again"
    family, title, effect = Family.FLOW, "Again", Effect.E0
    rounds = True
    salt: int = 0
    on_item_error: Literal["stop", "continue", "drop"] = "stop"

    def items_of(self, ctx: Context, items: Any) -> list[Any]:
        return [plain(items)]

    def again(self, ctx: Context, result: Any, index: int) -> bool:
        return another(result, index, self.salt)

    def when_item_fails(self) -> Literal["stop", "continue", "drop"]:
        return self.on_item_error

    async def run(self, ctx: Context, items: Any, result: Annotated[Any, PortInfo(back=True)] = None) -> Turns: ...


def another(result: Any, index: int, salt: int) -> bool:
    """Whether a loop goes into another round."""
    return index < 3 and digest([plain(result), index], salt) % 3 > 0


def members(value: Any, salt: int) -> list[Any]:
    """The items of a loop."""
    return [digest([value, number], salt) for number in range(digest(value, salt) % 4)]


TYPES = Catalog([Begin, Mix, Look, Act, Choose, All, Any1, Any2, Each, Again])
PORTS = dict.fromkeys(("mix", "look", "act"), ("a", "b", "c")) | dict.fromkeys(("choose", "all", "any", "some"), ("a",))
PORTS |= dict.fromkeys(("each", "again"), ("items",))
LOOPS = ("each", "again")
OPTIONAL = "c"
OUTS = {"begin": ("value",), "choose": ("even", "odd")} | dict.fromkeys(LOOPS, ("done",))
"""What later steps of the same level can use; `item` is for the body alone."""


# --- drawing graphs --------------------------------------------------------------------------------------------------------

Source = tuple[str, str]


@dataclass
class Placed:
    """One step as the oracle sees it: its own scope's name, and for each port where its values come from."""

    id: str
    kind: str
    scope: str
    settings: dict[str, Any]
    on_error: str = "stop"
    disabled: bool = False
    sources: list[tuple[str, Source]] = field(default_factory=list)
    result: Source | None = None
    body: list[str] = field(default_factory=list)


@dataclass
class Drawing:
    """A whole graph, readable for the oracle and as a blueprint for the engine."""

    steps: dict[str, Placed]
    input: int

    def blueprint(self) -> Blueprint:
        placed = [
            {
                "id": step.id,
                "type": f"p.{step.kind}",
                "settings": step.settings,
                "disabled": step.disabled,
                "policy": {"on_error": step.on_error},
            }
            for step in self.steps.values()
        ]
        numbers = count()
        edges = []
        for step in self.steps.values():
            wires = [*step.sources, *([("result", step.result)] if step.result else [])]
            for port, (source, out) in wires:
                edge = {"id": f"e{next(numbers)}", "source": source, "source_port": out}
                edges.append(edge | {"target": step.id, "target_port": port})
        return Blueprint.parse({"name": "Random", "nodes": placed, "edges": edges})


class Painter:
    """Draws a random graph that the checks let pass."""

    def __init__(self, draw: Any, *, pure: bool) -> None:
        self.draw = draw
        self.kinds = ["mix", "mix", "look", "choose", "all", "any", "some", *LOOPS] + ([] if pure else ["act"])
        self.steps: dict[str, Placed] = {}

    def whole(self) -> Drawing:
        self.steps["s"] = Placed("s", "begin", "", {})
        self.level("", [("s", "value")], [], size=self.draw(st.integers(1, 9)), depth=0)
        return Drawing(self.steps, self.draw(st.integers(0, 50)))

    def level(self, scope: str, near: list[Source], far: list[Source], *, size: int, depth: int) -> list[str]:
        """Steps of one scope. `near` are ports of this scope, of which each step uses one at least; `far` is further out."""
        ids = []
        for _ in range(size):
            step = self.step(scope, depth)
            self.wire(step, near, far)
            ids.append(step.id)
            if step.kind in LOOPS:
                inner = [(step.id, "item")]
                size_inside = self.draw(st.integers(0, 3))
                step.body = self.level(step.id, inner, far + near, size=size_inside, depth=depth + 1)
                if inner[1:] and self.draw(st.booleans()):
                    step.result = self.draw(st.sampled_from(inner[1:]))
            near += [(step.id, port) for port in OUTS.get(step.kind, ("value",))]
            if step.on_error == "port":
                near.append((step.id, "error"))
        return ids

    def step(self, scope: str, depth: int) -> Placed:
        kinds = self.kinds if depth < 3 else [kind for kind in self.kinds if kind not in LOOPS]
        kind = self.draw(st.sampled_from(kinds))
        settings: dict[str, Any] = {} if kind in ("all", "any", "some") else {"salt": self.draw(st.integers(0, 30))}
        if kind in ("mix", "look", "act"):
            settings["fails"] = self.draw(st.sampled_from([0, 0, 0, 0, 2, 6]))
            settings["turns"] = self.draw(st.integers(0, 3)) if kind != "mix" else 0
        elif kind in LOOPS:
            if kind == "each":
                settings["parallel"] = self.draw(st.integers(1, 3))
            settings["on_item_error"] = self.draw(st.sampled_from(["stop", "continue", "drop"]))
        placed = Placed(f"n{len(self.steps)}", kind, scope, settings)
        placed.on_error = self.draw(st.sampled_from(["stop", "continue", "port"]))
        placed.disabled = kind not in ("any", "some") and self.draw(st.integers(0, 9)) == 0
        self.steps[placed.id] = placed
        return placed

    def wire(self, step: Placed, near: list[Source], far: list[Source]) -> None:
        ports = PORTS[step.kind]
        first = self.draw(st.sampled_from(ports))
        step.sources.append((first, self.draw(st.sampled_from(near))))
        more = st.tuples(st.sampled_from(ports), st.sampled_from(near + far))
        step.sources += self.draw(st.lists(more, max_size=3))


@st.composite
def drawings(draw: Any, pure: bool = False) -> Drawing:
    return Painter(draw, pure=pure).whole()


# --- the oracle ------------------------------------------------------------------------------------------------------------


class Failed(Exception):
    """A step failed and nothing around it goes on."""


DEAD: Any = object()
Place = tuple[str, tuple[int, ...]]


class Oracle:
    """What each step must come to, asked for one by one and worked out from its sources alone."""

    def __init__(self, drawing: Drawing) -> None:
        self.steps = drawing.steps
        self.input = drawing.input
        self.known: dict[Place, Mapping[str, Any] | str] = {}
        self.items: dict[Place, list[Any]] = {}

    def path_of(self, scope: str, path: tuple[int, ...]) -> tuple[int, ...]:
        """The part of an iteration's path that belongs to a scope around it."""
        depth = 0
        while scope:
            scope, depth = self.steps[scope].scope, depth + 1
        return path[:depth]

    def value(self, source: Source, path: tuple[int, ...]) -> Any:
        """What an edge carries, or DEAD."""
        id_, port = source
        step = self.steps[id_]
        own = self.path_of(step.scope, path)
        if port == "item":
            if (id_, own) not in self.items:
                self.outcome(id_, own)
            return self.items[id_, own][path[len(own)]]
        outcome = self.outcome(id_, own)
        return outcome.get(port, DEAD) if isinstance(outcome, Mapping) else DEAD

    def outcome(self, id_: str, path: tuple[int, ...]) -> Mapping[str, Any] | str:
        """The ports that fire; or `skipped`, or `stopped` when it fails for good."""
        if (id_, path) not in self.known:
            self.known[id_, path] = self._outcome(self.steps[id_], path)
        return self.known[id_, path]

    def _outcome(self, step: Placed, path: tuple[int, ...]) -> Mapping[str, Any] | str:
        if step.kind == "begin":
            return {"value": self.input}
        arrived: dict[str, list[Any]] = {}
        for port, source in step.sources:
            if (value := self.value(source, path)) is not DEAD:
                arrived.setdefault(port, []).append(value)
        fed = {port for port, _ in step.sources if port != OPTIONAL}
        if not arrived or not fed <= arrived.keys():
            return "skipped"
        try:
            return self._given(step, path, arrived)
        except Failed:
            return self.fallen(step)

    @staticmethod
    def fallen(step: Placed) -> Mapping[str, Any] | str:
        """What a step comes to that failed."""
        if step.on_error == "port":
            return {"error": "error"}
        return {OUTS.get(step.kind, ("value",))[0]: None} if step.on_error == "continue" else "stopped"

    def _given(self, step: Placed, path: tuple[int, ...], arrived: dict[str, list[Any]]) -> Mapping[str, Any]:
        one = {port: values[0] for port, values in arrived.items()}
        if step.disabled:
            passed = arrived["a"] if step.kind == "all" else one.get(PORTS[step.kind][0])
            return {OUTS.get(step.kind, ("value",))[0]: passed}
        salt = step.settings.get("salt", 0)
        if step.kind == "choose":
            return {"even" if digest(one["a"], salt) % 2 == 0 else "odd": one["a"]}
        if step.kind == "all":
            return {"value": arrived["a"]}
        if step.kind in ("any", "some"):
            return {"value": "arrived"}
        if step.kind == "again":
            return {"done": self._rounds(step, path, plain(one["items"]))}
        if step.kind == "each":
            return {"done": self._loop(step, path, members(one["items"], salt))}
        found = digest({"a": one.get("a"), "b": one.get("b"), "c": one.get("c")}, salt)
        if found % 10 < step.settings["fails"]:
            raise Failed
        return {"value": found}

    def _loop(self, step: Placed, path: tuple[int, ...], items: list[Any]) -> list[Any]:
        self.items[step.id, path] = items
        results = []
        for index, item in enumerate(items):
            inside = (*path, index)
            ends = [self.outcome(id_, inside) for id_ in step.body]
            if "stopped" in ends:
                if step.settings["on_item_error"] == "stop":
                    raise Failed
                results.append(None if step.settings["on_item_error"] == "continue" else DEAD)
            elif step.result is not None:
                results.append(self.value(step.result, inside))
            else:
                results.append(item)
        if step.result is None:
            return items
        return [result for result in results if result is not DEAD]

    def _rounds(self, step: Placed, path: tuple[int, ...], value: Any) -> Any:
        items = self.items[step.id, path] = []
        for index in count():
            if not step.body:
                return value
            items.append(value)
            inside = (*path, index)
            ends = [self.outcome(id_, inside) for id_ in step.body]
            given = DEAD if step.result is None else self.value(step.result, inside)
            if "stopped" in ends:
                if step.settings["on_item_error"] == "stop":
                    raise Failed
                given = None if step.settings["on_item_error"] == "continue" else DEAD
            value = value if given is DEAD else plain(given)
            if not another(value, index, step.settings["salt"]):
                return value

    def run(self) -> dict[str, Mapping[str, Any] | str]:
        """The outcome of every step outside loops."""
        return {id_: self.outcome(id_, ()) for id_, step in self.steps.items() if not step.scope}


# --- comparing -------------------------------------------------------------------------------------------------------------


def compare(view: RunView, drawing: Drawing) -> None:
    """Hold an ended run against the oracle."""
    oracle = Oracle(drawing)
    expected = oracle.run()
    stopped = {id_ for id_, outcome in expected.items() if outcome == "stopped"}
    assert {step.state for step in view.steps} <= ENDED
    assert view.info.state == ("failed" if stopped else "succeeded"), view.info.error
    if stopped:
        assert view.info.error is not None and view.info.error["where"]["node"] in drawing.steps
    else:
        assert {step.node for step in view.steps if not step.iteration} == set(expected)
    for step in view.steps:
        placed = drawing.steps[step.node]
        outcome = oracle.outcome(step.node, tuple(map(int, step.iteration.split("."))) if step.iteration else ())
        if step.state == StepState.SUCCEEDED:
            assert plain(step.output) == outcome, (step.node, step.iteration)
        elif step.state == StepState.SKIPPED:
            assert outcome == "skipped", (step.node, step.iteration)
        elif step.state == StepState.FAILED:
            assert outcome == oracle.fallen(placed), (step.node, step.iteration)


# --- one engine for all examples ---------------------------------------------------------------------------------------------

Work = Callable[[Rig], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def on_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Work], None]]:
    """Do something with a real engine over one database; opening one for each graph would take longer than the graphs."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def open_() -> Rig:
            rig = await stack.enter_async_context(
                open_rig(f"sqlite:///{tmp_path_factory.mktemp('engine') / 'factory.db'}")
            )
            rig.plans = rig.engine.plans = Plans(rig.db, TYPES)
            rig.engine.journal.plans = rig.plans
            return rig

        rig = runner.run(open_())
        yield lambda act: runner.run(act(rig))
        runner.run(stack.aclose())


@random_graphs
@given(drawing=drawings())
def test_a_run_gives_what_the_rules_give(on_engine: Callable[[Work], None], drawing: Drawing) -> None:
    async def act(rig: Rig) -> None:
        compare(await rig.run(drawing.blueprint(), drawing.input), drawing)

    on_engine(act)


@random_graphs
@given(drawing=drawings(), turns=st.integers(0, 30))
def test_a_cancelled_run_leaves_no_step_open(on_engine: Callable[[Work], None], drawing: Drawing, turns: int) -> None:
    async def act(rig: Rig) -> None:
        ex = await rig.begin(drawing.blueprint(), drawing.input)
        for _ in range(turns):
            await asyncio.sleep(0)
        await rig.engine.cancel(TENANT, ex.id)
        view = await rig.runs.get(WHO, ex.id)
        assert ex.id not in rig.engine.active
        assert {step.state for step in view.steps} <= ENDED
        if view.info.state != "cancelled":
            compare(view, drawing)
        else:
            assert view.info.error is not None and view.info.error["code"] == "run.cancelled"

    on_engine(act)


@random_graphs
@given(drawing=drawings(pure=True), data=st.data())
def test_a_run_that_is_taken_up_anywhere_comes_to_the_same_end(
    on_engine: Callable[[Work], None], drawing: Drawing, data: st.DataObject
) -> None:
    """Every fact may be the last one that a crash leaves behind."""

    async def act(rig: Rig) -> None:
        view = await rig.run(drawing.blueprint(), drawing.input)
        _, _, facts = await rig.engine.journal.load(TENANT, view.info.id)
        points = st.lists(st.integers(1, len(facts) - 1), min_size=1, max_size=6, unique=True)
        for point in data.draw(points):
            again = await taken_up(rig, drawing.blueprint(), facts[:point])
            compare(again, drawing)
            if view.info.state == "succeeded":
                assert plain(again.output) == plain(view.output)

    on_engine(act)


async def taken_up(rig: Rig, blueprint: Blueprint, facts: list[Fact]) -> RunView:
    """A run that goes on from these facts."""
    plan = rig.plans.of(TENANT, blueprint)
    ex = Execution(rig.engine, Order(new_id("test"), TENANT, plan, None, None, sandbox=True))
    ex.replay(facts)
    rig.engine.launch(ex)
    async with asyncio.timeout(20):
        await ex.ended.wait()
    story = Story(plan)
    for fact in facts + ex.history:
        story.tell(fact)
    info = (await rig.runs.list(WHO, limit=1))[0]
    return story.view(replace(info, state=ex.state.value, error=ex.error))


# --- life cycles -------------------------------------------------------------------------------------------------------------

TABLES = {"run": RUN, "step": STEP, "deployment": DEPLOYMENT, "approval": APPROVAL, "worker": WORKER}


@pytest.mark.parametrize("name", TABLES)
def test_a_life_cycle_allows_what_its_table_says_and_nothing_else(name: str) -> None:
    table: Mapping[StrEnum, frozenset[StrEnum]] = TABLES[name]  # type: ignore[assignment]
    states = list(type(next(iter(table))))
    assert set(table) == set(states), "every state has its line"
    for now, to in product(states, states):
        if to in table[now]:
            assert move(table, now, to) is to
        else:
            with pytest.raises(ForbiddenMove) as refused:
                move(table, now, to)
            assert now in refused.value.message and to in refused.value.message
            assert all(allowed in refused.value.message for allowed in table[now])


@pytest.mark.parametrize("name", TABLES)
def test_every_state_reaches_an_end_and_is_reached(name: str) -> None:
    table: Mapping[StrEnum, frozenset[StrEnum]] = TABLES[name]  # type: ignore[assignment]
    ending = ends(table)
    assert ending
    assert all(reachable(table, state) & ending for state in table)
    # Steps can also begin as skipped, which no other state comes before.
    first = next(iter(table))
    assert set(table) - reachable(table, first) <= {StepState.SKIPPED}


def reachable(table: Mapping[StrEnum, frozenset[StrEnum]], start: StrEnum) -> set[StrEnum]:
    """A state and all that can follow it."""
    found, todo = {start}, [start]
    while todo:
        for after in table[todo.pop()]:
            if after not in found:
                found.add(after)
                todo.append(after)
    return found
