"""The functions of formulas: every one keeps what its help promises, and the subtle ones are pinned down."""

from typing import Any

import pytest

from nodes.formula import HELP, FormulaError, FunctionHelp, check_formula, compile_formula, infer
from nodes.shape import record, shape_of

BY_NAME = {entry.name: entry for entry in HELP}


@pytest.mark.parametrize("entry", HELP, ids=lambda entry: entry.name)
def test_the_example_of_the_help_gives_its_result(entry: FunctionHelp) -> None:
    result = compile_formula(entry.example).evaluate({})
    assert result == entry.result
    assert type(result) is type(entry.result)


@pytest.mark.parametrize("entry", HELP, ids=lambda entry: entry.name)
def test_the_help_says_what_a_person_needs(entry: FunctionHelp) -> None:
    assert entry.sentence.endswith(".")
    assert entry.sentence[0].isupper()
    assert entry.name in entry.example
    assert entry.name in entry.signature
    assert entry.group in {"Text", "Number", "List", "Record", "Date", "Kind"}


@pytest.mark.parametrize("entry", HELP, ids=lambda entry: entry.name)
def test_an_example_has_no_problem_and_the_kind_foreseen(entry: FunctionHelp) -> None:
    assert [problem for problem in check_formula(entry.example, record()) if problem.severity == "error"] == []
    foreseen, real = infer(entry.example, record()), shape_of(entry.result)
    kinds = {option.kind for option in foreseen.options} or {foreseen.kind}
    assert "any" in kinds or real.kind in kinds or {real.kind, *kinds} <= {"text", "moment"}


@pytest.mark.parametrize("alias", [(entry.name, alias) for entry in HELP for alias in entry.aliases], ids=str)
def test_an_alias_is_the_same_function(alias: tuple[str, str]) -> None:
    name, other = alias
    example = BY_NAME[name].example
    if f"| {name}" in example:
        changed = example.replace(f"| {name}", f"| {other}")
        assert compile_formula(changed).evaluate({}) == BY_NAME[name].result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2.5 | round", 3),
        ("-2.5 | round", -3),
        ("1.005 | round(2)", 1.01),
        ("1234 | round(-2)", 1200),
        ("7 | round(2)", 7),
        ("2.41 | round(1, 'ceil')", 2.5),
        ("1e300 | round(2)", 1e300),
        ("1234.5 | format_number", "1,234.5"),
        ("1234567 | format_number", "1,234,567"),
        ("1234.5 | format_number(2, thousands='.', point=',')", "1.234,50"),
        ("0.125 | percent", "13%"),
        ("'1 000' | number", 1000),
        ("' 12.5 ' | number", 12.5),
        ("'-3' | number", -3),
        ("'1e3' | number", 1000.0),
        ("'x' | number(default=0)", 0),
        ("'x' | number(none)", None),
        ("true | number", 1),
        ("'12.9' | int", 12),
        ("-1.5 | int", -1),
        ("'a,b,,c' | split(',')", ["a", "b", "", "c"]),
        ("'  a  b ' | split", ["a", "b"]),
        ("'a\\r\\nb' | lines", ["a", "b"]),
        ("'A long story' | truncate(100)", "A long story"),
        ("'abcdefghij' | truncate(5)", "abcd…"),
        ("'abcdefghij' | truncate(5, '')", "abcde"),
        ("'Ärger & Öl — 2026!' | slug", "arger-ol-2026"),
        ("'日本 語' | slug", "日本-語"),
        ("{'a': 'b c', 'd': 1} | url_encode", "a=b%20c&d=1"),
        ("'é' | base64 | base64_decode", "é"),
        ("'a1b2' | extract('[0-9]')", "1"),
        ("'ab' | extract('[0-9]')", None),
        ("'k=v' | extract('(.)=(.)', 2)", "v"),
        ("'HELLO' | matches('hello', true)", True),
        ("'a.b' | replace_pattern('\\.', '$$')", "a$b"),
        ("'x' | pad_start(3) ~ '|'", "  x|"),
        ("[1, [2]] | flatten", [1, 2]),
        ("[1, [2, [3]]] | flatten(2)", [1, 2, 3]),
        ("[3, none, 1] | sort", [1, 3, None]),
        ("[3, none, 1] | sort(descending=true)", [3, 1, None]),
        ("['b', 'A', 'a'] | sort", ["A", "a", "b"]),
        ("[{'a': 1}, {'a': 1.0}, {'a': true}] | unique", [{"a": 1}, {"a": True}]),
        ("[1, true, '1', 1.0] | unique", [1, True, "1"]),
        ("[{'c': 'x'}, {'c': none}] | group_by('c') | keys", ["x", ""]),
        ("[1, 2, 3, 4, 5] | batch(2) | map('item | sum')", [3, 7, 5]),
        ("range(5, 0, -2)", [5, 3, 1]),
        ("range(2, 5)", [2, 3, 4]),
        ("range(0)", []),
        ("[1, 2] | zip(['a'])", [[1, "a"]]),
        ("max(1, 2.5, 2)", 2.5),
        ("['b', 'a'] | min", "a"),
        ("[] | sum", 0),
        ("[] | all('item > 1')", True),
        ("[] | any('item > 1')", False),
        ("[0, 1] | any", True),
        ("{'a': {'b': [1, {'c': 2}]}} | get('a.b.1.c')", 2),
        ("{'a.b': 1} | get('a.b')", 1),
        ("{'a': 1} | get('x.y', 'none')", "none"),
        ("{'a': 1} | merge({'b': 2}, {'a': 3})", {"a": 3, "b": 2}),
        ("{'a': 1, 'b': 2} | pick(['b', 'x'])", {"b": 2}),
        ("[{'id': 'x', 'n': 1}] | to_record('id', 'n')", {"x": 1}),
        ("'[1, {\"a\": null}]' | parse_json", [1, {"a": None}]),
        ("3.0 | text", "3"),
        ("[1.5, none, 'é'] | text", '[1.5,null,"é"]'),
        ("none | list", []),
        ("'no' | yes_no", False),
        ("0 | yes_no", False),
        ("[1, none, '', 0, []] | compact", [1, 0]),
        ("'abc' | slice(1)", "bc"),
        ("'abc' | reverse", "cba"),
        ("'a-b' | contains('-') | choose('yes', 'no')", "yes"),
    ],
)
def test_a_function_does_what_people_expect(text: str, expected: Any) -> None:
    result = compile_formula(text).evaluate({})
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'2026-11-21' | date", "2026-11-21"),
        ("'2026-11-21T10:00:00+02:00' | date", "2026-11-21T10:00:00+02:00"),
        ("'2026-11-21 10:00' | date", "2026-11-21T10:00:00Z"),
        ("0 | date", "1970-01-01T00:00:00Z"),
        ("1700000000000 | date", "2023-11-14T22:13:20Z"),
        ("'Mon, 20 Nov 1995 19:12:08 -0500' | date", "1995-11-20T19:12:08-05:00"),
        ("'20 Nov 1995 19:12:08 GMT' | date", "1995-11-20T19:12:08Z"),
        ("'11/21/2026 3:05 PM' | date('MM/DD/YYYY H:mm A')", "2026-11-21T15:05:00Z"),
        ("'21 November 2026' | date('D MMMM YYYY')", "2026-11-21"),
        ("'2026-11-21 10:00' | date('YYYY-MM-DD HH:mm', 'Europe/Berlin')", "2026-11-21T10:00:00+01:00"),
        ("'21.11.26' | date('%d.%m.%y')", "2026-11-21"),
        ("'2026-11-21T10:05:09Z' | format_date('D.M.YY HH:mm:ss [at] dddd')", "21.11.26 10:05:09 at Saturday"),
        ("'2026-11-21T15:05:09Z' | format_date('%d %b %Y, %I:%M %p')", "21 Nov 2026, 03:05 PM"),
        ("'2026-11-21T23:30:00Z' | format_date('YYYY-MM-DD', 'Europe/Berlin')", "2026-11-22"),
        ("'2026-11-21' | add(days=1)", "2026-11-22"),
        ("'2026-11-21' | add(1)", "2026-11-22"),
        ("'2026-11-21' | add(hours=1)", "2026-11-21T01:00:00Z"),
        ("'2024-02-29' | add(years=1)", "2025-02-28"),
        ("'2026-03-31' | subtract(months=1)", "2026-02-28"),
        ("'2026-11-21T10:00:00Z' | diff('2026-11-21T08:30:00Z', 'hours')", 1.5),
        ("'2026-11-21T01:00:00+02:00' | is_before('2026-11-21T00:00:00Z')", True),
        ("'2026-11-21' | start_of('week')", "2026-11-16"),
        ("'2026-11-21T10:30:45Z' | start_of('hour')", "2026-11-21T10:00:00Z"),
        ("'2026-11-21T10:00:00Z' | in_zone('+05:30')", "2026-11-21T15:30:00+05:30"),
        ("'2026-07-01T12:00:00Z' | in_zone('America/New_York')", "2026-07-01T08:00:00-04:00"),
    ],
)
def test_dates_are_read_moved_and_written(text: str, expected: Any) -> None:
    assert compile_formula(text).evaluate({}) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("'soon' | date", "not a date I can read"),
        ("'2026-02-30' | date", "not a date I can read"),
        ("'2026-13-01' | date('YYYY-MM-DD')", "not a date in the format"),
        ("'2026-11-21x' | date('YYYY-MM-DD')", "not a date in the format"),
        ("'2026-11-21' | in_zone('Europe/Berln')", "did you mean `Europe/Berlin`"),
        ("'2026-11-21' | format_date('%Q')", "not known in date formats"),
        ("'2026-11-21' | add(years=9000)", "too far away"),
        ("none | date", "`date` needs a moment, but got nothing"),
        ("'x' | matches('(')", "cannot be used"),
        ("'x' | matches('(?=x)')", "cannot be used"),
        ("'{' | parse_json", "not JSON"),
        ("'maybe' | yes_no", "neither yes nor no"),
        ("[1, 'a'] | sort", "I cannot put a number and a text in order"),
        ("[{'a': 1}] | where('a', 'like', 1)", "not an operator"),
        ("[1] | batch(0)", "between 1 and"),
        ("range(1, 5, 0)", "must not be 0"),
    ],
)
def test_what_a_function_cannot_do_is_said_in_words(text: str, words: str) -> None:
    with pytest.raises(FormulaError) as caught:
        compile_formula(text).evaluate({})
    assert words in caught.value.message
    assert caught.value.fix
