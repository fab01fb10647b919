"""What decides over values: yes or no, many ways, the right fields, a person."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nodes.base import Effect, NodeError, Pause
from nodes.formula import FormulaError, check_formula
from nodes.rules import problems_of, rules_of
from nodes.shape import record, shape_of
from tests.nodes.fakes import NOW, FakeContext, make, outcome_of, run

# --- decide ------------------------------------------------------------------------------------------------------------


async def test_decide_passes_the_value_on_unchanged() -> None:
    arrived = {"total": 5}
    out = await run(make("validation.decide", condition="total > 3"), {"value": arrived})
    assert out["yes"] is arrived
    assert "no" not in out


@pytest.mark.parametrize("condition", ["total", "'yes'", "[]", "none"])
async def test_a_condition_must_be_yes_or_no(condition: str) -> None:
    with pytest.raises(NodeError, match="yes or no"):
        await run(make("validation.decide", condition=condition), {"value": {"total": 1}})


async def test_a_misspelt_field_is_an_error_and_not_a_no() -> None:
    with pytest.raises(FormulaError, match="did you mean `total`"):
        await run(make("validation.decide", condition="totl > 3"), {"value": {"total": 5}})


# --- switch ------------------------------------------------------------------------------------------------------------


def ways(*names: str) -> list[str]:
    node = make("validation.switch", cases=[{"name": name, "condition": "true"} for name in names])
    return [port.name for port in node.outputs()]


def test_ports_are_named_after_the_ways() -> None:
    assert ways("Late delivery!", "Größe", "退款", "late delivery", "otherwise", "error", "1st") == [
        "late_delivery",
        "grosse",
        "way_3",
        "late_delivery_2",
        "otherwise_way",
        "error_way",
        "1st",
        "otherwise",
    ]


@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=8))
def test_ports_differ_whatever_the_ways_are_called(names: list[str]) -> None:
    found = ways(*names)
    assert len(set(found)) == len(names) + 1
    assert all(1 <= len(name) <= 64 and name.isascii() for name in found)


async def test_the_first_way_that_fits_is_taken() -> None:
    cases = [{"name": "a", "condition": "n > 1"}, {"name": "b", "condition": "n > 0"}]
    assert await run(make("validation.switch", cases=cases), {"value": {"n": 5}}) == {"a": {"n": 5}}


async def test_later_conditions_are_not_even_tried() -> None:
    cases = [{"name": "a", "condition": "true"}, {"name": "b", "condition": "nothing_like_this"}]
    assert await run(make("validation.switch", cases=cases), {"value": 1}) == {"a": 1}


@pytest.mark.parametrize(("value", "port"), [(3, "three"), (3.0, "three"), ("3", "three"), (True, "yes"), (None, "otherwise")])  # fmt: skip
async def test_values_of_any_kind_are_compared_as_they_are_written(value: Any, port: str) -> None:
    cases = [{"name": "three", "equals": "3"}, {"name": "yes", "equals": "true"}]
    assert list(await run(make("validation.switch", by="value", cases=cases), {"value": value})) == [port]


async def test_capitals_can_matter() -> None:
    node = make("validation.switch", by="value", cases=[{"name": "gold"}], ignore_case=False)
    assert list(await run(node, {"value": "Gold"})) == ["otherwise"]


@pytest.mark.parametrize("settings", [{"cases": []}, {"cases": [{"name": "a"}]}, {"by": "value", "value": " ", "cases": [{"name": "a"}]}])  # fmt: skip
def test_an_unfinished_switch_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make("validation.switch", **settings)


# --- check data --------------------------------------------------------------------------------------------------------


async def problems(value: Any, **settings: Any) -> list[str]:
    out = await run(make("validation.check_schema", **settings), {"value": value})
    assert ("ok" in out) != ("bad" in out)
    return out.get("problems", [])


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("text", "x", 1),
        ("number", 1.5, "1"),
        ("number", 1, True),
        ("whole number", 2.0, 1.5),
        ("yes/no", False, 0),
        ("moment", "2026-03-02", "soon"),
        ("list", [], {}),
        ("record", {}, []),
    ],
)
async def test_each_kind_is_told_from_the_others(kind: str, right: Any, wrong: Any) -> None:
    rule = [{"name": "x", "kind": kind}]
    assert await problems({"x": right}, fields=rule) == []
    assert len(await problems({"x": wrong}, fields=rule)) == 1


async def test_fields_that_nobody_asked_for_can_be_refused() -> None:
    rules = [{"name": "a.b", "required": False}]
    assert await problems({"a": {"b": 1}, "c": 2}, fields=rules, others=False) == ["“c” should not be there."]


async def test_what_is_no_record_has_no_fields() -> None:
    assert await problems([1], fields=[{"name": "a"}]) == ["What arrived must be a record, not a list."]


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "object", "required": ["a", "b"]}, {"b": 1}, ["“a” is missing."]),
        ({"properties": {"n": {"type": ["number", "null"]}}}, {"n": "x"}, ["“n” must be a number or nothing, not a text."]),
        ({"items": {"enum": ["a", "b"]}}, ["a", "c"], ["“[1]” must be one of: a, b."]),
        ({"properties": {"l": {"items": {"properties": {"p": {"maximum": 5}}}}}}, {"l": [{"p": 9}]}, ["“l[0].p” must be at most 5."]),
        ({"additionalProperties": False, "properties": {"a": {}}}, {"a": 1, "x": 1}, ["What arrived has fields that it may not have: x."]),
        ({"properties": {"z": {"$ref": "#/$defs/zip"}}, "$defs": {"zip": {"pattern": "^\\d{5}$"}}}, {"z": "1"}, ["“z” must fit the pattern ^\\d{5}$."]),
        ({"uniqueItems": True}, [{"a": 1}, {"a": 1}], ["What arrived holds the same item twice."]),
    ],
)  # fmt: skip
async def test_a_json_schema_speaks_in_sentences(schema: Any, value: Any, expected: list[str]) -> None:
    assert await problems(value, mode="schema", schema_text=orjson.dumps(schema).decode()) == expected


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("[]", "record"),
        ("{", "JSON"),
        ('{"type": "objekt"}', "not a JSON Schema"),
        ('{"$ref": "https://example.com/schema.json"}', "only parts of this schema"),
        ('{"$ref": "file:///etc/passwd"}', "only parts of this schema"),
        ('{"$ref": "#"}', "only parts of this schema"),
        ('{"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}', "refers to itself"),
        ('{"$ref": "#/$defs/nowhere"}', "leads to nothing"),
        ('{"$id": "https://example.com/"}', "cannot be used"),
        ('{"patternProperties": {"(a+)+$": {}}}', "cannot be used"),
        ('{"pattern": "(?<=x)y"}', "pattern"),
    ],
)
def test_a_schema_that_could_do_harm_is_refused(schema: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make("validation.check_schema", mode="schema", schema_text=schema)


def test_a_small_schema_that_unfolds_without_end_is_refused() -> None:
    parts = {f"p{n}": {"allOf": [{"$ref": f"#/$defs/p{n + 1}"}] * 2} for n in range(40)} | {"p40": {}}
    with pytest.raises(ValueError, match="more than"):
        rules_of(orjson.dumps({"$ref": "#/$defs/p0", "$defs": parts}).decode())


def test_a_pattern_that_would_hang_others_does_not_hang_us() -> None:
    assert problems_of(rules_of('{"pattern": "^(a+)+$"}'), "a" * 50_000 + "b")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.sampled_from(["object", "#/$defs/a", "x"]), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "properties", "items", "$ref", "$defs", "a", "allOf", "not", "pattern", "enum", "required", "minimum"]), inner, max_size=4)))  # fmt: skip
def test_any_schema_works_or_is_refused_in_words(schema: Any) -> None:
    try:
        rules = rules_of(orjson.dumps(schema).decode())
    except ValueError as error:
        assert str(error)
    except orjson.JSONEncodeError:
        return
    else:
        assert all(sentence.endswith(".") for sentence in problems_of(rules, {"a": [1, "x", None]}))


# --- filter ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-50, 50)))
async def test_every_item_goes_one_way_and_keeps_its_order(items: list[int]) -> None:
    out = await run(make("validation.filter_list", condition="item > 0"), {"items": items})
    assert out == {"kept": [n for n in items if n > 0], "dropped": [n for n in items if n <= 0]}


async def test_the_place_of_an_item_is_known() -> None:
    out = await run(make("validation.filter_list", condition="index < 2"), {"items": ["a", "b", "c"]})
    assert out["kept"] == ["a", "b"]


@pytest.mark.parametrize("items", [None, {"a": 1}, "abc", 5])
async def test_what_is_no_list_cannot_be_filtered(items: Any) -> None:
    with pytest.raises(NodeError, match="list"):
        await run(make("validation.filter_list", condition="true"), {"items": items})


async def test_fields_of_an_item_are_known_by_name() -> None:
    node = make("validation.filter_list", condition="total > 1 and item.total > 1 and input | length == 2")
    out = await run(node, {"items": [{"total": 1, "input": "x"}, {"total": 2, "input": "x"}]})
    assert out["kept"] == [{"total": 2, "input": "x"}]
    known = node.known_in("condition", record(), {"items": shape_of([{"total": 1}])})
    assert check_formula("total > 1", known) == []
    assert check_formula("item.totl > 1", known)


# --- approval ----------------------------------------------------------------------------------------------------------


async def asked(value: Any, **settings: Any) -> Pause:
    outcome = await outcome_of(make("validation.approve", **settings), {"value": value}, FakeContext())
    assert isinstance(outcome, Pause)
    return outcome


async def test_a_person_is_asked_with_what_is_needed_to_decide() -> None:
    pause = await asked({"n": 5}, question="Pay {{ n }}?", expires_hours=2, approve_label="Pay")
    assert pause.kind == "approval"
    assert pause.until == NOW.timestamp() + 7200
    assert pause.data == {"title": "Pay 5?", "details": {"n": 5}, "choices": ["Pay", "Reject"]}


async def test_it_can_wait_for_ever() -> None:
    assert (await asked(1, expires_hours=0)).until is None


@pytest.mark.parametrize(
    "answer", [None, {}, {"approved": "true"}, {"approved": 1}, {"choice": "Approve"}, "yes", True]
)
async def test_only_a_clear_yes_approves(answer: Any) -> None:
    out = await run(make("validation.approve"), {"value": 1}, answer=answer)
    assert "approved" not in out
    assert out["rejected"] == 1


def test_an_approval_is_a_gate_and_stays_inside() -> None:
    node = make("validation.approve")
    assert node.gate
    assert node.effect_here() == Effect.E2
    assert not node.labels()


# --- stop --------------------------------------------------------------------------------------------------------------


async def test_a_stop_says_why_and_is_not_tried_again() -> None:
    with pytest.raises(NodeError) as caught:
        await run(make("validation.stop_error", message="No {{ what }}."), {"value": {"what": "stock"}})
    assert (caught.value.message, caught.value.code, caught.value.retry) == ("No stock.", "step.stopped", False)


def test_nothing_leads_on_from_a_stop() -> None:
    assert make("validation.stop_error", message="x").outputs() == ()
