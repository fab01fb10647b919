"""Actions that only compute: transform, aggregate, split, text template, respond."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.base import NodeError, Port, PortType
from nodes.formula import FormulaError
from nodes.shape import NUMBER, TEXT, list_of, record, shape_of
from tests.nodes.fakes import FakeContext, make, run


async def value(type_: str, arriving, port: str = "value", **settings):
    return (await run(make(f"action.{type_}", **settings), {port: arriving}))["value"]


async def wrong(type_: str, arriving, port: str = "value", **settings) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await run(make(f"action.{type_}", **settings), {port: arriving})
    return caught.value


def refused(type_: str, **settings) -> str:
    with pytest.raises(ValueError) as caught:
        make(f"action.{type_}", **settings)
    return str(caught.value)


# --- transform --------------------------------------------------------------------------------------------------------


def fields(**formulas: str) -> list[dict[str, str]]:
    return [{"name": name, "formula": formula} for name, formula in formulas.items()]


async def test_transform_makes_a_new_record_and_leaves_the_old_one_alone():
    arriving = {"a": 1, "b": 2}
    assert await value("transform", arriving, fields=fields(b="a + b", c="b"), keep=True) == {"a": 1, "b": 3, "c": 2}
    assert arriving == {"a": 1, "b": 2}


async def test_transform_drops_what_is_not_named_unless_told_to_keep_it():
    assert await value("transform", {"a": 1, "b": 2}, fields=fields(x="a")) == {"x": 1}
    kept = await value("transform", {"a": 1, "b": 2, "c": 3}, fields=fields(x="a"), keep=True, leave_out=["a", "b"])
    assert kept == {"c": 3, "x": 1}


async def test_transform_keeps_plain_values_as_a_field():
    assert await value("transform", 5, fields=fields(twice="input * 2"), keep=True) == {"value": 5, "twice": 10}
    assert await value("transform", [5], fields=fields(twice="item * 2"), keep=True) == [{"value": 5, "twice": 10}]


async def test_in_a_list_each_member_has_its_own_names_and_the_whole_list_is_input():
    rows = [{"n": 1}, {"n": 3}]
    got = await value("transform", rows, fields=fields(part="n / (input | sum('n'))", place="index"))
    assert got == [{"part": 0.25, "place": 0}, {"part": 0.75, "place": 1}]


async def test_fields_that_arrive_cannot_hide_our_own_names():
    context = FakeContext({"vars": {"rate": 2}})
    rows = [{"vars": {"rate": 9}, "input": "x", "item": "y", "n": 1}]
    got = await run(
        make("action.transform", fields=fields(a="n * vars.rate", b="input | length")), {"value": rows}, context
    )
    assert got["value"] == [{"a": 2, "b": 1}]


async def test_a_misspelt_field_names_the_one_that_was_meant():
    with pytest.raises(FormulaError, match="custmer"):
        await value("transform", {"customer": "Ada"}, fields=fields(x="custmer"))


def test_two_fields_of_one_name_are_refused():
    assert "set twice" in refused("transform", fields=[*fields(a="1"), *fields(a="2")])


def test_transform_knows_the_shape_of_what_leaves():
    node = make("action.transform", fields=fields(total="price * 2", who="name"), keep=True, leave_out=["price"])
    arriving = shape_of({"price": 2, "name": "Ada", "city": "Rome"})
    expected = record({"name": TEXT, "city": TEXT, "total": NUMBER, "who": TEXT})
    assert node.shapes({"value": arriving})["value"] == expected
    assert node.shapes({"value": list_of(arriving)})["value"] == list_of(expected)


# --- aggregate --------------------------------------------------------------------------------------------------------


def results(**rows: str) -> list[dict[str, str]]:
    """`total="sum of price"` as a setting."""
    parts = {name: text.partition(" of ") for name, text in rows.items()}
    return [{"name": name, "do": do, **({"of": of} if of else {})} for name, (do, _, of) in parts.items()]


ROWS = [
    {"city": "Rome", "price": 2, "tags": ["a"]},
    {"city": "Paris", "price": None, "tags": []},
    {"city": "Rome", "price": 5.5},
]


async def test_every_figure():
    got = await value(
        "aggregate",
        ROWS,
        "items",
        results=results(
            all="count",
            priced="count of price",
            sum="sum of price",
            average="average of price",
            low="min of price",
            high="max of city",
            first="first of price",
            last="last of city",
            joined="join of price",
            cities="unique of city",
            prices="collect of price",
        ),
        separator=" + ",
    )
    assert got == {
        "all": 3,
        "priced": 2,
        "sum": 7.5,
        "average": 3.75,
        "low": 2,
        "high": "Rome",
        "first": 2,
        "last": "Rome",
        "joined": "2 + 5.5",
        "cities": ["Rome", "Paris"],
        "prices": [2, None, 5.5],
    }


async def test_nothing_to_aggregate_gives_empty_figures():
    settings = results(n="count", s="sum", a="average", low="min", f="first", j="join", u="unique", c="collect")
    assert await value("aggregate", [], "items", results=settings) == {
        "n": 0, "s": 0, "a": None, "low": None, "f": None, "j": "", "u": [], "c": [],
    }  # fmt: skip
    assert await value("aggregate", [], "items", results=settings, group_by="city") == []


async def test_the_earliest_moment_is_found_however_it_is_written():
    given = ["2026-11-21T10:00:00Z", "2026-11-21T11:30:00+02:00", None]
    got = await value("aggregate", given, "items", results=results(first="min", last="max"))
    assert got == {"first": given[1], "last": given[0]}


async def test_groups_are_in_the_order_of_their_first_member():
    got = await value("aggregate", ROWS, "items", group_by="city", results=results(n="count", total="sum of price"))
    assert got == [{"city": "Rome", "n": 2, "total": 7.5}, {"city": "Paris", "n": 1, "total": 0}]


async def test_a_group_may_be_worked_out_and_keeps_kinds_apart():
    got = await value("aggregate", [1, True, "1", 1.0, None], "items", group_by="item", results=results(n="count"))
    assert [(row["item"], row["n"]) for row in got] == [(1, 2), (True, 1), ("1", 1), (None, 1)]
    got = await value("aggregate", ["Ann", "Al", "Bob"], "items", group_by="item | length", results=results(n="count"))
    assert got == [{"group": 3, "n": 2}, {"group": 2, "n": 1}]


@pytest.mark.parametrize(
    ("items", "figure", "said"),
    [
        ([{"p": 1}, {"p": "2"}], "sum of p", "a text in item 2"),
        ([True], "average", "a yes/no in item 1"),
        ([1, "a"], "max", "no biggest value"),
        ([[1]], "min", "no smallest value"),
        ("text", "count", "A list is needed here, and a text arrived."),
        (None, "count", "nothing arrived"),
    ],
)
async def test_what_cannot_be_aggregated_says_where(items, figure: str, said: str):
    assert said in (await wrong("aggregate", items, "items", results=results(x=figure))).message


async def test_a_field_that_no_item_has_is_a_mistake_and_one_that_some_lack_is_not():
    assert await value("aggregate", [{"a": 1}, {}], "items", results=results(s="sum of a")) == {"s": 1}
    with pytest.raises(FormulaError):
        await value("aggregate", [{"a": 1}, {}], "items", results=results(s="sum of prise"))


def test_results_of_one_name_are_refused():
    assert "set twice" in refused("aggregate", results=[*results(a="count"), *results(a="sum")])
    assert "set twice" in refused("aggregate", group_by="city", results=results(city="count"))


@given(st.lists(st.integers(-(10**6), 10**6)))
async def test_aggregate_agrees_with_python(numbers: list[int]):
    got = await value(
        "aggregate",
        numbers,
        "items",
        results=results(n="count", s="sum", low="min", high="max", u="unique", a="average"),
    )
    assert (got["n"], got["s"], got["u"]) == (len(numbers), sum(numbers), list(dict.fromkeys(numbers)))
    assert (got["low"], got["high"]) == ((min(numbers), max(numbers)) if numbers else (None, None))
    assert got["a"] is None if not numbers else math.isclose(got["a"], sum(numbers) / len(numbers))
    groups = await value("aggregate", numbers, "items", group_by="item", results=results(n="count"))
    assert {row["item"]: row["n"] for row in groups} == Counter(numbers)


# --- split ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers()), st.integers(1, 7))
async def test_batches_hold_everything_in_order(items: list[int], size: int):
    got = await run(make("action.split_list", size=size), {"value": items})
    assert [item for part in got["parts"] for item in part] == items
    assert all(len(part) == size for part in got["parts"][:-1])
    assert got["count"] == len(got["parts"])


@pytest.mark.parametrize(
    ("text", "settings", "parts"),
    [
        ("a\r\nb\n\n c ", {"by": "lines"}, ["a", "b", "c"]),
        ("a\n\n c ", {"by": "lines", "tidy": False}, ["a", "", " c "]),
        ("one\ntwo\n\n\nthree\n", {"by": "paragraphs"}, ["one\ntwo", "three"]),
        ("a;;b", {"by": "separator", "separator": ";"}, ["a", "b"]),
        ("a;;b", {"by": "separator", "separator": ";", "tidy": False}, ["a", "", "b"]),
        ("", {"by": "paragraphs"}, []),
        ("a.b", {"by": "separator", "separator": "."}, ["a", "b"]),
    ],
)
async def test_texts_are_cut(text: str, settings, parts: list[str]):
    assert (await run(make("action.split_list", **settings), {"value": text}))["parts"] == parts


async def test_the_wrong_kind_to_cut_says_what_to_do():
    assert "a text" in (await wrong("split_list", "abc")).message
    assert "a number" in (await wrong("split_list", 5, by="lines")).message
    assert (await wrong("split_list", "a," * 100_001, by="separator")).category == "limit"


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ n }}", "3"),
        ("{{ items }}", '["a"]'),
        ("{{ nothing }}", ""),
        ("no formulas", "no formulas"),
        ("{{ yes }}!", "true!"),
    ],
)
async def test_a_text_template_always_gives_a_text(template: str, text: str):
    arriving = {"n": 3, "items": ["a"], "nothing": None, "yes": True}
    assert (await run(make("action.text_template", template=template), {"value": arriving}))["text"] == text


async def test_what_arrives_is_filled_in_and_not_worked_out_again():
    got = await run(make("action.text_template", template="Hi {{ name }}"), {"value": {"name": "{{ 1 + 1 }}"}})
    assert got["text"] == "Hi {{ 1 + 1 }}"


# --- respond ----------------------------------------------------------------------------------------------------------


async def response(arriving, **settings):
    context = FakeContext()
    out = await run(make("action.respond", **settings), {"value": arriving}, context)
    assert out == {"value": arriving}
    return context.responses


async def test_the_answer_is_what_arrived_or_what_was_written():
    assert await response({"a": 1}) == [{"status": 200, "body": {"a": 1}, "headers": {}}]
    got = await response({"n": 3, "name": 'A "q"'}, body="json", json_body='{"x": "{{ n }}", "y": "{{ name }}!"}')
    assert got[0]["body"] == {"x": 3, "y": 'A "q"!'}
    assert (await response({"n": 3}, body="text", text="{{ n }}"))[0]["body"] == "3"
    assert (await response({"n": 3}, body="nothing"))[0]["body"] is None


async def test_status_kind_and_headers_go_along():
    got = await response({"n": 3}, status=404, content_type="text/csv", headers=[{"name": "X-N", "value": "{{ n }}"}])
    assert got == [{"status": 404, "body": {"n": 3}, "headers": {"X-N": "3", "content-type": "text/csv"}}]
    assert (await response({"n": 3}, status=204))[0]["body"] is None, "no body can follow this status"


async def test_no_header_can_be_slipped_into_the_answer():
    error = await wrong("respond", {"n": "a\r\nSet-Cookie: x"}, headers=[{"name": "X-N", "value": "{{ n }}"}])
    assert "line break" in error.message
    assert "String should match" in refused("respond", headers=[{"name": "X-A: b\r\nX"}])
    assert "String should match" in refused("respond", content_type="text/html\r\nX-A: b")
    assert "JSON" in refused("respond", body="json", json_body='{"a": }')


def test_ports_are_as_the_canvas_draws_them():
    node = make("action.aggregate")
    assert node.inputs() == (Port("items", PortType.LIST),)
    assert make("action.split_list").outputs()[0].type is PortType.LIST
