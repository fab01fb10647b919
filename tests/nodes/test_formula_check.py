"""Checks at edit time: what is wrong is said before anything runs, from the shape of what can arrive."""

import pytest

from nodes.formula import check_formula, check_text, infer
from nodes.formula.infer import infer_text
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
)

SCHEMA = shape_of(
    {
        "customer": {"name": "Ada", "tier": "gold", "born": "1815-12-10"},
        "order": {"total": 1200, "paid": True, "note": None, "items": [{"price": 3, "name": "pen"}]},
        "tags": ["a"],
    }
)


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("custmer.name", "Unknown name `custmer`, did you mean `customer`?", "Write `customer`."),
        ("customer.nmae", "Unknown name `nmae` in `customer`, did you mean `name`?", "Write `name`."),
        ('customer["nmae"]', "Unknown name `nmae` in `customer`, did you mean `name`?", "Write `name`."),
        ("order.items[0].pric", "Unknown name `pric` in `order.items[…]`, did you mean `price`?", "Write `price`."),
        ('order.items | map("pric")', "Unknown name `pric` in `item`, did you mean `price`?", "Write `price`."),
        (
            'order.items | filter("price > outer.ordr.total")',
            "Unknown name `ordr`, did you mean `order`?",
            "Write `order`.",
        ),
        ("order.items.price", "`order.items` is a list, so it has no field `price`.", None),
        ("customer.name.first_letter", "`customer.name` is a text, so it has no field `first_letter`.", None),
        ("customer.name + 1", "I cannot add a text and a number.", None),
        ("order.total - tags", "I cannot subtract a number and a list.", None),
        ("order.total > '5'", "I cannot compare a number and a text.", None),
        ("order.paid > 1", "I cannot compare a yes/no and a number.", None),
        ("-customer.name", "A minus or plus sign needs a number, not a text.", "Add `| number`."),
        ("order.total | upper", "`upper` needs a text, but got a number.", None),
        ("customer | map('x')", "`map` needs a list, but got a record.", None),
        ("1 in order.total", "I cannot look inside a number.", None),
        ("customer.name | uper", "There is no function `uper`, did you mean `upper`?", "Write `upper`."),
        ("order.total >", "The formula ends too early.", None),
    ],
)
def test_a_mistake_is_found_while_writing(text: str, message: str, fix: str | None) -> None:
    [problem] = check_formula(text, SCHEMA)
    assert problem.message == message
    assert problem.severity == "error"
    assert problem.fix == fix if fix else problem.fix
    assert problem.position is not None


@pytest.mark.parametrize(
    "text",
    [
        'order.total * 1.2 > 1000 and customer.tier == "gold"',
        'order.items | map("price") | sum',
        'order.items | filter("price > outer.order.total") | length',
        "customer.name.upper().startswith('A')",
        "customer.born | add(days=1) | format_date('YYYY')",
        "order.note | default('none')",
        "order.note.text | default('none')",
        "order.note is none",
        "order.items.length",
        "tags | map('upper')",
        "tags | join(', ')",
        "'a' in tags and 'A' in customer.name and 'name' in customer",
        "(order.total | text) ~ customer.name",
        "order.total if order.paid else 0",
    ],
)
def test_a_good_formula_has_no_problem(text: str) -> None:
    assert check_formula(text, SCHEMA) == []


def test_a_missing_name_is_only_a_warning_where_it_may_be_missing() -> None:
    for text in ("customer.nick | default('x')", "customer.nick is defined"):
        [problem] = check_formula(text, SCHEMA)
        assert (problem.code, problem.severity) == ("formula.unknown_name", "warning")


def test_a_field_that_only_some_samples_have_gets_a_warning_until_it_has_a_default() -> None:
    schema = shape_of({"a": {"b": 1}}, {"a": {}})
    [problem] = check_formula("a.b", schema)
    assert (problem.code, problem.severity) == ("formula.may_be_missing", "warning")
    assert check_formula("a.b | default(0)", schema) == []


def test_a_comparison_that_can_never_hold_gets_a_warning() -> None:
    [problem] = check_formula("order.total == '5'", SCHEMA)
    assert (problem.severity, problem.message) == ("warning", "A number and a text are never equal.")


def test_what_is_open_or_unknown_is_not_complained_about() -> None:
    assert check_formula("anything.at.all + 1 > other[0]", ANY) == []
    assert check_formula("a.b.c", record({"a": record(open=True)})) == []
    assert check_formula("x", record(open=True)) == []


def test_every_mistake_in_a_text_is_found_at_its_place() -> None:
    text = "Dear {{ custmer.name }},\n{{ order.total | uper }} {{ customer.name }} {{ order.totl }}"
    problems = check_text(text, SCHEMA)
    assert [problem.code for problem in problems] == [
        "formula.unknown_name",
        "formula.unknown_function",
        "formula.unknown_name",
    ]
    places = [problem.position for problem in problems]
    assert [text[place.start : place.end] for place in places if place] == ["custmer", "uper", "totl"]
    assert [place.line for place in places if place] == [1, 2, 2]
    assert [problem.code for problem in check_text("{{ a", SCHEMA)] == ["formula.syntax"]


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("order.total", NUMBER),
        ("order.total * 2 + 1", NUMBER),
        ("order.total > 1", YES_NO),
        ("customer", record({"name": TEXT, "tier": TEXT, "born": MOMENT})),
        ("customer.born", MOMENT),
        ("now()", MOMENT),
        ("order.items", list_of(record({"price": NUMBER, "name": TEXT}))),
        ('order.items | map("price")', list_of(NUMBER)),
        ('order.items | map("price > 1")', list_of(YES_NO)),
        ('order.items | filter("price > 1") | first', record({"price": NUMBER, "name": TEXT})),
        ('order.items | map("price") | sum', NUMBER),
        ("tags | map('length')", list_of(NUMBER)),
        ("tags[0]", TEXT),
        ("tags[0:1]", list_of(TEXT)),
        ("tags ~ 1", TEXT),
        ("tags + ['x']", list_of(TEXT)),
        ("customer | merge({'age': 1}) | pick('age')", record({"age": NUMBER})),
        ("order.note | default('x')", ANY),
        ("order.note", NOTHING),
        ("1 if order.paid else 'x'", one_of(NUMBER, TEXT)),
        ("customer.name | split(',')", list_of(TEXT)),
        ("customer | get('name')", one_of(TEXT, NOTHING)),
        ("customer | keys", list_of(TEXT)),
        ("{'a': [1]}", record({"a": list_of(NUMBER)})),
        ("nonsense +", ANY),
    ],
)
def test_the_shape_of_a_result_is_known(text: str, shape: Shape) -> None:
    assert infer(text, SCHEMA) == shape


def test_the_shape_of_a_text_is_text_unless_it_is_one_formula() -> None:
    assert infer_text("{{ order.total }}", SCHEMA) == NUMBER
    assert infer_text("Total: {{ order.total }}", SCHEMA) == TEXT
    assert infer_text("plain", SCHEMA) == TEXT


def test_a_json_schema_serves_as_shape() -> None:
    schema = from_json_schema(
        {
            "$defs": {"line": {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]}},
            "type": "object",
            "properties": {
                "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
                "at": {"type": "string", "format": "date-time"},
            },
            "required": ["lines"],
        }
    )
    assert infer("lines | map('price')", schema) == list_of(NUMBER)
    assert [problem.message for problem in check_formula("lins", schema)] == [
        "Unknown name `lins`, did you mean `lines`?"
    ]
    assert [problem.code for problem in check_formula("at | year", schema)] == ["formula.may_be_missing"]
