"""Trying a failed run again from its failure, also with other data for the step that failed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from nodes.errors import Conflict
from runtime.events import Fact
from runtime.forks import Past, Reuse, Start, failed_steps, reuse
from runtime.plan import Plan
from runtime.progress import DONE, Progress


class Feed(NamedTuple):
    """Where an input port got its value from."""

    source: str
    port: str
    value: Any


def take_over(past: Past, plan: Plan, step_input: Mapping[str, Any] | None = None) -> Reuse:
    """What a new run takes over; other values for the failed step stand where the old ones came from. Raises Conflict."""
    taken = reuse(past, plan, Start.FAILURE)
    failed = failed_steps(past)
    if not step_input or not failed:
        return taken
    fed = feeds(past, plan, failed[0])
    changed: dict[str, dict[str, Any]] = {}
    for port, value in step_input.items():
        if port not in fed or fed[port].source not in taken.kept:
            raise Conflict(
                f"What the failed step gets by “{port}” cannot be changed here.",
                code="dead_letter.not_editable",
                fix="Try it again from the start, with other data.",
            )
        if value != fed[port].value:
            changed.setdefault(fed[port].source, {})[fed[port].port] = value
    if not changed:
        return taken
    # On other data it is another act, so it must not be taken for a repeat of the first.
    keys = {node: key for node, key in taken.keys.items() if node != failed[0]}
    return replace(taken, facts=tuple(_edited(fact, changed) for fact in taken.facts), keys=keys)


def _edited(fact: Fact, changed: Mapping[str, Mapping[str, Any]]) -> Fact:
    if fact["kind"] != "step.reused" or fact["iteration"] or fact["node"] not in changed:
        return fact
    return {**fact, "output": {**fact["output"], **changed[fact["node"]]}}


def feeds(past: Past, plan: Plan, node: str) -> dict[str, Feed]:
    """For each input port of a step outside loops what came in by it; without ports that take several values."""
    step = plan.steps.get(node)
    if step is None or step.scope.loop is not None or node not in past.plan.steps:
        return {}
    progress = Progress(past.plan)
    for fact in past.facts:
        if fact["kind"] == "step.failed" and fact["node"] == node:
            break
        progress.apply(fact)
    found: dict[str, list[Feed]] = {}
    for edge in plan.blueprint.edges:
        source = past.plan.steps.get(edge.source)
        if edge.target != node or source is None or source.scope.loop is not None:
            continue
        given = progress.root.outputs[source.index] or {}
        if progress.root.status[source.index] == DONE and edge.source_port in given:
            feed = Feed(edge.source, edge.source_port, given[edge.source_port])
            found.setdefault(edge.target_port, []).append(feed)
    return {port: fed[0] for port, fed in found.items() if len(fed) == 1}
