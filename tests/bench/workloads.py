"""The agents that are measured: each does the work of one address of the reference, step by step and with its history kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nodes.blueprint import Blueprint, Edge, Placed


@dataclass(frozen=True)
class Workload:
    """An agent with a webhook, and the body it is called with."""

    name: str
    blueprint: Blueprint
    body: dict[str, Any]


SMALL: dict[str, Any] = {"n": 7, "name": "x"}
LABEL = '(name | upper) + "-" + size'
CODE = """\
return {"label": name.upper() + "-" + size, "total": sum(i * i for i in range(n)) + double}
"""


def sizes(name: str, last: Placed, out: str) -> Blueprint:
    """Webhook → decide → set two fields → one last step → respond."""
    return _blueprint(
        name,
        [
            _webhook(name),
            Placed(id="decide", type="validation.decide", settings={"condition": "n > 5"}),
            _two_fields("big"),
            _two_fields("small"),
            last,
            Placed(id="respond", type="action.respond"),
        ],
        [
            ("hook", "body", "decide", "value"),
            ("decide", "yes", "big", "value"),
            ("decide", "no", "small", "value"),
            ("big", "value", last.id, "value"),
            ("small", "value", last.id, "value"),
            (last.id, out, "respond", "value"),
        ],
    )


def loop(name: str) -> Blueprint:
    """Webhook → for each item a transform → aggregate → respond."""
    each = [{"name": "i", "formula": "item"}, {"name": "v", "formula": "item * 2 + 1"}]
    results = [{"name": "count", "do": "count"}, {"name": "sum", "do": "sum", "of": "v"}]
    return _blueprint(
        name,
        [
            _webhook(name),
            Placed(id="each", type="flow.for_each", settings={"over": "input.items"}),
            Placed(id="transform", type="action.transform", settings={"fields": each}),
            Placed(id="aggregate", type="action.aggregate", settings={"results": results}),
            Placed(id="respond", type="action.respond"),
        ],
        [
            ("hook", "body", "each", "items"),
            ("each", "item", "transform", "value"),
            ("transform", "value", "each", "result"),
            ("each", "done", "aggregate", "items"),
            ("aggregate", "value", "respond", "value"),
        ],
    )


def _webhook(path: str) -> Placed:
    sample = '{"n": 7, "name": "x", "items": [1, 2, 3]}'
    return Placed(id="hook", type="trigger.webhook", settings={"path": path, "respond": "end", "sample_body": sample})


def _two_fields(size: str) -> Placed:
    values = [{"name": "size", "value": size}, {"name": "double", "value": "n * 2", "kind": "formula"}]
    return Placed(id=size, type="context.set_values", settings={"values": values})


def _blueprint(name: str, nodes: list[Placed], edges: list[tuple[str, str, str, str]]) -> Blueprint:
    wires = [
        Edge(id=f"e{number}", source=source, source_port=out, target=target, target_port=into)
        for number, (source, out, target, into) in enumerate(edges)
    ]
    return Blueprint(name=name, nodes=nodes, edges=wires)


_FIELDS = [{"name": "label", "formula": LABEL}, {"name": "total", "formula": "double + 1"}]
W1 = Workload(
    "w1", sizes("w1", Placed(id="transform", type="action.transform", settings={"fields": _FIELDS}), "value"), SMALL
)
W2 = Workload("w2", sizes("w2", Placed(id="code", type="action.run_code", settings={"code": CODE}), "result"), SMALL)
W3 = Workload("w3", loop("w3"), {**SMALL, "items": list(range(100))})
WORKLOADS = (W1, W2, W3)
