"""What a new run takes over from a former one: which results are used again, which steps run, and the facts to begin with.

A fork begins with the facts of what it takes over, so its own journal is whole: it is taken up after a crash, told and forked
again like any other run. The rules:

- From a step: that step and everything behind it run; every other step that had come to an end keeps its result. A step inside
  a loop stands for its loop, which is gone through again from the first item.
- From the failure: only what had not come to an end runs (and what has changed). A loop that was cut goes on at the items that
  are not done.
- A step that is not what it was (its type, settings, connections, or what it is pinned to) runs, and so does everything
  behind it.
- A step that had begun and only runs because it did not come to an end keeps its idempotency key: whoever honours keys does it
  once, however often the run is repeated. What is run again on purpose, or on other data, gets a key of its own.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from nodes.base import Effect, Loop
from nodes.blueprint import Blueprint
from nodes.errors import Conflict, NotFound
from runtime.events import Fact
from runtime.plan import Plan, Step
from runtime.progress import DONE, Frame, Progress
from runtime.states import RunState

_COPIED = {
    "loop.started": ("items",),
    "loop.again": ("round", "item"),
    "agent.started": ("messages", "memory"),
    "agent.turn": ("turn", "text", "calls", "model", "tokens_in", "tokens_out", "cost", "sample", "last", "wrong"),
}
_ENDS = frozenset({"step.succeeded", "step.failed", "step.reused"})


class Start(StrEnum):
    """Where a fork begins, when it is not at a certain step."""

    BEGINNING = "beginning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Past:
    """A run that was: its document and its facts."""

    run_id: str
    plan: Plan
    facts: Sequence[Fact]
    sandbox: bool = False

    @property
    def trigger(self) -> str | None:
        """The step it began with."""
        return self.facts[0]["trigger"] if self.facts else None

    @property
    def input(self) -> Any:
        """What came in."""
        return self.facts[0]["input"] if self.facts else None

    @property
    def state(self) -> str:
        """How it ended; empty while it goes on."""
        end = self.facts[-1] if self.facts else {}
        return str(end["state"]) if end.get("kind") == "run.finished" else ""

    def key_of(self, node: str) -> str:
        """The run under whose key a step acted: this one, or the one that this one goes on from."""
        keys: Mapping[str, str] = (self.facts[0].get("fork") or {}).get("keys", {}) if self.facts else {}
        return keys.get(node, self.run_id)


@dataclass(frozen=True, slots=True)
class Reuse:
    """What a fork takes over. Steps are ids of the new document, in its order; steps inside loops go by their loop."""

    from_run: str
    start: str
    """A step's id, or a `Start`."""
    trigger: str | None
    input: Any
    kept: tuple[str, ...] = ()
    """Steps whose results are used again."""
    partly: tuple[str, ...] = ()
    """Loops that go on at the items that are not done."""
    runs: tuple[str, ...] = ()
    """Steps that run, or are skipped when it turns out that they are not needed."""
    changed: tuple[str, ...] = ()
    """Steps that run because they are not what they were."""
    again: tuple[str, ...] = ()
    """Steps with an effect outside that had begun before and will act a second time; those inside loops too."""
    facts: tuple[Fact, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    """For steps that keep their idempotency key: the run it is made from."""

    @property
    def told(self) -> dict[str, Any]:
        """What the first fact of the new run says of it."""
        return {"run": self.from_run, "start": self.start, "keys": dict(self.keys)}


def reuse(past: Past, plan: Plan, start: str = Start.FAILURE, *, sandbox: bool = False) -> Reuse:
    """Work out what a run of `plan` takes over from a former run. Raises NotFound, Conflict.

    `sandbox` says whether the new run is a test, in which pinned data counts.
    """
    if past.trigger is not None and past.trigger not in {step.id for step in plan.triggers()}:
        raise NotFound(
            "The trigger that this run began with is not in the agent any more.",
            code="fork.no_trigger",
            fix="Run the agent from the start, with one of the triggers it has now.",
        )
    if start == Start.BEGINNING:
        return Reuse(past.run_id, start, past.trigger, past.input, runs=tuple(step.id for step in plan.root.steps))
    ended = _Ended(past)
    first = _first(plan, start)
    changed = {top_of(plan, id_) for id_ in _changed(past, plan, sandbox=sandbox)}
    changed |= {top_of(plan, id_) for (id_, _), given in ended.outputs.items() if not _fits(past, plan, id_, given)}
    if start == Start.FAILURE and past.state == RunState.SUCCEEDED and not changed:
        raise Conflict(
            "Nothing in this run failed or was left undone.",
            code="fork.nothing_failed",
            fix="Choose the step to run from, or run it again from the start.",
        )
    forced = _behind(plan, first | changed)
    progress = Progress(plan)
    progress.open(past.trigger, past.input)
    facts = tuple(_seeds(past, ended, progress, forced))
    seeded = {fact["node"] for fact in facts if "node" in fact}
    root = plan.root.steps
    left = {step.id for step in root if progress.root.status[step.index] != DONE}
    partly = {id_ for id_ in left & seeded if plan.steps[id_].body is not None}
    running = [step for step in plan.steps.values() if top_of(plan, step.id) in left]
    keys = {
        step.id: past.key_of(step.id)
        for step in running
        if step.id in ended.begun and top_of(plan, step.id) not in forced
    }
    again = [
        step.id
        for step in running
        if step.effect >= Effect.E3
        and step.id in ended.begun
        and not (step.id in keys and (step.node.keyed or top_of(plan, step.id) in partly))
    ]
    return Reuse(
        from_run=past.run_id,
        start=start,
        trigger=past.trigger,
        input=past.input,
        kept=tuple(step.id for step in root if step.id in seeded and step.id not in left),
        partly=tuple(step.id for step in root if step.id in partly),
        runs=tuple(step.id for step in root if step.id in left),
        changed=tuple(step.id for step in root if step.id in changed),
        again=tuple(again),
        facts=facts,
        keys=keys,
    )


def top_of(plan: Plan, id_: str) -> str:
    """The step outside all loops that a step belongs to: itself, or the outermost loop around it."""
    step = plan.steps[id_]
    while step.scope.loop is not None:
        step = step.scope.loop
    return step.id


def failed_steps(past: Past) -> tuple[str, ...]:
    """The steps for which a run failed, those inside loops themselves; empty when it did not."""
    failed = [fact["node"] for fact in past.facts if fact["kind"] == "step.failed" and not fact["handled"]]
    return tuple(dict.fromkeys(id_ for id_ in failed if id_ in past.plan.steps and not past.plan.steps[id_].body))


class _Ended:
    """What had come to an end in a former run, found by folding its facts."""

    def __init__(self, past: Past) -> None:
        self.outputs: dict[tuple[str, str], dict[str, Any]] = {}
        """What each step gave that came to an end, by node and iteration."""
        self.given_up: set[tuple[str, str]] = set()
        """Steps whose failure ended an item of a loop that went on."""
        self.sets: dict[tuple[str, str], dict[str, Any]] = {}
        """The variables of the run that were set inside a loop, as they were at its end."""
        self.begun: set[str] = set()
        setters = [step for step in past.plan.steps.values() if step.sets and step.scope.loop is not None]
        progress = Progress(past.plan)
        for fact in past.facts:
            kind, node = fact["kind"], fact.get("node")
            found = progress.place(node, fact["iteration"]) if node is not None else None
            progress.apply(fact)
            if kind == "step.started":
                self.begun.add(str(node))
            if found is not None and kind in _ENDS:
                self._note(kind, *found)
                if (inside := [step.sets for step in setters if _is_inside(step, found[1])]) and found[1].body:
                    sets = {name: progress.variables[name] for name in inside if name in progress.variables}
                    self.sets[found[1].id, fact["iteration"]] = sets

    def _note(self, kind: str, frame: Frame, step: Step) -> None:
        self.begun.add(step.id)
        outputs = frame.outputs[step.index]
        if frame.status[step.index] == DONE and outputs is not None:
            self.outputs[step.id, frame.path] = outputs
        elif kind == "step.failed" and _gives_up_items(step):
            self.given_up.add((step.id, frame.path))


def _first(plan: Plan, start: str) -> set[str]:
    if start == Start.FAILURE:
        return set()
    if start not in plan.steps:
        raise NotFound(
            "That step is not in the agent any more.", code="fork.no_step", fix="Choose one of the steps it has now."
        )
    return {top_of(plan, start)}


def _behind(plan: Plan, first: Iterable[str]) -> set[str]:
    """Steps outside loops and everything behind them."""
    after: dict[str, set[str]] = defaultdict(set)
    for edge in plan.blueprint.edges:
        if edge.source in plan.steps and edge.target in plan.steps:
            after[top_of(plan, edge.source)].add(top_of(plan, edge.target))
    found, todo = set(first), list(first)
    while todo:
        for target in after[todo.pop()]:
            if target not in found:
                found.add(target)
                todo.append(target)
    return found


def _changed(past: Past, plan: Plan, *, sandbox: bool) -> Iterator[str]:
    """Steps of the new document that are not what they were."""
    if past.plan.content_hash == plan.content_hash and past.sandbox == sandbox:
        return
    before, after = _written(past.plan.blueprint, sandbox=past.sandbox), _written(plan.blueprint, sandbox=sandbox)
    old, new = past.plan.blueprint, plan.blueprint
    variables = [(one.name, one.value) for one in old.variables] != [(one.name, one.value) for one in new.variables]
    for id_, step in plan.steps.items():
        reads_variables = variables and b"vars" in orjson.dumps(step.placed.settings)
        # What hangs on an agent is no step, and decides what the agent does.
        hung = plan.graph.agents.attached.get(id_, {}).values()
        if (
            any(before.get(part) != after[part] for part in (id_, *hung))
            or old.time_zone != new.time_zone
            or reads_variables
        ):
            yield id_


def _written(blueprint: Blueprint, *, sandbox: bool) -> dict[str, tuple[Any, ...]]:
    """For each step all that decides what it gives."""
    wires: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for edge in blueprint.edges:
        wires[edge.target].append((edge.source, edge.source_port, edge.target_port))
    return {
        placed.id: (
            placed.type,
            placed.settings,
            placed.disabled,
            placed.pinned if sandbox else None,
            placed.policy.model_dump(include={"on_error", "on_error_value"}),
            wires[placed.id],
        )
        for placed in blueprint.nodes
    }


def _fits(past: Past, plan: Plan, id_: str, outputs: Mapping[str, Any]) -> bool:
    """Whether what a step gave can be given by the step of that id now; true for a step that is gone."""
    step = plan.steps.get(id_)
    if step is None:
        return True
    return step.type == past.plan.steps[id_].type and outputs.keys() <= plan.graph.outputs[id_].keys()


def _seeds(past: Past, ended: _Ended, progress: Progress, forced: set[str]) -> Iterator[Fact]:
    """The facts of what is taken over, in the order in which they happened; `progress` of the new run moves along."""
    plan = progress.plan
    answered = {fact.get("by"): fact for fact in past.facts if fact["kind"] == "run.responded"}
    for fact in past.facts:
        id_ = fact.get("node")
        if id_ not in plan.steps or top_of(plan, id_) in forced:
            continue
        # A loop that had ended is taken over as a whole: it does not begin again, so there is no place for what was inside.
        found = progress.place(id_, fact["iteration"])
        if found is None or found[0].status[found[1].index] == DONE:
            continue
        if (seed := _seed(past, ended, fact)) is None:
            continue
        if id_ in answered and seed["kind"] == "step.reused":
            yield {name: answered[id_][name] for name in ("kind", "status", "body", "headers", "by")}
        progress.apply({"at": 0.0, **seed})
        yield seed


def _seed(past: Past, ended: _Ended, fact: Fact) -> Fact | None:
    kind, key = fact["kind"], (fact["node"], fact["iteration"])
    place = {"node": key[0], "iteration": key[1]}
    if kind in _COPIED and key not in ended.outputs and key not in ended.given_up:
        return {"kind": kind, **place} | {name: fact[name] for name in _COPIED[kind] if name in fact}
    if kind in _ENDS and key in ended.outputs:
        origin = fact.get("from_run", past.run_id)
        seed = {"kind": "step.reused", **place, "output": ended.outputs[key], "from_run": origin}
        return seed | ({"sets": ended.sets[key]} if key in ended.sets else {})
    if kind == "step.failed" and key in ended.given_up:
        return {name: fact[name] for name in ("kind", "node", "iteration", "attempt", "started", "error", "handled")}
    return None


def _gives_up_items(step: Step) -> bool:
    """Whether a failure of this step ends an item of a loop around it, and the loop goes on; so do agents with their tools."""
    loop = step.scope.loop
    while loop is not None:
        if loop.toolbox is not None:
            return True
        assert isinstance(loop.node, Loop)
        if loop.node.when_item_fails() != "stop":
            return True
        loop = loop.scope.loop
    return False


def _is_inside(step: Step, loop: Step) -> bool:
    around = step.scope.loop
    while around is not None and around is not loop:
        around = around.scope.loop
    return around is not None
