"""The marks that a test run leaves on nodes and wires."""

from app.studio.testrun import Marks
from nodes.blueprint import Blueprint

DRAWING = Blueprint.parse(
    {
        "nodes": [{"id": id_, "type": "context.set_values"} for id_ in "abc"],
        "edges": [
            {"id": "ab", "source": "a", "source_port": "value", "target": "b", "target_port": "value"},
            {"id": "ac", "source": "a", "source_port": "other", "target": "c", "target_port": "value"},
        ],
    }
)


def told(*facts: dict[str, object]) -> Marks:
    marks = Marks(DRAWING)
    for fact in facts:
        marks.tell(fact)
    return marks


def test_a_step_runs_and_is_done_and_its_value_moves_along_the_wire_of_its_port():
    marks = told({"kind": "step.started", "node": "a"})
    assert marks.take() == ({"a": {"state": "running"}}, {})
    marks.tell({"kind": "step.succeeded", "node": "a", "output": {"value": 1}})
    assert marks.take() == ({"a": {"state": "done"}}, {"ab": 1})
    assert marks.take() == ({}, {})


def test_repeated_steps_are_counted_out_of_the_items_of_their_loop():
    marks = told(
        {"kind": "loop.started", "node": "a", "items": [1, 2, 3]},
        *[{"kind": "step.succeeded", "node": "b", "output": {}}] * 3,
    )
    nodes, _ = marks.take()
    assert nodes["a"] == {"state": "running", "total": 3}
    assert nodes["b"] == {"state": "done", "count": 3}


def test_a_loop_counts_the_items_that_came_back_to_it():
    back = {"kind": "step.succeeded", "node": "b", "output": {"value": 1}}
    drawing = DRAWING.model_dump()
    drawing["edges"].append({"id": "ba", "source": "b", "source_port": "value", "target": "a", "target_port": "result"})
    marks = Marks(Blueprint.parse(drawing))
    for fact in ({"kind": "loop.started", "node": "a", "items": [1, 2, 3]}, back, back):
        marks.tell(fact)
    assert marks.take()[0]["a"] == {"state": "running", "count": 2, "total": 3}
    marks.tell({"kind": "step.succeeded", "node": "a", "output": {}})
    assert marks.take()[0]["a"] == {"state": "done", "count": 3, "total": 3}


def test_one_failed_item_stays_visible_among_many_that_succeed():
    failed = {"kind": "step.failed", "node": "b", "error": {"message": "No."}}
    marks = told(failed, {"kind": "step.succeeded", "node": "b", "output": {}})
    assert marks.take()[0]["b"] == {"state": "failed", "detail": "No."}


def test_what_would_have_been_done_outside_is_listed_and_marked():
    said = {"kind": "step.simulated", "node": "b", "sentence": "would post to #support: hi"}
    marks = told(said, {"kind": "step.succeeded", "node": "b", "output": {}})
    assert marks.effects == [("b", "would post to #support: hi")]
    assert marks.take()[0]["b"]["state"] == "simulated"  # type: ignore[index]


def test_when_the_run_ends_nothing_seems_to_go_on():
    marks = told({"kind": "step.started", "node": "a"}, {"kind": "run.finished", "state": "failed"})
    assert marks.finished
    assert marks.take()[0]["a"] == {"state": "skipped"}


def test_held_and_reused_steps_have_marks_of_their_own() -> None:
    marks = told({"kind": "step.reused", "node": "a", "output": {"value": 1}}, {"kind": "step.held", "node": "b"})
    assert marks.take() == ({"a": {"state": "reused"}, "b": {"state": "held"}}, {"ab": 1})
    marks.tell({"kind": "run.finished"})
    assert marks.take()[0] == {"b": {"state": "skipped"}}
