"""Sentences of the studio."""

import pytest

from app.sentences import spoken
from app.studio.words import changes, item_words, json_problem, one_line, plain_problem
from nodes.blueprint import Blueprint
from nodes.catalog import catalog


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ("Field required", "This is still empty."),
        ("String should have at least 1 character", "This is still empty."),
        ("Input should be greater than or equal to 1", "This must be at least 1."),
        ("String should have at most 10000 characters", "This is too long: at most 10,000 characters."),
        ("Input should be 'a', 'b' or 'c'", "Choose one of: a, b or c."),
        ("name at least one field, or take the answer as text", "Name at least one field, or take the answer as text."),
        ("There is no function `joim`, did you mean `join`?", "There is no function “joim”, did you mean “join”?"),
    ],
)
def test_problems_are_said_as_people_say_them(said: str, plain: str):
    assert plain_problem(said) == plain


def test_values_in_one_line():
    assert [one_line(value) for value in (True, None, "", "a\nb", 120.0, {"a": [1], "b": "c"}, [{"x": 1}, 2], {}, [])] == [
        "yes", "nothing", "(empty text)", "a b", "120", "a: 1 item, b: c", "2 items: 1 field, 2", "(no fields)", "(no items)",
    ]  # fmt: skip
    assert len(one_line("x" * 500)) == 80
    assert spoken("use `x`") == "use “x”"


def test_items_are_counted_from_one():
    assert [item_words("0"), item_words("1.4")] == ["item 1", "item 2.5"]


def test_json_says_the_line_that_is_wrong():
    assert json_problem('{"a": 1}') == ({"a": 1}, 0, "")
    _, line, sentence = json_problem('{\n "a": 1,\n "b" 2}')
    assert line == 3
    assert sentence.startswith("Line 3, column")
    assert json_problem("  ") == (None, 0, "")


def test_what_changed_between_two_versions_is_told_in_sentences():
    before = Blueprint.parse(
        {
            "nodes": [
                {"id": "a", "type": "trigger.webhook", "settings": {"path": "p"}},
                {"id": "b", "type": "validation.decide", "name": "Large?", "settings": {"condition": "total > 1"}},
                {"id": "c", "type": "action.respond"},
            ],
            "edges": [{"id": "e", "source": "a", "source_port": "body", "target": "b", "target_port": "value"}],
        }
    )
    after = Blueprint.parse(
        {
            "name": "Orders",
            "nodes": [
                {"id": "a", "type": "trigger.webhook", "settings": {"path": "p"}, "x": 50},
                {"id": "b", "type": "validation.decide", "name": "Large?", "settings": {"condition": "total > 2"}},
                {"id": "d", "type": "flow.wait"},
            ],
        }
    )
    assert set(changes(before, after, catalog())) == {
        ("changed", "The agent's name changed"),
        ("added", "“Wait” added"),
        ("changed", "“Large?”: “condition” changed"),
        ("removed", "“Respond” removed"),
        ("removed", "Connection removed: “Webhook” (body) → “Large?” (value)"),
    }
    assert changes(before, before, catalog()) == []
