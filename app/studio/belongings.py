"""What an agent has, in its form: its model, its memory, and its tools with what the model is told of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from nicegui import ui

from app.permissions import on
from app.pieces import empty_state, json_tree
from app.sentences import spoken
from app.studio.desk import Desk
from nodes.agents import AgentNode
from nodes.base import PortType
from nodes.blueprint import Edge, Placed
from nodes.check.arguments import Parameter
from nodes.check.tools import Told, tools_of
from nodes.graph import Graph, read_graph, step_keys

_KINDS = {
    PortType.NUMBER: "a number",
    PortType.YES_NO: "yes or no",
    PortType.LIST: "a list",
    PortType.RECORD: "a record",
}
_WITHOUT = {
    "model": ("Model", "The one in Settings. Connect a “Model” to give it another one."),
    "memory": ("Memory", "None. Connect a “Conversation memory” to let it remember."),
}


def belongings(desk: Desk, node: Placed) -> Callable[[], None]:
    """Draw them where we are, if the node is an agent; call the result after a change to draw anew what has changed."""
    cls = desk.types.get(node.type)
    if not issubclass(cls, AgentNode):
        return lambda: None
    box = ui.element("section").classes("st-has").props('aria-label="What this agent has"').mark("belongings")
    seen: list[Placed | Edge] = []

    def draw() -> None:
        nonlocal seen
        graph = desk.session.graph
        # What is typed in the agent's own form changes nothing here.
        now: list[Placed | Edge] = [*(one for one in graph.nodes.values() if one.id != node.id), *graph.edges.values()]
        if box.default_slot.children and _same(seen, now):
            return
        seen = now
        box.clear()
        with box:
            _Belongings(desk, read_graph(desk.blueprint, desk.types), node.id).draw()

    draw()
    return draw


def _same(before: Sequence[Placed | Edge], now: Sequence[Placed | Edge]) -> bool:
    """Parts are replaced and never changed, so it is enough to look whether they are the same ones."""
    return len(before) == len(now) and all(one is other for one, other in zip(before, now, strict=True))


class _Belongings:
    def __init__(self, desk: Desk, graph: Graph, agent: str) -> None:
        self.desk, self.graph, self.agent = desk, graph, agent

    def draw(self) -> None:
        attached = self.graph.agents.attached.get(self.agent, {})
        for port in _WITHOUT:
            self._attached(port, attached.get(port, ""))
        heads = self.graph.agents.heads.get(self.agent, [])
        with ui.element("div").classes("st-head"):
            ui.label("Tools").classes("st-title")
            if heads:
                ui.label(str(len(heads))).classes("st-optional")
        if not heads:
            with empty_state(
                "handyman",
                "No tools yet",
                "So far it can only answer. Point at a step that looks something up or does something, and draw from the "
                "handle at its top to “tools” below this agent: it may then use that step whenever it needs it.",
            ):
                pass
            return
        told = {tool.head: tool for tool in tools_of(self.graph, self.agent, step_keys(self.graph))}
        for head in heads:
            self._tool(head, told.get(head))

    def _attached(self, port: str, id_: str) -> None:
        title, without = _WITHOUT[port]
        with ui.element("div").classes("st-has-line"):
            ui.label(title).classes("st-title")
            if id_:
                self._link(id_)
            else:
                ui.label(without).classes("st-help")
        if id_ and (line := self.desk.session.graph.face(id_).line):
            ui.label(line).classes("st-help break-words")

    def _link(self, id_: str) -> None:
        name = self.graph.title(id_)
        made = ui.button(name, on_click=on(partial(self.desk.show, id_))).props(
            f'flat dense no-caps align=left aria-label="Select {_plain(name)}"'
        )
        made.classes("st-has-name").mark(f"belongs-{id_}")

    def _tool(self, head: str, told: Told | None) -> None:
        placed = self.graph.placed[head]
        with ui.element("div").classes("st-row st-has-tool").mark(f"tool-{head}"):
            with ui.element("div").classes("st-has-line"):
                known = placed.type in self.desk.types
                ui.icon(self.desk.types.get(placed.type).icon if known else "extension_off").props("aria-hidden=true")
                self._link(head)
            if placed.disabled:
                ui.label("It is switched off, so the agent cannot use it.").classes("st-missing")
                return
            if told is None:
                ui.label("It is not set up yet, so the agent cannot use it.").classes("st-missing")
                return
            ui.label(spoken(told.description.partition(": ")[2])).classes("af-small")
            ui.label(_given(told.arguments.parameters)).classes("st-words")
            if placed.policy.ask_first:
                ui.label("A person is asked each time before it does anything.").classes("st-help")
            with ui.element("details").classes("st-example"):
                with ui.element("summary"):
                    ui.label("What the model sees")
                json_tree(told.arguments.told(told.name, told.description), open_levels=3)


def _given(parameters: Sequence[Parameter]) -> str:
    """What the agent gives a tool, in a sentence."""
    if not parameters:
        return "The agent gives it nothing. With “{{ args.city }}” in one of its settings, the agent says which city."
    words = []
    for one in parameters:
        about = [_KINDS[one.type]] if one.type in _KINDS else []
        about += [] if one.required else ["can be left out"]
        words.append(f"“{one.name}”" + (f" ({', '.join(about)})" if about else ""))
    return f"The agent gives it {', '.join(words)}."


def _plain(name: str) -> str:
    return name.replace('"', "'")
