"""A test run as it happens: facts in, what the canvas marks on nodes and wires out. No user interface in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nodes.blueprint import Blueprint

_STATES = {
    "step.started": "running",
    "step.retrying": "retrying",
    "step.waiting": "waiting",
    "step.held": "held",
    "step.resumed": "running",
    "step.skipped": "skipped",
}


@dataclass(slots=True)
class Marks:
    """The marks of one run; `take` gives those that changed since it was asked last."""

    blueprint: Blueprint
    finished: bool = False
    effects: list[tuple[str, str]] = field(default_factory=list)
    """What would have been done outside: the node and the sentence."""
    _nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _totals: dict[str, int] = field(default_factory=dict)
    _done: dict[str, int] = field(default_factory=dict)
    _simulated: set[str] = field(default_factory=set)
    _wires: dict[str, int] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _moved: set[str] = field(default_factory=set)

    def tell(self, fact: Mapping[str, Any]) -> None:
        """Take in the next fact."""
        kind, node = str(fact["kind"]), str(fact.get("node", ""))
        if kind == "run.finished":
            self.finished = True
            for id_, mark in self._nodes.items():
                if mark["state"] in ("running", "retrying", "waiting", "held"):
                    self._mark(id_, "skipped")
        elif kind == "loop.started":
            self._totals[node] = len(fact["items"])
            self._mark(node, "running")
        elif kind == "step.simulated":
            self._simulated.add(node)
            if len(self.effects) < 200:
                self.effects.append((node, str(fact["sentence"])))
        elif kind == "step.succeeded":
            self._done[node] = self._totals.get(node) or self._done.get(node, 0) + 1
            self._mark(node, "simulated" if node in self._simulated else "done")
            self._flow(node, fact.get("output"))
        elif kind == "step.reused":
            self._done[node] = self._totals.get(node) or self._done.get(node, 0) + 1
            self._mark(node, "reused")
            self._flow(node, fact.get("output"))
        elif kind == "step.failed":
            self._mark(node, "failed", str((fact.get("error") or {}).get("message", "")))
        elif kind in _STATES and not (kind == "step.skipped" and node in self._nodes):
            self._mark(node, _STATES[kind])

    def take(self) -> tuple[dict[str, Mapping[str, Any] | None], dict[str, int | None]]:
        """What to show anew, by node and by wire."""
        nodes: dict[str, Mapping[str, Any] | None] = {id_: dict(self._nodes[id_]) for id_ in self._changed}
        wires: dict[str, int | None] = {id_: self._wires[id_] for id_ in self._moved}
        self._changed.clear()
        self._moved.clear()
        return nodes, wires

    def _mark(self, node: str, state: str, detail: str = "") -> None:
        if self._nodes.get(node, {}).get("state") == "failed" and state != "failed":
            return  # one failed item of a loop must stay visible
        mark: dict[str, Any] = {"state": state}
        if detail:
            mark["detail"] = detail[:300]
        if (count := self._done.get(node, 0)) > 1 or (count and node in self._totals):
            mark["count"] = count
        if node in self._totals:
            mark["total"] = self._totals[node]
        self._nodes[node] = mark
        self._changed.add(node)

    def _flow(self, node: str, output: Any) -> None:
        if not isinstance(output, Mapping):
            return
        for edge in self.blueprint.edges:
            if edge.source == node and edge.source_port in output:
                self._wires[edge.id] = self._wires.get(edge.id, 0) + 1
                self._moved.add(edge.id)
                if edge.target in self._totals and self._nodes[edge.target]["state"] == "running":
                    self._done[edge.target] = self._done.get(edge.target, 0) + 1
                    self._mark(edge.target, "running")
