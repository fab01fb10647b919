"""What holds for every formula, whatever is written and whatever arrives."""

import math
import operator
from types import NoneType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.formula import HELP, FormulaError, check_formula, check_text, compile_formula, compile_text, infer
from nodes.formula.conditions import quoted
from nodes.shape import shape_of

NAMES = ("a", "b", "order", "items", "text", "missing")
KEYS = ("total", "name", "length", "0", "x")
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=12),
    st.sampled_from(["2026-11-21", "12.5", "gold", "[1]"]),
)
DATA = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
SCOPES = st.dictionaries(st.sampled_from(NAMES), DATA, max_size=6)

literals = st.one_of(
    st.integers(0, 2**64).map(str),
    st.floats(0, allow_nan=False, allow_infinity=False).map(repr),
    st.text(max_size=8).filter(lambda text: not any("\ud800" <= sign <= "\udfff" for sign in text)).map(quoted),
    st.sampled_from(["true", "false", "none", "[]", "{}", "''"]),
)
atoms = (
    literals | st.sampled_from(NAMES) | st.sampled_from(["item", "outer.a", "now()", "order.total", "items[0].name"])
)
binary = st.sampled_from(
    ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "and", "or", "in", "not in"]
)
functions = st.sampled_from([entry.name for entry in HELP])


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, binary, inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        st.tuples(st.sampled_from(["not ", "-", "+"]), inner).map(lambda parts: f"({parts[0]}{parts[1]})"),
        st.tuples(inner, st.sampled_from(KEYS)).map(lambda parts: f"({parts[0]}).{parts[1]}"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]})[{parts[1]}]"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})"),
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.tuples(inner, functions, st.lists(inner, max_size=2)).map(
            lambda parts: f"({parts[0]} | {parts[1]}({', '.join(parts[2])}))"
        ),
        st.tuples(inner, functions, inner).map(lambda parts: f"({parts[0]} | {parts[1]}({quoted(parts[2])}))"),
        st.tuples(inner, st.sampled_from(["defined", "empty", "number", "even", "in [1]"])).map(
            lambda parts: f"({parts[0]} is {parts[1]})"
        ),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]} | default({parts[1]}))"),
    )


FORMULAS = st.recursive(atoms, _grow, max_leaves=8)
ANYTHING = FORMULAS | st.text(max_size=60) | st.text(alphabet="()[]{}|.'\"\\ab1+-*/~=<>!%, \n", max_size=60)


def _outcome(text: str, scope: dict[str, Any]) -> tuple[str, str]:
    try:
        return "value", repr(compile_formula(text).evaluate(scope))
    except FormulaError as error:
        assert error.code != "formula.internal", error.__cause__
        assert error.message
        return error.code, error.message


def _plain(value: Any) -> bool:
    if type(value) is list:
        return all(_plain(part) for part in value)
    if type(value) is dict:
        return all(type(key) is str and _plain(part) for key, part in value.items())
    return type(value) in (str, int, float, bool, NoneType)


@settings(max_examples=400, deadline=None)
@given(ANYTHING, SCOPES)
def test_a_formula_gives_plain_data_or_its_own_error(text: str, scope: dict[str, Any]) -> None:
    try:
        value = compile_formula(text).evaluate(scope)
    except FormulaError as error:
        assert error.code.startswith("formula.")
        assert error.code != "formula.internal", error.__cause__
    else:
        assert _plain(value)


@settings(max_examples=150, deadline=None)
@given(FORMULAS.filter(lambda text: "now" not in text and "today" not in text), SCOPES)
def test_a_formula_says_the_same_twice(text: str, scope: dict[str, Any]) -> None:
    assert _outcome(text, scope) == _outcome(text, scope)


@settings(max_examples=150, deadline=None)
@given(ANYTHING, SCOPES)
def test_checking_never_fails_and_finds_all_that_cannot_compile(text: str, scope: dict[str, Any]) -> None:
    schema = shape_of(scope)
    problems = check_formula(text, schema)
    infer(text, schema)
    try:
        compile_formula(text)
    except FormulaError as error:
        assert [problem.code for problem in problems] == [error.code]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="{}%#-ab'\" \\n|", max_size=60), SCOPES)
def test_a_text_is_filled_in_or_refused(text: str, scope: dict[str, Any]) -> None:
    check_text(text, shape_of(scope))
    try:
        value = compile_text(text).evaluate(scope)
    except FormulaError as error:
        assert error.code != "formula.internal", error.__cause__
    else:
        assert _plain(value)
        assert "{{" in text or value == text


@given(st.text().filter(lambda text: not any("\ud800" <= sign <= "\udfff" for sign in text)))
def test_a_quoted_text_is_read_back_as_it_was(text: str) -> None:
    assert len(quoted(text)) > 9_000 or compile_formula(quoted(text)).evaluate({}) == text


NUMBERS = st.integers(-(10**6), 10**6) | st.floats(-1e9, 1e9, allow_nan=False)
OPERATORS: dict[str, Any] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


@settings(max_examples=300)
@given(NUMBERS, st.sampled_from(sorted(OPERATORS)), NUMBERS)
def test_arithmetic_agrees_with_python(left: float, sign: str, right: float) -> None:
    scope = {"left": left, "right": right}
    written = [f"left {sign} right", f"left {sign} {right!r}", f"({left!r}) {sign} right"]
    for text in written:
        try:
            expected = OPERATORS[sign](left, right)
        except ZeroDivisionError:
            expected = math.inf
        if math.isfinite(expected):
            assert compile_formula(text).evaluate(scope) == expected
        else:
            with pytest.raises(FormulaError) as caught:
                compile_formula(text).evaluate(scope)
            assert caught.value.code == "formula.value"


@given(st.lists(st.integers(-1000, 1000)))
def test_lists_agree_with_python(numbers: list[int]) -> None:
    def of(text: str) -> Any:
        return compile_formula(text).evaluate({"numbers": numbers})

    assert of("numbers | sort") == sorted(numbers)
    assert of("numbers | sort(descending=true)") == sorted(numbers, reverse=True)
    assert of("numbers | sum") == sum(numbers)
    assert of("numbers | map('item * 2')") == [number * 2 for number in numbers]
    assert of("numbers | filter('item > 0')") == [number for number in numbers if number > 0]
    assert of("numbers | unique") == list(dict.fromkeys(numbers))
    assert of("numbers | batch(3) | flatten") == numbers
    assert of("numbers | map('item | text') | join(',')") == ",".join(map(str, numbers))
    assert of("numbers | group_by('item % 2') | values | map('length') | sum") == len(numbers)


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-7, 7).filter(bool))
def test_a_range_agrees_with_python(start: int, end: int, step: int) -> None:
    assert compile_formula(f"range({start}, {end}, {step})").evaluate({}) == list(range(start, end, step))


PATHS = st.lists(st.sampled_from(["total", "name", "length", "x"]), max_size=3)


@settings(max_examples=300, deadline=None)
@given(SCOPES, st.sampled_from(NAMES), PATHS)
def test_a_path_fails_exactly_when_the_check_said_so(scope: dict[str, Any], name: str, keys: list[str]) -> None:
    """Over the very data the shape was taken from, what the editor says and what the run does are one."""
    text = ".".join([name, *keys])
    problems = check_formula(text, shape_of(scope))
    try:
        compile_formula(text).evaluate(scope)
    except FormulaError:
        assert problems
    else:
        assert problems == []
