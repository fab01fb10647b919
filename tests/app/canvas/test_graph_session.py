"""The server's authority over a drawn blueprint: batches, limits, circles, undo, presence. No browser."""

from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.canvas.graph import Graph
from app.canvas.operations import read_batch
from app.canvas.session import Batch, Editor, Gap, GraphSession, Presence, Rejected, Replaced
from nodes.base import SKIP, Context, Effect, Family, Node, Out, Port, PortInfo, PortType, Value
from nodes.blueprint import MAX_NODES, Blueprint, Edge, Placed
from nodes.catalog import Catalog


class Start(Node):
    """Begins."""

    family, title, effect, type = Family.TRIGGER, "Start", Effect.E0, "trigger.start"

    async def run(self, ctx: Context) -> Value: ...


class Halves(Out):
    yes: Any = SKIP
    no: Any = SKIP


class Ask(Node):
    """Two ways."""

    family, title, effect, type = Family.VALIDATION, "Ask", Effect.E0, "validation.ask"
    condition: str = ""

    async def run(self, ctx: Context, value: Any) -> Halves: ...

    def describe(self) -> str:
        return self.condition


class Count(Node):
    """Takes a number."""

    family, title, effect, type = Family.ACTION, "Count", Effect.E0, "action.count"

    async def run(self, ctx: Context, number: float) -> Value: ...


class Words(Out):
    text: str = SKIP


class Speak(Node):
    """Gives a text."""

    family, title, effect, type = Family.ACTION, "Speak", Effect.E0, "action.speak"

    async def run(self, ctx: Context, value: Any) -> Words: ...


class Ways(Node):
    """As many ways as there are names."""

    family, title, effect, type = Family.VALIDATION, "Ways", Effect.E0, "validation.ways"
    names: list[str] = ["one", "two"]

    def outputs(self) -> tuple[Port, ...]:
        return tuple(Port(name) for name in self.names)

    async def run(self, ctx: Context, value: Any) -> Value: ...


class LoopOut(Out):
    item: Any = SKIP
    done: list[Any] = SKIP


class Loop(Node):
    """For each."""

    family, title, effect, type = Family.FLOW, "Loop", Effect.E0, "flow.loop"

    async def run(
        self, ctx: Context, items: list[Any], result: Annotated[Any, PortInfo(back=True)] = None
    ) -> LoopOut: ...


TYPES = Catalog([Start, Ask, Count, Speak, Ways, Loop])


def node(id_: str, type_: str = "validation.ask", **more: Any) -> dict[str, Any]:
    return {"op": "add_node", "node": {"id": id_, "type": type_, **more}}


def edge(id_: str, source: str, out: str, target: str, into: str = "value") -> dict[str, Any]:
    ends = {"source": source, "source_port": out, "target": target, "target_port": into}
    return {"op": "add_edge", "edge": {"id": id_, **ends}}


def opened(*ops: dict[str, Any], **more: Any) -> tuple[GraphSession, Editor]:
    session, editor = GraphSession(Blueprint(), types=TYPES, **more), Editor("Ada")
    session.subscribe(editor, lambda event: None)
    if ops:
        session.commit(editor, list(ops))
    return session, editor


def content(session: GraphSession | Graph) -> dict[str, Any]:
    blueprint = session.blueprint() if isinstance(session, Graph) else session.blueprint
    found = blueprint.model_dump()
    return {
        key: sorted(value, key=lambda part: part["id"]) if key in ("nodes", "edges", "notes", "groups") else value
        for key, value in found.items()
    }


# --- batches -----------------------------------------------------------------------------------------------------------


def test_a_batch_is_applied_published_and_counted() -> None:
    session, ada = opened()
    heard: list[Batch] = []
    session.subscribe(Editor("Bo"), lambda event: heard.append(event) if isinstance(event, Batch) else None)
    batch = session.commit(ada, [node("a", "trigger.start"), node("b", x=300), edge("e", "a", "value", "b")])
    assert [op["op"] for op in batch.ops] == ["add_node", "add_node", "add_edge"]
    assert heard == [batch]
    assert (session.revision, session.counts) == (1, [2, 1, 0, 0])
    assert session.blueprint.edges == [Edge(id="e", source="a", source_port="value", target="b", target_port="value")]


def test_a_refused_batch_leaves_nothing_behind() -> None:
    session, ada = opened(node("a"))
    before = content(session)
    with pytest.raises(Rejected):
        session.commit(ada, [node("b"), {"op": "move", "pos": {"a": [5, 5]}}, edge("e", "a", "yes", "gone")])
    assert content(session) == before
    assert session.revision == 1
    session.undo(ada)
    assert session.counts == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "add_node",
        {"op": "add_node"},
        [None],
        [{"op": "explode"}],
        [{"op": "add_node", "node": {"id": "../x", "type": "t"}}],
        [{"op": "add_node", "node": {"id": "x", "type": "t", "evil": 1}}],
        [{"op": "move", "pos": {"a": [float("inf"), 0]}}],
        [{"op": "move", "pos": {"a": ["1", None]}}],
        [{"op": "set", "id": "a", "patch": {"id": "b"}}],
        [{"op": "set", "id": "a", "patch": {"settings": 7}}],
        [{"op": "set", "id": "a", "patch": {"policy": {"retries": 99}}}],
        [{"op": "set", "id": "a", "patch": {"name": "x" * 200}}],
        [{"op": "set", "id": "a", "patch": {"settings": {"deep": [[[]]] * 1, "n": 2**70}}}],
        [{"op": "set_blueprint", "patch": {"name": "   "}}],
        [{"op": "set_blueprint", "patch": {"nodes": []}}],
        [{"op": "add_group", "group": {"id": "g", "nodes": ["nowhere"]}}],
    ],
)
def test_what_is_not_a_change_is_refused_in_words(raw: object) -> None:
    session, ada = opened(node("a"))
    before = content(session)
    with pytest.raises(Rejected) as refusal:
        session.commit(ada, raw)
    assert refusal.value.message.endswith(".")
    assert refusal.value.code.startswith(("canvas.", "blueprint."))
    assert content(session) == before


def test_settings_merge_by_name_and_can_be_taken_out() -> None:
    session, ada = opened(node("a", settings={"condition": "x", "left": 1}))
    session.commit(ada, [{"op": "set", "id": "a", "patch": {"settings": {"condition": "y"}}, "unset": ["left"]}])
    assert session.blueprint.nodes[0].settings == {"condition": "y"}
    session.commit(ada, [{"op": "set", "id": "a", "patch": {"policy": {"retries": 2}, "name": "Big?"}}])
    assert session.blueprint.nodes[0].policy.retries == 2
    session.undo(ada)
    session.undo(ada)
    assert session.blueprint.nodes[0].settings == {"condition": "x", "left": 1}
    assert session.blueprint.nodes[0].policy.retries == 0
    assert session.blueprint.nodes[0].name == ""


def test_a_removed_node_takes_its_edges_and_group_places_along_and_undo_brings_all_back() -> None:
    session, ada = opened(
        node("a", "trigger.start"),
        node("b"),
        edge("e", "a", "value", "b"),
        {"op": "add_group", "group": {"id": "g", "title": "Both", "nodes": ["a", "b"]}},
        {"op": "add_group", "group": {"id": "h", "nodes": ["b"]}},
    )
    before = content(session)
    session.commit(ada, [{"op": "remove_node", "id": "b"}])
    assert session.counts == [1, 0, 0, 1]
    assert session.blueprint.groups[0].nodes == ["a"]
    session.undo(ada)
    assert content(session) == before


def test_notes_groups_and_the_agent_itself_change_and_come_back() -> None:
    session, ada = opened(node("a"))
    before = content(session)
    session.commit(ada, [{"op": "add_note", "note": {"id": "n", "text": "Why"}}])
    session.commit(ada, [{"op": "set_note", "id": "n", "patch": {"text": "Why not", "color": "pink", "width": 300}}])
    session.commit(ada, [{"op": "move", "pos": {"n": [40, 50], "a": [1, 2]}}])
    session.commit(ada, [{"op": "add_group", "group": {"id": "g", "nodes": ["a"]}}])
    session.commit(ada, [{"op": "set_group", "id": "g", "patch": {"title": "All"}}])
    change = {"name": "Mail sorter", "variables": [{"name": "limit", "value": 3}], "time_zone": "Europe/Berlin"}
    session.commit(ada, [{"op": "set_blueprint", "patch": change}])
    after = content(session)
    assert session.blueprint.variables[0].value == 3
    assert (session.blueprint.notes[0].x, session.blueprint.notes[0].text) == (40, "Why not")
    for _ in range(6):
        session.undo(ada)
    assert content(session) == before
    for _ in range(6):
        session.redo(ada)
    assert content(session) == after


# --- ports, circles, limits --------------------------------------------------------------------------------------------


def test_a_text_does_not_go_into_a_number_and_the_sentence_says_so() -> None:
    session, ada = opened(node("s", "action.speak"), node("c", "action.count", name="How many"))
    with pytest.raises(Rejected, match="gives text, and “number” of “How many” takes number"):
        session.commit(ada, [edge("e", "s", "text", "c", "number")])
    with pytest.raises(Rejected, match="no output “voice”"):
        session.commit(ada, [edge("e", "s", "voice", "c", "number")])


def test_a_circle_is_refused_with_its_way_and_a_loop_back_is_not() -> None:
    session, ada = opened(
        node("l", "flow.loop"), node("a", name="First"), node("b", name="Second"), edge("1", "l", "item", "a")
    )
    session.commit(ada, [edge("2", "a", "yes", "b")])
    session.commit(ada, [edge("3", "b", "yes", "l", "result")])
    with pytest.raises(Rejected, match="circle: Second → First → Second"):
        session.commit(ada, [edge("4", "b", "no", "a")])
    with pytest.raises(Rejected, match="circle: First → First"):
        session.commit(ada, [edge("4", "a", "no", "a")])
    assert session.counts == [3, 3, 0, 0]


def test_the_same_two_ports_are_connected_once() -> None:
    session, ada = opened(node("a"), node("b"), edge("e", "a", "yes", "b"))
    with pytest.raises(Rejected, match="already connected"):
        session.commit(ada, [edge("f", "a", "yes", "b")])
    session.commit(ada, [edge("f", "a", "no", "b")])


def test_an_unknown_node_type_keeps_its_place_and_its_edges() -> None:
    session, ada = opened(node("a", "trigger.start"), node("x", "action.from_elsewhere", settings={"k": [1]}))
    session.commit(ada, [edge("e", "a", "value", "x", "anything"), edge("f", "x", "out", "a", "whatever")][:1])
    assert session.snapshot()["faces"]["x"]["known"] is False
    assert session.snapshot()["broken"] == {}


def test_an_edge_whose_port_went_away_stays_marked_and_is_whole_again_when_the_port_is_back() -> None:
    session, ada = opened(node("w", "validation.ways"), node("a"), edge("e", "w", "two", "a"))
    batch = session.commit(ada, [{"op": "set", "id": "w", "patch": {"settings": {"names": ["one", "three"]}}}])
    assert batch.broken == {"e": "“Ways” has no output “two” with its present settings."}
    assert [port["name"] for port in batch.faces["w"]["outputs"]] == ["one", "three", "tool"]
    assert session.counts[1] == 1
    removed = session.commit(ada, [{"op": "remove_node", "id": "w"}])
    assert [op["op"] for op in removed.ops] == ["remove_edge", "remove_node"]
    session.undo(ada)
    assert session.snapshot()["broken"].keys() == {"e"}
    assert session.undo(ada).broken == {"e": None}


def test_the_error_port_is_there_when_errors_go_their_own_way() -> None:
    session, ada = opened(node("a"))
    batch = session.commit(ada, [{"op": "set", "id": "a", "patch": {"policy": {"on_error": "port"}}}])
    assert [port["name"] for port in batch.faces["a"]["outputs"]] == ["yes", "no", "error", "tool"]


def test_limits_are_said_and_nothing_is_lost() -> None:
    session, ada = opened(*(node(f"n{i}") for i in range(MAX_NODES)))
    with pytest.raises(Rejected, match="500 nodes") as refusal:
        session.commit(ada, [node("more")])
    assert refusal.value.status == 413
    session, ada = opened(node("a"))
    for number in range(20):
        session.commit(ada, [node(f"b{number}", settings={"text": "x" * 100_000})])
    with pytest.raises(Rejected, match="up to 2 MB"):
        session.commit(ada, [node("last", settings={"text": "x" * 100_000})])
    assert session.counts[0] == 21
    Blueprint.parse(session.blueprint.canonical())


def test_a_document_with_a_circle_from_elsewhere_opens_and_can_be_worked_on() -> None:
    around = [
        Edge(id="1", source="a", source_port="yes", target="b", target_port="value"),
        Edge(id="2", source="b", source_port="yes", target="a", target_port="value"),
    ]
    drawn = Blueprint(nodes=[Placed(id=i, type="validation.ask") for i in "abc"], edges=around)
    session, ada = GraphSession(drawn, types=TYPES), Editor()
    session.commit(ada, [edge("3", "b", "no", "c")])
    assert session.counts == [3, 3, 0, 0]


def test_two_thousand_edges_at_once_do_not_hold_the_loop() -> None:
    ops = [node(f"n{i}") for i in range(500)]
    ops += [edge(f"e{i}-{j}", f"n{i}", "yes", f"n{i + j}") for i in range(490) for j in range(1, 5)]
    session, _ada = opened(*ops)
    assert session.counts == [500, 1960, 0, 0]


# --- undo --------------------------------------------------------------------------------------------------------------


def test_each_editor_undoes_only_own_steps() -> None:
    session, ada = opened(node("a"))
    bo = Editor("Bo")
    session.commit(bo, [node("b")])
    session.undo(ada)
    assert [n.id for n in session.blueprint.nodes] == ["b"]
    session.undo(bo)
    assert session.blueprint.nodes == []
    session.redo(ada)
    assert [n.id for n in session.blueprint.nodes] == ["a"]


def test_undo_leaves_alone_what_another_changed_since_and_says_who() -> None:
    session, ada = opened(node("a", name="Alpha"), node("b"))
    bo = Editor("Bo")
    session.commit(ada, [{"op": "move", "pos": {"a": [10, 10], "b": [20, 20]}}])
    session.commit(bo, [{"op": "move", "pos": {"a": [99, 99]}}])
    batch = session.undo(ada)
    assert batch.said == ("“Alpha” was left as it is: Bo changed it after you.",)
    assert {n.id: (n.x, n.y) for n in session.blueprint.nodes} == {"a": (99, 99), "b": (0, 0)}


def test_undo_of_a_new_node_spares_what_another_did_with_it() -> None:
    session, ada = opened(node("a"))
    bo = Editor("Bo")
    session.commit(bo, [node("b"), edge("e", "a", "yes", "b")])
    assert "left as it is" in session.undo(ada).said[0]
    assert session.counts == [2, 1, 0, 0]


def test_undo_of_a_removal_does_without_an_edge_to_a_node_that_is_gone() -> None:
    session, ada = opened(node("a"), node("b"), edge("e", "a", "yes", "b"))
    bo = Editor("Bo")
    session.commit(ada, [{"op": "remove_node", "id": "a"}])
    session.commit(bo, [{"op": "remove_node", "id": "b"}])
    batch = session.undo(ada)
    assert [n.id for n in session.blueprint.nodes] == ["a"]
    assert batch.said == ("A connection needs both its nodes, and one of them is gone.",)


def test_undo_never_closes_a_circle() -> None:
    session, ada = opened(node("a"), node("b"), edge("e", "a", "yes", "b"))
    session.commit(ada, [{"op": "remove_edge", "id": "e"}])
    session.commit(Editor("Bo"), [edge("f", "b", "yes", "a")])
    before = content(session)
    assert "circle" in session.undo(ada).said[0]
    assert content(session) == before


def test_typing_is_one_step_unless_another_wrote_in_between() -> None:
    def typed(text: str) -> list[dict[str, Any]]:
        return [{"op": "set", "id": "a", "patch": {"settings": {"condition": text}}}]

    session, ada = opened(node("a"))
    for text in ("t", "to", "tot"):
        session.commit(ada, typed(text), merge=True)
    session.undo(ada)
    assert session.blueprint.nodes[0].settings == {}
    session.commit(ada, typed("t"), merge=True)
    session.commit(Editor("Bo"), typed("bo"))
    session.commit(ada, typed("to"), merge=True)
    session.undo(ada)
    assert session.blueprint.nodes[0].settings == {"condition": "bo"}


def test_nothing_to_undo_is_said() -> None:
    session, ada = opened()
    assert session.undo(ada).said == ("There is nothing to undo.",)
    assert not session.can_undo(ada.id)


# --- numbered batches, permissions, people -------------------------------------------------------------------------------


def test_a_batch_sent_twice_is_applied_once_and_a_missing_one_is_asked_for() -> None:
    session, ada = opened()
    assert session.receive(ada, 1, "ops", [node("a")])
    assert session.receive(ada, 1, "ops", [node("a")]) is None
    with pytest.raises(Gap) as gap:
        session.receive(ada, 3, "ops", [node("c")])
    assert gap.value.expected == 2
    with pytest.raises(Rejected):
        session.receive(ada, 2, "ops", [node("a")])
    assert session.receive(ada, 3, "ops", [node("c")])
    assert session.receive(ada, 4, "undo")
    assert [n.id for n in session.blueprint.nodes] == ["a"]


def test_who_may_only_look_changes_nothing() -> None:
    session, _ = opened(node("a"))
    guest = Editor("Vi", may_edit=lambda: False)
    for attempt in (lambda: session.commit(guest, [node("b")]), lambda: session.undo(guest)):
        with pytest.raises(Rejected) as refusal:
            attempt()
        assert refusal.value.status == 403
    assert session.counts[0] == 1


def test_a_page_that_is_loaded_again_takes_its_history_over() -> None:
    session, ada = opened()
    session.receive(ada, 1, "ops", [node("a")])
    again = Editor("Ada")
    session.subscribe(again, lambda event: None)
    assert session.take_over(again, ada.id) == ("busy", 0)
    session.set_away(ada, True)
    assert session.take_over(again, ada.id) == ("resumed", 1)
    assert session.receive(again, 1, "ops", [node("a")]) is None
    session.undo(again)
    assert session.counts[0] == 0
    assert session.take_over(again, "editor_nobody") == ("unknown", 0)


def test_people_see_each_other_and_what_they_select() -> None:
    session, _ = opened(node("a"))
    seen: list[Presence] = []
    session.subscribe(None, lambda event: seen.append(event) if isinstance(event, Presence) else None)
    bo = Editor("Bo")
    leave = session.subscribe(bo, lambda event: None)
    session.select(bo, ["a", "nowhere"])
    assert [(e["name"], e["selection"]) for e in seen[-1].editors] == [("Ada", []), ("Bo", ["a"])]
    assert len({e["colour"] for e in seen[-1].editors}) == 2
    leave()
    leave()
    assert [e["name"] for e in seen[-1].editors] == ["Ada"]


def test_a_listener_that_fails_does_not_cut_off_the_others() -> None:
    session, ada = opened()
    heard: list[object] = []

    def failing(event: object) -> None:
        raise RuntimeError("this tab is gone")

    session.subscribe(None, failing)
    session.subscribe(None, heard.append)
    session.commit(ada, [node("a")])
    assert len(heard) == 1


def test_another_document_in_its_place_is_told_and_ends_the_histories() -> None:
    session, ada = opened(node("a"))
    heard: list[object] = []
    session.subscribe(None, heard.append)
    session.replace(Blueprint(nodes=[Placed(id="z", type="validation.ask")]), "A version was restored.")
    assert heard == [Replaced("A version was restored.")]
    assert not session.can_undo(ada.id)
    assert [n.id for n in session.blueprint.nodes] == ["z"]


def test_a_document_handed_out_stays_what_it_was() -> None:
    kept: list[Blueprint] = []
    session, ada = opened(on_change=lambda blueprint, revision, editor: kept.append(blueprint))
    session.commit(ada, [node("a")])
    session.commit(ada, [{"op": "move", "pos": {"a": [7, 7]}}])
    assert [blueprint.nodes[0].x for blueprint in kept] == [0, 7]


def test_a_node_says_what_it_does_on_its_face() -> None:
    session, _ada = opened(node("a", settings={"condition": "total  >\n 3"}), node("b", settings={"condition": 5}))
    faces = session.snapshot()["faces"]
    assert (faces["a"]["line"], faces["b"]["line"]) == ("total > 3", "")
    assert [port["type"] for port in faces["a"]["inputs"]] == [PortType.ANY]


# --- any sequence of gestures --------------------------------------------------------------------------------------------

IDS = st.sampled_from([f"n{i}" for i in range(6)])
EDGES = st.sampled_from([f"e{i}" for i in range(6)])
GESTURES = st.one_of(
    st.builds(node, IDS, st.sampled_from(["validation.ask", "validation.ways", "action.unknown", "flow.loop"])),
    st.builds(lambda i: {"op": "remove_node", "id": i}, IDS),
    st.builds(edge, EDGES, IDS, st.sampled_from(["yes", "one", "item"]), IDS, st.sampled_from(["value", "result"])),
    st.builds(lambda i: {"op": "remove_edge", "id": i}, EDGES),
    st.builds(lambda i, x: {"op": "move", "pos": {i: [x, -x]}}, IDS, st.integers(-50, 50)),
    st.builds(
        lambda i, c: {"op": "set", "id": i, "patch": {"settings": {"names": c}}}, IDS, st.sampled_from([["one"], ["b"]])
    ),
    st.builds(lambda i, n: {"op": "add_group", "group": {"id": "g" + i, "nodes": n}}, IDS, st.lists(IDS, max_size=3)),
)


class TwoPeople(RuleBasedStateMachine):
    """Two people draw, take back and do again; a third copy follows what is published."""

    @initialize()
    def open(self) -> None:
        self.session = GraphSession(Blueprint(), types=TYPES)
        self.people = (Editor("Ada"), Editor("Bo"))
        self.twin = GraphSession(Blueprint(), types=TYPES).graph
        self.session.subscribe(None, self.follow)

    def follow(self, event: object) -> None:
        if isinstance(event, Batch):
            for operation in read_batch(event.ops):
                self.twin.apply(operation, restoring=True)

    @rule(who=st.integers(0, 1), ops=st.lists(GESTURES, min_size=1, max_size=4))
    def draw(self, who: int, ops: list[dict[str, Any]]) -> None:
        before = content(self.session)
        try:
            self.session.commit(self.people[who], ops)
        except Rejected:
            assert content(self.session) == before
        else:
            after = content(self.session)
            self.session.undo(self.people[who])
            assert content(self.session) == before
            self.session.redo(self.people[who])
            assert content(self.session) == after

    @rule(who=st.integers(0, 1))
    def undo(self, who: int) -> None:
        self.session.undo(self.people[who])

    @rule(who=st.integers(0, 1))
    def redo(self, who: int) -> None:
        self.session.redo(self.people[who])

    @invariant()
    def the_document_is_always_one(self) -> None:
        if not hasattr(self, "session"):
            return
        blueprint = Blueprint.parse(self.session.blueprint.canonical())
        members = {n.id for n in blueprint.nodes}
        assert all(set(group.nodes) <= members for group in blueprint.groups)
        assert content(self.twin) == content(self.session)
        assert self.session.graph.bytes >= len(self.session.blueprint.canonical())
        assert self.session.graph.circle(list(self.session.graph.edges)) is None


TestTwoPeople = TwoPeople.TestCase
TestTwoPeople.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["op", "id", "node", "patch", "pos", "edge", "type"]), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_any_json_is_taken_or_refused_but_never_a_surprise(raw: object) -> None:
    session, ada = opened(node("a"))
    try:
        session.commit(ada, raw)
    except Rejected as refusal:
        assert refusal.message
