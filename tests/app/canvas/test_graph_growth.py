"""What a drawing that grows is held to: limits of the team, addresses of its own for each webhook, other people's groups."""

from typing import Any

import pytest

from app.canvas.session import Editor, GraphSession, Rejected
from nodes.blueprint import Blueprint
from nodes.errors import FactoryError
from tests.app.canvas.test_graph_session import content, edge, node, opened


def test_a_new_webhook_gets_an_address_of_its_own_which_stays() -> None:
    session, editor = GraphSession(Blueprint()), Editor()
    session.subscribe(editor, lambda _: None)
    for id_ in ("one", "two"):
        session.commit(editor, [{"op": "add_node", "node": {"id": id_, "type": "trigger.webhook"}}])
    first, second = (session.graph.nodes[id_].settings["path"] for id_ in ("one", "two"))
    assert first and second and first != second
    session.undo(editor)
    session.redo(editor)
    assert session.graph.nodes["two"].settings["path"] == second


def test_a_node_that_another_one_put_into_a_group_is_not_taken_back_from_under_them() -> None:
    session, ada = opened(node("a"))
    bo = Editor("Bo")
    session.commit(bo, [{"op": "add_group", "group": {"id": "g", "nodes": ["a"]}}])
    assert "is in a group" in session.undo(ada).said[0]
    assert session.counts == [1, 0, 0, 1]
    session.commit(ada, [{"op": "remove_node", "id": "a"}])
    assert session.counts == [0, 0, 0, 0]


def test_a_copy_of_a_webhook_gets_an_address_of_its_own_and_one_that_moves_keeps_it() -> None:
    session, editor = GraphSession(Blueprint()), Editor()
    session.subscribe(editor, lambda _: None)
    hook = {"type": "trigger.webhook", "settings": {"path": "orders", "method": "PUT"}}
    for id_, more in (("one", {}), ("copied", {"copy": True}), ("moved", {"copy": False})):
        session.commit(editor, [{"op": "add_node", "node": {"id": id_, **hook}, **more}])
    settings = {id_: node.settings for id_, node in session.graph.nodes.items()}
    assert settings["one"] == settings["moved"] == hook["settings"]
    assert settings["copied"]["path"] not in ("orders", "")
    assert settings["copied"]["method"] == "PUT"
    session.undo(editor)
    session.undo(editor)
    session.redo(editor)
    assert session.graph.nodes["copied"].settings == settings["copied"]


# --- limits of a team -----------------------------------------------------------------------------------------------------


def limited(**most: int) -> Any:
    def limit(who: Any, name: str, amount: int) -> None:
        if amount > most.get(name, amount):
            raise FactoryError(f"{amount} are too many.", code=f"limit.{name}", fix="Ask for more.", status=413)

    return limit


def test_a_gesture_that_outgrows_the_limits_of_the_team_is_refused_whole_with_their_words() -> None:
    session, ada = opened(node("a", "trigger.start"), limit=limited(graph_nodes=2, graph_edges=0))
    before = content(session)
    with pytest.raises(Rejected) as refused:
        session.commit(ada, [node("b"), node("c")])
    error = refused.value
    assert (error.code, error.message, error.fix, error.status) == (
        "limit.graph_nodes",
        "3 are too many.",
        "Ask for more.",
        413,
    )
    assert content(session) == before
    session.commit(ada, [node("b")])
    with pytest.raises(Rejected, match="too many"):
        session.commit(ada, [edge("e", "a", "value", "b")])


def test_what_is_too_large_for_a_limit_that_was_lowered_can_be_changed_and_made_smaller() -> None:
    most = {"graph_nodes": 9}
    session, ada = opened(
        node("a", "trigger.start"), node("b"), node("c"), limit=lambda *asked: limited(**most)(*asked)
    )
    most["graph_nodes"] = 1
    session.commit(ada, [edge("e", "a", "value", "b")])
    session.commit(ada, [{"op": "remove_node", "id": "c"}])
    assert session.undo(ada).said == ("3 are too many.",)
    assert session.counts[:2] == [2, 1]
