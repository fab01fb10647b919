"""What a formula in the form of a node is told that it can use, with samples to pick from."""

from typing import Any

from app.studio.known import Known, as_it_is, known_at
from nodes.blueprint import Blueprint
from nodes.catalog import catalog
from runtime.views import StepView

TYPES = catalog()


def drawing(*nodes: tuple[str, str, dict[str, Any]], wires: str = "") -> Blueprint:
    """Nodes, and wires written as `a.body>b.value c.item>d.value`."""
    edges = []
    for number, wire in enumerate(wires.split()):
        (source, out), (target, into) = (end.split(".") for end in wire.split(">"))
        ends = {"source": source, "source_port": out, "target": target, "target_port": into}
        edges.append({"id": f"e{number}", **ends})
    placed = [{"id": id_, "type": type_, "settings": settings} for id_, type_, settings in nodes]
    return Blueprint.parse({"nodes": placed, "edges": edges})


HOOK = (
    "hook",
    "trigger.webhook",
    {"path": "p", "sample_body": '{"name": "Ada", "total": 1200, "lines": [{"sku": "k1"}]}'},
)
DECIDE = ("dec", "validation.decide", {})


def within(blueprint: Blueprint, node: str, kind: str, steps: dict[str, StepView] | None = None) -> Known:
    placed = blueprint.node(node)
    assert placed is not None
    return known_at(blueprint, TYPES, node, steps).within(as_it_is(placed, TYPES), kind)


def step(node: str, given: Any, output: Any = None) -> StepView:
    return StepView(node, node, "", "", 1, "succeeded", 0.0, 1.0, given, output)


def test_the_fields_of_the_trigger_s_sample_are_known_before_any_test():
    known = known_at(drawing(HOOK, DECIDE, wires="hook.body>dec.value"), TYPES, "dec")
    assert known.sample["name"] == "Ada"
    assert known.sample["input"]["total"] == 1200
    assert not known.real
    assert "total" in known.shape.fields


def test_samples_go_on_through_decisions_and_new_records():
    blueprint = drawing(
        HOOK,
        ("dec", "validation.decide", {"condition": "total > 1"}),
        ("set", "context.set_values", {"values": [{"name": "status", "value": "new"}]}),
        ("end", "validation.decide", {}),
        wires="hook.body>dec.value dec.yes>set.value set.value>end.value",
    )
    known = known_at(blueprint, TYPES, "end")
    assert known.sample["total"] == 1200
    assert known.sample["name"] == "Ada"
    assert "status" in known.sample


def test_what_really_arrived_in_the_last_test_wins():
    blueprint = drawing(HOOK, DECIDE, wires="hook.body>dec.value")
    known = known_at(blueprint, TYPES, "dec", {"dec": step("dec", {"name": "Grace", "vip": True})})
    assert known.real
    assert known.sample["name"] == "Grace"
    assert known.sample["vip"] is True
    assert "vip" in known.shape.fields


def test_a_condition_over_the_items_of_a_list_knows_an_item_while_it_is_still_empty():
    blueprint = drawing(HOOK, ("f", "validation.filter_list", {}), wires="hook.body>f.items")
    known = within(blueprint, "f", "condition", {"f": step("f", [{"price": 3}, {"price": 9}])})
    assert known.sample["item"] == {"price": 3}
    assert ("item.price", 3) in known.paths()


def test_inside_a_loop_the_item_is_known():
    blueprint = drawing(
        ("hook", "trigger.webhook", {"path": "p", "sample_body": '[{"price": 3}]'}),
        ("loop", "flow.for_each", {}),
        DECIDE,
        wires="hook.body>loop.items loop.item>dec.value",
    )
    known = known_at(blueprint, TYPES, "dec")
    assert known.sample["item"] == {"price": 3}
    assert known.sample["price"] == 3


def test_outputs_of_earlier_steps_and_variables_are_known_by_name():
    blueprint = drawing(
        HOOK, ("set", "context.set_values", {}), DECIDE, wires="hook.body>set.value set.value>dec.value"
    )
    blueprint = Blueprint.parse(blueprint.model_dump() | {"variables": [{"name": "limit", "value": 5}]})
    known = known_at(blueprint, TYPES, "dec")
    assert known.sample["steps"]["webhook"]["body"]["name"] == "Ada"
    assert known.sample["vars"] == {"limit": 5}
    assert ("steps.webhook.body", known.sample["steps"]["webhook"]["body"]) in known.paths()


def test_names_that_are_no_plain_words_are_written_so_that_a_formula_reads_them():
    sample = '{"first name": "Ada", "tags": ["a"]}'
    blueprint = drawing(
        ("hook", "trigger.webhook", {"path": "p", "sample_body": sample}), DECIDE, wires="hook.body>dec.value"
    )
    paths = dict(known_at(blueprint, TYPES, "dec").paths())
    assert paths['input["first name"]'] == "Ada"
    assert paths["tags[0]"] == "a"


def test_a_node_of_a_type_that_is_not_installed_breaks_nothing():
    blueprint = drawing(HOOK, ("odd", "other.thing", {"a": 1}), DECIDE, wires="hook.body>odd.x odd.y>dec.value")
    assert known_at(blueprint, TYPES, "dec").shape.open
    assert known_at(blueprint, TYPES, "gone").sample == {}
