"""Shapes: what samples and JSON Schemas say about data that has not arrived yet."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from nodes.shape import (
    ANY,
    MOMENT,
    NOTHING,
    NUMBER,
    TEXT,
    YES_NO,
    Shape,
    from_json_schema,
    list_of,
    one_of,
    record,
    shape_of,
    without_nothing,
)

DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=15,
)


@pytest.mark.parametrize(
    ("value", "shape", "words"),
    [
        (None, NOTHING, "nothing"),
        (True, YES_NO, "yes/no"),
        (1.5, NUMBER, "number"),
        ("x", TEXT, "text"),
        ("2026-11-21", MOMENT, "moment"),
        ("2026-11-21T10:00:00Z", MOMENT, "moment"),
        ([], list_of(), "list"),
        ([1, 2], list_of(NUMBER), "list of number"),
        ([1, "a"], list_of(one_of(NUMBER, TEXT)), "list of number or text"),
        (["2026-11-21", "soon"], list_of(TEXT), "list of text"),
        ({"a": 1}, record({"a": NUMBER}), "record with a"),
        (
            [{"a": 1}, {"b": 2}],
            list_of(record({"a": NUMBER, "b": NUMBER}, optional=("a", "b"))),
            "list of record with a, b",
        ),
    ],
)
def test_a_sample_has_its_shape(value: Any, shape: Shape, words: str) -> None:
    assert shape_of(value) == shape
    assert shape.describe() == words


@given(DATA)
def test_a_sample_fits_the_schema_of_its_own_shape(value: Any) -> None:
    Draft202012Validator(shape_of(value).as_json_schema()).validate(value)


@given(DATA, DATA)
def test_two_samples_fit_the_shape_of_both(one: Any, other: Any) -> None:
    validator = Draft202012Validator(shape_of(one, other).as_json_schema())
    validator.validate(one)
    validator.validate(other)


@given(DATA)
def test_a_shape_survives_its_schema(value: Any) -> None:
    shape = shape_of(value)
    assert from_json_schema(shape.as_json_schema()) == shape


def test_a_choice_is_said_as_simply_as_it_can_be() -> None:
    assert one_of(TEXT, TEXT) == TEXT
    assert one_of(TEXT, ANY) == ANY
    assert one_of(TEXT, one_of(NUMBER, TEXT)) == one_of(TEXT, NUMBER)
    assert one_of(list_of(), list_of(TEXT)) == list_of(TEXT)
    assert without_nothing(one_of(TEXT, NOTHING)) == TEXT
    assert without_nothing(NOTHING) == ANY


@pytest.mark.parametrize(
    ("schema", "shape"),
    [
        ({}, ANY),
        (True, ANY),
        ("nonsense", ANY),
        ({"type": ["string", "null"]}, one_of(TEXT, NOTHING)),
        ({"enum": ["a", "b"]}, TEXT),
        ({"const": 3}, NUMBER),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, one_of(TEXT, NUMBER)),
        ({"type": "object"}, record(open=True)),
        ({"properties": {"a": {}}, "required": ["a"]}, record({"a": ANY})),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": True}, record({"a": ANY}, open=True)),
        (
            {"allOf": [{"properties": {"a": {"type": "string"}}, "required": ["a"]}, {"properties": {"b": {}}}]},
            record({"a": TEXT, "b": ANY}),
        ),
        ({"$ref": "#/nowhere"}, ANY),
        ({"$ref": "#"}, ANY),
        ({"$ref": "https://elsewhere/schema"}, ANY),
    ],
)
def test_a_json_schema_has_its_shape(schema: Any, shape: Shape) -> None:
    assert from_json_schema(schema) == shape
