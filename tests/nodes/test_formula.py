"""The formula language: what it says, what it refuses, and how it explains itself."""

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from nodes.errors import FactoryError
from nodes.formula import Budget, FormulaError, compile_formula, compile_text

SCOPE: dict[str, Any] = {
    "order": {"total": 1200, "note": None, "items": [{"price": 3, "qty": 2}, {"price": 5.5, "qty": 1}]},
    "customer": {"name": "Ada", "tier": "gold", "tags": ["vip", "eu"], "odd key": 7},
    "limit": 4,
    "words": ["one", "two"],
    "empty": [],
    "yes": True,
}


def value(text: str, **more: Any) -> Any:
    return compile_formula(text).evaluate(SCOPE | more)


def filled(text: str, **more: Any) -> Any:
    return compile_text(text).evaluate(SCOPE | more)


def error(text: str, **more: Any) -> FormulaError:
    with pytest.raises(FormulaError) as caught:
        compile_formula(text).evaluate(SCOPE | more)
    return caught.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('order.total * 1.2 > 1000 and customer.tier == "gold"', True),
        ("order.total", 1200),
        ('order["total"]', 1200),
        ('customer["odd key"]', 7),
        ("order.items[0].price", 3),
        ("order.items.0.price", 3),
        ("order.items[-1]['qty']", 1),
        ("order.items[limit - 4].qty", 2),
        ("customer.name[0]", "A"),
        ("words[0:1]", ["one"]),
        ("customer.name[::-1]", "adA"),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 // 2", 3),
        ("7 % 4", 3),
        ("2 ** 10", 1024),
        ("2 ** -1", 0.5),
        ("7 / 2", 3.5),
        ("-limit", -4),
        ("+limit", 4),
        ("0x1f + 1_000", 1031),
        ("1.5e3", 1500.0),
        ("'a' + 'b'", "ab"),
        ("'a' 'b'", "ab"),
        ("'ab' * 2", "abab"),
        ("[1] + [2]", [1, 2]),
        ("'n' ~ 1 ~ none ~ true ~ 2.0", "n1true2"),
        ("1 < limit <= 4", True),
        ("4 < limit < 9", False),
        ("'a' < 'b'", True),
        ("1 == 1.0", True),
        ("true == 1", False),
        ("'1' == 1", False),
        ("none == 0", False),
        ("[1, {'a': 2}] == [1.0, {'a': 2}]", True),
        ("[true] == [1]", False),
        ("order.note == none", True),
        ("order.note == null", True),
        ("'vip' in customer.tags", True),
        ("'x' not in customer.tags", True),
        ("'d' in customer.name", True),
        ("'total' in order", True),
        ("1 in (1, 2)", True),
        ("'' or 'x'", "x"),
        ("empty and 1", []),
        ("not empty", True),
        ("'big' if order.total > 1000 else 'small'", "big"),
        ("'a' if empty", None),
        ("{'a': 1, 'b': [limit]}", {"a": 1, "b": [4]}),
        ("customer.name.upper()", "ADA"),
        ("customer.name | upper | lower", "ada"),
        ("upper(customer.name)", "ADA"),
        ("customer.name.startswith('A')", True),
        ("customer.name.toUpperCase()", "ADA"),
        ("order.items.length", 2),
        ("customer.name.length", 3),
        ("words.first", "one"),
        ("words.join('-')", "one-two"),
        ("customer.tags.includes('vip')", True),
        ("'a{{b}}' ~ '}}'", "a{{b}}}}"),
        ("1e15 | text", "1000000000000000"),
        ("1e16 | text", "1e+16"),
        # Moments are compared by when they are, however they are written.
        ("'2026-11-21T10:00:00Z' < '2026-11-21T11:30:00+02:00'", False),
        ("'2026-11-21T10:00:00.000Z' >= '2026-11-21T10:00:00Z'", True),
        ("'2026-11-20' < '2026-11-21' <= '2026-11-21T00:00:00Z'", True),
        ("['2026-11-21T10:00:00Z', '2026-11-21T11:30:00+02:00', none] | sort | first", "2026-11-21T11:30:00+02:00"),
        ("['2026-11-21T10:00:00Z', '2026-11-21T11:30:00+02:00'] | max", "2026-11-21T10:00:00Z"),
        ("[{'at': '2026-11-21T11:30:00+02:00'}] | where('at', '<', '2026-11-21T10:00:00Z') | length", 1),
        ("'2026-1x' > '2026-11-21T10:00:00Z'", True),
        ("['1234-x', '1233-y'] | sort", ["1233-y", "1234-x"]),
    ],
)
def test_a_formula_has_its_value(text: str, expected: Any) -> None:
    result = value(text)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('order.items | map("price") | sum', 8.5),
        ('order.items | map("price * qty")', [6, 5.5]),
        ('order.items | map(attribute="price")', [3, 5.5]),
        ('order.items | sum(attribute="price")', 8.5),
        ('order.items | filter("price > outer.limit") | length', 1),
        ('order.items | selectattr("qty") | length', 2),
        ('order.items | where("price", ">", limit) | map("qty")', [1]),
        ('words | map("upper")', ["ONE", "TWO"]),
        ("words | map(\"item | upper ~ '!'\")", ["ONE!", "TWO!"]),
        ('words | map("item.length")', [3, 3]),
        ('order.items | map("outer.words | map(\\"item ~ outer.qty\\")")', [["one2", "two2"], ["one1", "two1"]]),
        ('order.items | sort("price", descending=true) | map("price")', [5.5, 3]),
        ('order.items | sort(attribute="price", reverse=true) | first | get("qty")', 1),
        ('order.items.map("price").max()', 5.5),
    ],
)
def test_a_formula_works_on_each_item(text: str, expected: Any) -> None:
    assert value(text) == expected


def test_a_bare_name_for_each_item_is_the_items_own_field_and_nothing_else() -> None:
    """Otherwise an item that lacks a field would silently take a value from around the list."""
    problem = error('order.items | map("limit * qty")')
    assert problem.code == "formula.unknown_name"
    assert "outer.limit" in (problem.fix or "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("order.nothing | default('x')", "x"),
        ("order.nothing.at.all | default('x')", "x"),
        ("nobody.name | default('x')", "x"),
        ("order.note | default('x')", "x"),
        ("order.note.text | default('x')", "x"),
        ("'' | default('x')", ""),
        ("'' | default('x', true)", "x"),
        ("default(order.nothing, 5)", 5),
        ("order.total | default(0)", 1200),
        ("words[7] | default('none there')", "none there"),
        ("empty | first | default('no')", "no"),
        ("empty | max | default(0)", 0),
        ("order.nothing is defined", False),
        ("order.total is defined", True),
        ("order.nothing is not defined", True),
        ("order.nothing is undefined", True),
        ("order.note is none", True),
        ("words is list and order is record and yes is boolean", True),
        ("'a@b.eu' is email and 'https://x.eu' is url", True),
        ("6 is divisibleby 3", True),
        ("6 is divisibleby(4)", False),
        ("3 is in [1, 3]", True),
        ("'' is empty and empty is empty and 0 is not empty", True),
        ("'2026-11-21' is date and 'today' is not date", True),
        ("4 is even and 5 is odd", True),
    ],
)
def test_what_may_be_missing_can_be_asked_for(text: str, expected: Any) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("custmer.name", "formula.unknown_name", "Unknown name `custmer`, did you mean `customer`?"),
        ("customer.nmae", "formula.unknown_name", "Unknown name `nmae` in `customer`, did you mean `name`?"),
        ("customer.Name", "formula.unknown_name", "Unknown name `Name` in `customer`, did you mean `name`?"),
        ('customer["nmae"]', "formula.unknown_name", "Unknown name `nmae` in `customer`, did you mean `name`?"),
        ("order.note.text", "formula.unknown_name", "`order.note` is empty (nothing), so it has no `text`."),
        ("words[9]", "formula.unknown_item", "There is no item 9: the list has 2."),
        ("empty | first", "formula.empty", "`first` found no item: the list is empty."),
        ("order.items.price", "formula.type", "`order.items` is a list, so it has no field `price`."),
        ("order.total.cents", "formula.type", "`order.total` is a number, so it has no field `cents`."),
        ("customer.name.upper", "formula.type", "`upper` is a function, not a field."),
        ("customer.name + 1", "formula.type", "I cannot add a text and a number."),
        ("order.note + 1", "formula.type", "I cannot add nothing and a number."),
        ("order.note > 1", "formula.type", "I cannot compare nothing and a number."),
        ("order.total > '5'", "formula.type", "I cannot compare a number and a text."),
        ("yes > 0", "formula.type", "I cannot compare a yes/no and a number."),
        ("words * words", "formula.type", "I cannot multiply a list and a list."),
        ("order.total | upper", "formula.type", "`upper` needs a text, but got a number."),
        ("words | upper", "formula.type", "`upper` needs a text, but got a list."),
        ("order | map('x')", "formula.type", "`map` needs a list, but got a record."),
        ("words | sum", "formula.type", "`sum` needs numbers, but the list has a text in it."),
        ("1 / 0", "formula.value", "This divides by zero."),
        ("'abc' | number", "formula.value", "The text `abc` is not a number."),
        ("customer.name | uper", "formula.unknown_function", "There is no function `uper`, did you mean `upper`?"),
        (
            "customer.name is defind",
            "formula.unknown_function",
            "There is no test `is defind`, did you mean `is defined`?",
        ),
        ("customer.name | replace('a')", "formula.arguments", "`replace` also needs `new`."),
        ("customer.name | upper(1)", "formula.arguments", "`upper` was given too many settings."),
        ("round(2.5, digit=1)", "formula.arguments", "`round` has no setting `digit`."),
        ("words | map(customer.name)", "formula.forbidden", "`map` needs its field or formula between quotes."),
        ("customer.__class__", "formula.forbidden", "`__class__` is not a name that formulas know."),
        ("range(*words)", "formula.forbidden", "`*` and `**` do not exist in calls."),
        ("words[0]()", "formula.forbidden", "Only functions of the list can be called."),
        ("", "formula.syntax", "The formula is empty."),
        ("1 +", "formula.syntax", "The formula ends too early."),
        ("'abc", "formula.syntax", "A text is not closed."),
    ],
)
def test_an_error_is_typed_says_what_is_wrong_and_how_to_mend_it(text: str, code: str, message: str) -> None:
    problem = error(text)
    assert (problem.code, problem.message) == (code, message)
    assert problem.fix
    assert isinstance(problem, FactoryError)
    assert str(problem) == message


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("a = 1", "=="),
        ("a && b", "`and`"),
        ("a || b", "`or`"),
        ("!a", "`not`"),
        ("a ? 1 : 2", "a if condition else b"),
        ("a === b", "`==`"),
        ("a ?? b", "default"),
        ("$json.total", "without `$`"),
        ("{{ order.total }}", "without `{{`"),
        ("“hello”", "straight quotes"),
        ("x => x + 1", "between quotes"),
    ],
)
def test_habits_from_other_languages_get_their_translation(text: str, fix: str) -> None:
    problem = error(text)
    assert problem.code in ("formula.syntax", "formula.forbidden")
    assert fix in (problem.fix or "")


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("order.total > 5 and custmer.name", "custmer.name"),
        ("order.total | uper", "uper"),
        ("order.total\n  + customer.nmae", "customer.nmae"),
        ("words | map('item.x.y')", "x.y"),
        ("order.total ** ", " "),
        ("1 + ? 2", "?"),
        ("'é' ~ custmer", "custmer"),
    ],
)
def test_an_error_points_at_its_place(text: str, marked: str) -> None:
    position = error(text).position
    assert position is not None
    assert marked in text[position.start : position.end] or text[position.start : position.end].endswith(marked)
    assert position.line == text[: position.start].count("\n") + 1
    assert error(text).where == position.as_dict()


def test_an_error_in_a_text_points_at_its_place_in_the_whole_text() -> None:
    text = "Dear {{ customer.name }},\nyour total is {{ order.totl }}."
    with pytest.raises(FormulaError) as caught:
        compile_text(text).evaluate(SCOPE)
    position = caught.value.position
    assert position is not None
    assert (position.line, text[position.start : position.end]) == (2, "order.totl")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("Hello {{ customer.name }}!", "Hello Ada!"),
        ("{{ customer.name }} {{ order.total / 400 }}", "Ada 3"),
        ("{{ order.total }}", 1200),
        ("{{ order.items }}", SCOPE["order"]["items"]),
        ("{{ order.note }}", None),
        ("note: {{ order.note }}.", "note: ."),
        ("{{ yes }} {{ 2.50 }} {{ 1e20 }}", "true 2.5 1e+20"),
        ("tags {{ customer.tags }}", 'tags ["vip","eu"]'),
        ("{{ {'a': {'b': 1}} }}", {"a": {"b": 1}}),
        ("x{{ '}}' }}", "x}}"),
        ("x{{ '{{' }}", "x{{"),
        ("a  {{- customer.name -}}  b", "aAdab"),
        ("{ not } a {formula} %}", "{ not } a {formula} %}"),
        ("{# kept #}", "{# kept #}"),
        ("10% {%", "10% {%"),
        (" {{ order.total }}", " 1200"),
    ],
)
def test_a_text_is_filled_in(text: str, expected: Any) -> None:
    result = filled(text)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Hello {{ name", "formula.syntax"),
        ("Hello {{ 'name }}", "formula.syntax"),
        ("{{ }}", "formula.syntax"),
        ("{% if yes %}x{% endif %}", "formula.forbidden"),
        ("{%- for x in words %}", "formula.forbidden"),
    ],
)
def test_a_broken_text_is_refused(text: str, code: str) -> None:
    with pytest.raises(FormulaError) as caught:
        compile_text(text)
    assert caught.value.code == code
    assert caught.value.position is not None


def test_a_formula_knows_the_names_and_paths_it_uses() -> None:
    compiled = compile_formula(
        'order.total + (limit | default(1)) + (order.items | map("price * outer.factor.vat") | sum) + order["a b"].c[0]'
    )
    assert compiled.names == ("order", "limit", "factor")
    assert compiled.paths == ("order.total", "limit", "order.items", "factor.vat", "order.a b.c")
    text = compile_text("{{ a.b }} and {{ c }} and {{ a.b }}")
    assert (text.names, text.paths) == (("a", "c"), ("a.b", "c"))


def test_the_same_text_is_compiled_once() -> None:
    assert compile_formula("1 + 1") is compile_formula("1 + 1")
    assert compile_text("{{ 1 }}!") is compile_text("{{ 1 }}!")


def test_a_scope_is_never_changed() -> None:
    scope = {"items": [3, 1, 2], "record": {"a": 1}}
    compile_formula("[items | sort, items | reverse, items | append(4), record | merge({'b': 2})]").evaluate(scope)
    assert scope == {"items": [3, 1, 2], "record": {"a": 1}}


@pytest.mark.parametrize(
    "text",
    [
        "'x' * 10**9",
        "range(10**12)",
        "2 ** 10**9",
        "9**9**9**9",
        "9223372036854775807 + 1",
        "99999999999999999999",
        "'x' | repeat(10000000) | repeat(10000000)",
        "range(99999) | map('range(99999)')",
        "range(300) | map('range(300) | map(\"range(300)\")')",
        "range(9000) | join('x' * 9000)",
        "('x' * 5000000) ~ ('x' * 5000000) ~ 'x'",
        "big ~ big",
        "[big, big] | to_json",
        "range(10000) | map('outer.big_list')",
        "(" * 3000 + "1" + ")" * 3000,
        "not " * 2000 + "true",
        "1" + " + 1" * 2400,
        "1" * 10_001,
        "a" + ".a" * 4000,
        "shared == copy",
    ],
)
def test_a_formula_cannot_do_or_make_too_much(text: str) -> None:
    assert (
        error(text, big="x" * 6_000_000, big_list=[0] * 1000, shared=_shared(), copy=_shared()).code == "formula.budget"
    )


def _shared() -> list[Any]:
    """A small thing that is 2**60 items when looked through."""
    out: list[Any] = [0]
    for _ in range(60):
        out = [out, out]
    return out


def test_a_budget_can_be_lowered() -> None:
    formula = compile_formula("range(100) | map('item + 1') | sum")
    assert formula.evaluate({}) == 5050
    with pytest.raises(FormulaError, match="too much work"):
        formula.evaluate({}, budget=Budget(steps=100))
    with pytest.raises(FormulaError, match="too big"):
        compile_text("{{ a }}{{ a }}").evaluate({"a": "x" * 60}, budget=Budget(size=100))


def test_a_whole_number_beyond_64_bits_is_refused_and_one_within_is_exact() -> None:
    assert value("9007199254740993 + 0") == 9007199254740993
    assert value("4611686018427387904 + 4611686018427387903") == 2**63 - 1
    assert error("4611686018427387904 + 4611686018427387904").code == "formula.budget"
    assert error("1e308 * 10").code == "formula.value"
    assert error("huge + 1", huge=10**30).code == "formula.value"
    assert error("nan + 1", nan=math.nan).code == "formula.value"


def test_all_that_comes_out_is_plain_data() -> None:
    assert value("when", when=datetime(2026, 11, 21, tzinfo=UTC)) == "2026-11-21T00:00:00+00:00"
    assert value("pair", pair=(1, (2,))) == [1, [2]]
    assert error("thing", thing=object()).code == "formula.type"
    assert error("thing.x", thing=object()).code == "formula.type"


def test_a_moment_can_be_given_and_stays_the_same_within_a_formula() -> None:
    moment = datetime(2026, 11, 21, 23, 30, tzinfo=UTC)
    assert compile_formula("now()").evaluate({}, now=moment) == "2026-11-21T23:30:00Z"
    assert compile_formula("today('Europe/Berlin')").evaluate({}, now=moment) == "2026-11-22"
    assert compile_formula("now() == now()").evaluate({}) is True
