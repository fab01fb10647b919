"""The visual condition builder: what it shows and what the formula says are one and the same."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.formula import Comparison, FieldRef, FormulaError, Group, compile_formula, from_formula, to_formula
from nodes.formula.conditions import OPERATORS, WITHOUT_VALUE

FIELDS = st.sampled_from(
    ["total", "order.total", "items[0].price", 'order["odd key"]', "customer.name", "a.b.c[-0]".replace("-", "")]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=20),
)


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    name = draw(st.sampled_from(sorted(OPERATORS)))
    field = draw(FIELDS)
    if name in WITHOUT_VALUE:
        return Comparison(field, name)
    if name in ("one_of", "not_one_of"):
        return Comparison(field, name, draw(st.lists(SCALARS, max_size=4).map(tuple) | FIELDS.map(FieldRef)))
    if name in ("contains", "not_contains"):
        return Comparison(field, name, draw(SCALARS))
    return Comparison(field, name, draw(SCALARS | FIELDS.map(FieldRef)))


GROUPS = st.recursive(
    comparisons().map(lambda line: Group("all", (line,))),
    lambda inner: st.builds(
        Group, st.sampled_from(["all", "any"]), st.lists(comparisons() | inner, max_size=4).map(tuple)
    ),
    max_leaves=10,
)


@settings(max_examples=300)
@given(GROUPS)
def test_a_group_comes_back_from_its_formula(group: Group) -> None:
    formula = to_formula(group)
    compile_formula(formula)
    back = from_formula(formula)
    assert back == group.simplified()
    assert back is not None
    assert to_formula(back) == formula


@pytest.mark.parametrize(
    ("group", "formula"),
    [
        (Group("all", (Comparison("total", "greater", 100),)), "total > 100"),
        (
            Group(
                "all",
                (
                    Comparison("a", "equals", "x"),
                    Group("any", (Comparison("b", "is_yes"), Comparison("c", "is_empty"))),
                ),
            ),
            'a == "x" and (b or c is empty)',
        ),
        (
            Group("any", (Comparison("a", "one_of", ("x", 1)), Comparison("b", "contains", "y"))),
            'a in ["x", 1] or "y" in b',
        ),
        (Group("all", (Comparison("name", "starts_with", "A"),)), 'name | starts_with("A")'),
        (Group("all", (Comparison("a", "less", FieldRef("b.c")),)), "a < b.c"),
        (Group("all", (Comparison("a", "not_exists"), Comparison("b", "is_no"))), "a is undefined and not b"),
        (Group("all", ()), "true"),
        (Group("any", ()), "false"),
    ],
)
def test_a_group_is_written_as_a_person_would(group: Group, formula: str) -> None:
    assert to_formula(group) == formula
    assert from_formula(formula) == group


@pytest.mark.parametrize(
    ("formula", "line"),
    [
        ("name.startswith('A')", Comparison("name", "starts_with", "A")),
        ("order['total'] >= -1.5", Comparison('order["total"]', "greater_or_equal", -1.5)),
        ("a is not defined", Comparison("a", "not_exists")),
        ("not a is empty", Comparison("a", "is_not_empty")),
        ("a not in (1, 2)", Comparison("a", "not_one_of", (1, 2))),
        ("(((a == none)))", Comparison("a", "equals", None)),
    ],
)
def test_a_formula_written_by_hand_is_shown_when_it_can_be(formula: str, line: Comparison) -> None:
    assert from_formula(formula) == Group("all", (line,))


@pytest.mark.parametrize(
    "formula",
    ["a + 1 > 2", "1 < a", "1 < a < 3", "a if b else c", "a | upper == 'X'", "not (a and b)", "a == [1]", "len(a) > 1", "a >", "", "a | default(1) == 1", "a == -b", "a in b.c()", "'x'"],
)  # fmt: skip
def test_what_cannot_be_shown_is_left_to_the_formula(formula: str) -> None:
    assert from_formula(formula) is None


@pytest.mark.parametrize(
    "line",
    [
        Comparison("a b", "is_yes"),
        Comparison("a == 1 or b", "is_yes"),
        Comparison("a | upper", "equals", "x"),
        Comparison("true", "is_yes"),
        Comparison("a", "equals", ("x",)),
        Comparison("a", "one_of", "x"),
        Comparison("a", "equals", float("nan")),
        Comparison("a", "equals", 2**70),
        Comparison("a", "equals", FieldRef("b) or (c")),
    ],
)
def test_a_field_or_value_cannot_smuggle_in_a_formula(line: Comparison) -> None:
    with pytest.raises(FormulaError) as caught:
        to_formula(Group("all", (line,)))
    assert caught.value.code == "formula.condition"


@pytest.mark.parametrize(
    ("line", "record", "expected"),
    [
        (Comparison("a", "contains", "x"), {"a": ["x"]}, True),
        (Comparison("a", "matches", "^x"), {"a": "xy"}, True),
        (Comparison("a", "ends_with", "y"), {"a": "xy"}, True),
        (Comparison("a", "is_no"), {"a": False}, True),
        (Comparison("a", "exists"), {}, False),
        (Comparison("a", "not_equals", 1), {"a": True}, True),
    ],
)
def test_a_condition_decides(line: Comparison, record: dict[str, Any], expected: bool) -> None:
    assert compile_formula(to_formula(Group("all", (line,)))).evaluate(record) is expected
