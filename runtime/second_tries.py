"""Trying a failed run again from its failure, also with other data for the step that failed."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from nodes.base import Loop
from nodes.errors import Conflict
from runtime.events import Fact
from runtime.forks import Past, Reuse, Start, reuse
from runtime.plan import Plan, Step
from runtime.progress import DONE, Frame, Progress

_ENDS = ("step.succeeded", "step.failed", "step.reused")


class Place(NamedTuple):
    """A step of a run: of the whole run, or of one item of a loop."""

    node: str
    iteration: str


class Feed(NamedTuple):
    """Where an input port got its value from: what another step gave by a port, or with `item` that item or round of a loop."""

    source: Place
    port: str
    value: Any
    item: int | None = None


def take_over(past: Past, plan: Plan, step_input: Mapping[str, Any] | None = None) -> Reuse:
    """What a new run takes over; other values for the failed step stand where the old ones came from. Raises Conflict."""
    taken = reuse(past, plan, Start.FAILURE)
    failed = failure(past) if step_input else None
    if not step_input or failed is None:
        return taken
    fed = feeds(past, plan, failed)
    kept = {_kept(fact) for fact in taken.facts}
    changed: dict[Place, dict[Any, Any]] = {}
    for port, value in step_input.items():
        feed = fed.get(port)
        if feed is None or _origin(past.plan, feed) not in kept:
            raise Conflict(
                f"What the failed step gets by “{port}” cannot be changed here.",
                code="dead_letter.not_editable",
                fix="Try it again from the start, with other data.",
            )
        if value != feed.value:
            changed.setdefault(feed.source, {})[feed.port if feed.item is None else feed.item] = value
    if not changed:
        return taken
    # On other data it is another act, so it must not be taken for a repeat of the first.
    keys = {node: key for node, key in taken.keys.items() if node != failed.place.node}
    facts = [_edited(fact, changed) for fact in taken.facts if not _of_talk(plan, fact, failed.place)]
    return replace(taken, facts=tuple(facts), keys=keys)


def _kept(fact: Fact) -> tuple[Any, ...]:
    return fact["kind"], fact.get("node"), fact.get("iteration"), fact.get("round", 0)


def _origin(plan: Plan, feed: Feed) -> tuple[Any, ...]:
    """The fact that a value came with: the end of a step, the begin of a loop, or that of a later round."""
    if feed.item is None:
        return "step.reused", *feed.source, 0
    if feed.item and _in_rounds(plan.steps[feed.source.node]):
        return "loop.again", *feed.source, feed.item
    return "loop.started", *feed.source, 0


def _in_rounds(step: Step) -> bool:
    return isinstance(step.node, Loop) and step.node.rounds


class Failure(NamedTuple):
    """The step for which a run failed, and what was known around it."""

    place: Place
    frame: Frame


def failure(past: Past) -> Failure | None:
    """Where a run failed; None when it did not, or when a loop failed and no step in it."""
    progress = Progress(past.plan)
    for fact in past.facts:
        found = progress.place(fact["node"], fact["iteration"]) if fact["kind"] == "step.failed" else None
        progress.apply(fact)
        if progress.error is not None:
            return Failure(Place(fact["node"], fact["iteration"]), found[0]) if found and not found[1].body else None
    return None


def _edited(fact: Fact, changed: Mapping[Place, Mapping[Any, Any]]) -> Fact:
    new = changed.get(Place(fact.get("node", ""), fact.get("iteration", "")))
    if new is None:
        return fact
    if fact["kind"] == "step.reused":
        return {**fact, "output": {**fact["output"], **new}}
    if fact["kind"] == "loop.started":
        return {**fact, "items": [new.get(number, item) for number, item in enumerate(fact["items"])]}
    if fact["kind"] == "loop.again" and fact["round"] in new:
        return {**fact, "item": new[fact["round"]]}
    return fact


def _of_talk(plan: Plan, fact: Fact, failed: Place) -> bool:
    """Whether it belongs to the conversation of an agent that failed: on other data it begins anew."""
    step = plan.steps.get(fact.get("node", ""))
    if step is None:
        return False
    if fact["kind"].startswith("agent.") and Place(step.id, fact["iteration"]) == failed:
        return True
    begin = f"{failed.iteration}." if failed.iteration else ""
    around = step.scope.loop
    while around is not None:
        if around.toolbox is not None and around.id == failed.node:
            return str(fact["iteration"]).startswith(begin)
        around = around.scope.loop
    return False


def feeds(past: Past, plan: Plan, failed: Failure) -> dict[str, Feed]:
    """For each input port of the step that failed what came in by it, where that can be changed for this step alone.

    Left out are ports that take several values, and those that get something from outside of the loop around the step.
    """
    node, step = failed.place.node, past.plan.steps[failed.place.node]
    if node not in plan.steps or any(loop.toolbox is not None for loop in _around(step)):
        return {}
    if _cut_elsewhere(past, failed.place):
        return {}
    fed: dict[str, list[Feed | None]] = {}
    for edge in plan.blueprint.edges:
        source = past.plan.steps.get(edge.source)
        if edge.target == node and source is not None:
            fed.setdefault(edge.target_port, []).append(_feed(failed.frame, source, edge.source_port))
    return {port: some[0] for port, some in fed.items() if len(some) == 1 and some[0] is not None}


def _feed(frame: Frame, source: Step, port: str) -> Feed | None:
    loop = frame.loop
    if loop is not None and source is loop.step and port == "item":
        return Feed(Place(source.id, loop.frame.path), port, frame.item, frame.index)
    if source.scope is not frame.scope:
        return None
    given = frame.outputs[source.index] or {}
    if frame.status[source.index] != DONE or port not in given:
        return None
    return Feed(Place(source.id, frame.path), port, given[port])


def _around(step: Step) -> Iterator[Step]:
    loop = step.scope.loop
    while loop is not None:
        yield loop
        loop = loop.scope.loop


def _cut_elsewhere(past: Past, place: Place) -> bool:
    """Whether the step had begun for another item and was cut: that one must go on under the key that it began with."""
    begun = {fact["iteration"] for fact in past.facts if fact["kind"] == "step.started" and fact["node"] == place.node}
    ended = {fact["iteration"] for fact in past.facts if fact["kind"] in _ENDS and fact["node"] == place.node}
    return bool(begun - ended - {place.iteration})
