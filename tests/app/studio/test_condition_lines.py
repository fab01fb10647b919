"""Conditions filled in line by line, and the formulas they make."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.studio.known import Known
from app.studio.lines import Block, Line, kind_of, read, typed, written
from nodes.formula import compile_formula
from nodes.shape import NUMBER, TEXT, YES_NO, list_of, record

KNOWN = Known(
    sample={"total": 1200, "name": "Ada", "vip": True, "lines": [{"sku": "k1"}], "free": "x"},
    shape=record({"total": NUMBER, "name": TEXT, "vip": YES_NO, "lines": list_of(record({"sku": TEXT}))}, open=True),
)


def test_a_number_field_takes_a_number_and_a_text_field_a_text():
    block = Block("all", [Line("total", "greater", "1000"), Line("name", "equals", "42")])
    assert written(block, KNOWN) == 'total > 1000 and name == "42"'


def test_the_kind_of_a_field_comes_from_its_shape_or_its_sample():
    assert [kind_of(path, KNOWN) for path in ("total", "name", "vip", "lines[0].sku", "free", "new")] == [
        "number", "text", "yes/no", "text", "text", "",
    ]  # fmt: skip


def test_lists_are_typed_with_commas():
    assert written(Block("all", [Line("total", "one_of", "1, 2,3")]), KNOWN) == "total in [1, 2, 3]"


def test_groups_and_other_fields():
    block = Block(
        "any",
        [
            Line("vip", "is_yes"),
            Block("all", [Line("total", "greater", "limit", other=True), Line("name", "is_not_empty")]),
        ],
    )
    assert written(block, KNOWN) == "vip or (total > limit and name is not empty)"
    assert written(read(written(block, KNOWN)), KNOWN) == written(block, KNOWN)


def test_lines_without_a_field_are_left_out():
    assert written(Block("all", [Line(), Line("vip", "is_yes"), Block("any", [Line()])]), KNOWN) == "vip"


def test_a_line_that_nobody_touched_stays_exactly_as_it_was():
    formula = 'code == "0012" and state == "yes"'
    block = read(formula)
    block.items.append(Line("total", "less", "5"))
    assert written(block, KNOWN) == f"{formula} and total < 5"


def test_what_the_builder_cannot_show_reads_as_one_blank_line():
    assert read("total * 2 > 5").items == [Line()]
    assert read("").items == [Line()]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("1000", "number", 1000),
        ("1.5", "", 1.5),
        ("yes", "yes/no", True),
        ("yes", "text", "yes"),
        ("nan", "", "nan"),
        ("1e999", "number", "1e999"),
        ("nothing", "", None),
    ],
)
def test_what_is_typed_becomes_a_value_of_the_field_s_kind(text: str, kind: str, value: object):
    assert typed(text, kind) == value


@given(st.text(max_size=40), st.sampled_from(["text", "number", "yes/no", ""]))
def test_whatever_is_typed_makes_a_formula_that_can_be_read(text: str, kind: str):
    text = text.encode("utf-8", "ignore").decode()
    known = Known(
        sample={},
        shape=record({"f": {"text": TEXT, "number": NUMBER, "yes/no": YES_NO}[kind]} if kind else {}, open=True),
    )
    formula = written(Block("all", [Line("f", "equals", text)]), known)
    compile_formula(formula)
    assert written(read(formula), known) == formula
