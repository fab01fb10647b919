"""Formulas are read against what can arrive: along the edges, inside loops, of steps before, for each member of a list."""

from typing import Any

import pytest

from nodes.check import Surroundings, check, known_at
from nodes.listen import CalledField
from nodes.shape import NUMBER, TEXT
from tests.nodes.check.drawing import TYPES, codes, draw, found, repaired

HOOK = (
    "trigger.webhook",
    {"path": "orders", "sample_body": '{"name": "Ada", "lines": [{"price": 2, "title": "Tea"}]}'},
)
FORM = (
    "trigger.form",
    {"path": "ask", "fields": [{"name": "days", "kind": "number"}, {"name": "why", "required": False}]},
)


def template(text: str) -> tuple[str, dict[str, Any]]:
    return ("action.text_template", {"template": text})


def formula_codes(*args: Any, **more: Any) -> list[str]:
    return [code for code in codes(draw(*args, **more)) if code.startswith("formula.")]


@pytest.mark.parametrize(
    ("text", "code", "tier"),
    [
        ("Hello {{ name", "formula.syntax", "structure"),
        ("Hello {{ name + }}", "formula.syntax", "structure"),
        ("{% if name %}x{% endif %}", "formula.forbidden", "structure"),
        ("{{ nmae }}", "formula.unknown_name", "business"),
        ("{{ name * 2 - 1 }}", "formula.type", "business"),
        ("{{ vars.limt }}", "formula.unknown_name", "business"),
        ("{{ run.idd }}", "formula.unknown_name", "business"),
        ("{{ steps.webook.body }}", "formula.unknown_name", "business"),
        ("{{ item }}", "formula.unknown_name", "business"),
    ],
)
def test_what_is_wrong_with_a_formula_is_said_at_its_field(text: str, code: str, tier: str) -> None:
    blueprint = draw({"t": HOOK, "a": template(text)}, "t.body > a.value", variables=[{"name": "limit", "value": 3}])
    finding = found(blueprint, code)
    assert (finding.node, finding.field, finding.tier) == ("a", "template", tier)
    assert "“Text template”, Text: " in finding.sentence


@pytest.mark.parametrize(
    "text",
    [
        "{{ name }} {{ input.name }} {{ value.name }}",
        "{{ vars.limit + 1 }} {{ run.agent }} {{ run.id }}",
        "{{ steps.webhook.body.name }} {{ steps.webhook.method }}",
        "{{ lines | map('price') | sum }} {{ lines[0].title }}",
        "{{ nothing_there | default('none') }}",
        "{{ now() }}",
        "No formula at all",
    ],
)
def test_a_right_formula_is_no_finding(text: str) -> None:
    assert not formula_codes(
        {"t": HOOK, "a": template(text)}, "t.body > a.value", variables=[{"name": "limit", "value": 3}]
    )


def test_a_field_that_only_the_sample_lacks_is_a_warning_and_a_field_that_cannot_come_an_error() -> None:
    guessed = found(draw({"t": HOOK, "a": template("{{ nmae }}")}, "t.body > a.value"), "formula.unknown_name")
    assert guessed.severity == "warning"
    assert "sample" in guessed.fix
    certain = found(draw({"t": FORM, "a": template("{{ dyas }}")}, "t.answers > a.value"), "formula.unknown_name")
    assert certain.severity == "error"
    assert "did you mean `days`?" in certain.sentence


def test_a_misspelt_name_can_be_put_right_by_itself_also_in_a_row() -> None:
    single = draw({"t": HOOK, "a": template("Dear {{ nmae }}!")}, "t.body > a.value")
    fixed = repaired(single, found(single, "formula.unknown_name"))
    assert fixed.nodes[1].settings["template"] == "Dear {{ name }}!"
    rows = {"fields": [{"name": "x", "formula": "1 + 1"}, {"name": "y", "formula": "nmae"}]}
    several = draw({"t": HOOK, "a": ("action.transform", rows)}, "t.body > a.value")
    finding = found(several, "formula.unknown_name")
    assert finding.field == "fields.1.formula"
    assert repaired(several, finding).nodes[1].settings["fields"][1] == {"name": "y", "formula": "name"}


def test_an_answer_that_may_be_left_open_needs_a_default_before_its_fields_are_used() -> None:
    assert not formula_codes({"t": FORM, "a": template("{{ days + 1 }} {{ why }}")}, "t.answers > a.value")


def test_shapes_go_along_the_edges_through_decisions_loops_and_merges() -> None:
    nodes = {
        "t": HOOK,
        "d": ("validation.decide", {"condition": "name == 'Ada'"}),
        "x": ("flow.for_each", {"over": "lines"}),
        "i": template("{{ item.price }} {{ price }} {{ index }} {{ titel }}"),
        "m": ("flow.merge", {}),
        "b": template("{{ naem }}"),
    }
    edges = "t.body > d.value, d.yes > x.items, x.item > i.value, i.text > x.result, d.yes > m.values, d.no > m.values, m.value > b.value"
    sentences = [one.sentence for one in check(draw(nodes, edges), TYPES) if one.code == "formula.unknown_name"]
    assert [sentence for sentence in sentences if "`titel`, did you mean `title`?" in sentence]
    assert [sentence for sentence in sentences if "`naem`, did you mean `name`?" in sentence]
    assert len(sentences) == 2


def test_what_a_loop_collects_is_known_behind_it() -> None:
    nodes = {
        "t": HOOK,
        "x": ("flow.for_each", {"over": "lines"}),
        "i": ("action.transform", {"fields": [{"name": "gross", "formula": "price * 1.2"}]}),
        "s": ("action.aggregate", {"results": [{"name": "sum", "do": "sum", "of": "grss"}]}),
    }
    blueprint = draw(nodes, "t.body > x.items, x.item > i.value, i.value > x.result, x.done > s.items")
    assert "did you mean `gross`?" in found(blueprint, "formula.unknown_name").sentence


def test_settings_that_are_worked_out_for_each_member_know_its_fields() -> None:
    nodes = {
        "t": HOOK,
        "l": ("action.split_list", {"what": "lines", "size": 2}),
        "x": ("flow.for_each", {}),
        "f": ("validation.filter_list", {"condition": "item.prise > 1 and index < 5"}),
    }
    blueprint = draw(nodes, "t.body > l.value, l.parts > x.items, x.item > f.items")
    assert "`prise` in `item`, did you mean `price`?" in found(blueprint, "formula.unknown_name").sentence


def test_settings_that_the_form_hides_are_not_read() -> None:
    hidden = ("context.set_values", {"values": [{"name": "a", "value": "total *", "kind": "text"}]})
    formula = ("context.set_values", {"values": [{"name": "a", "value": "total *", "kind": "formula"}]})
    assert not formula_codes({"t": HOOK, "a": hidden}, "t.body > a.value")
    assert formula_codes({"t": HOOK, "a": formula}, "t.body > a.value") == ["formula.syntax"]
    quiet = ("action.respond", {"body": "value", "text": "{{ nmae }}"})
    assert not formula_codes({"t": HOOK, "a": quiet}, "t.body > a.value")


def test_json_is_read_text_by_text() -> None:
    respond = ("action.respond", {"body": "json", "json_body": '{"to": "{{ name }}", "list": ["{{ nmae }}"]}'})
    finding = found(draw({"t": HOOK, "a": respond}, "t.body > a.value"), "formula.unknown_name")
    assert finding.field == "json_body"


def test_a_step_that_is_switched_off_is_not_read_and_passes_its_input_on() -> None:
    off = ("action.text_template", {"template": "{{ nmae }}"}, {"disabled": True})
    blueprint = draw(
        {"t": HOOK, "a": off, "b": template("{{ name }} {{ titel }}")}, "t.body > a.value, a.text > b.value"
    )
    assert [one.node for one in check(blueprint, TYPES) if one.code.startswith("formula.")] == ["b"]


def test_results_of_a_step_on_one_way_only_may_be_missing_behind_a_merge() -> None:
    nodes = {
        "t": HOOK,
        "d": ("validation.decide", {"condition": "name == 'Ada'"}),
        "a": ("action.ask_model", {"prompt": "Hi"}),
        "m": ("flow.merge", {}),
        "b": template("{{ steps.ask_a_model.text }}"),
        "c": template("{{ steps.ask_a_model.text | default('nothing') }}"),
    }
    edges = "t.body > d.value, d.yes > a.value, a.text > m.values, d.no > m.values, m.value > b.value, b.text > c.value"
    findings = [one for one in check(draw(nodes, edges), TYPES) if one.code.startswith("formula.")]
    assert [(one.node, one.code, one.severity) for one in findings] == [("b", "formula.may_be_missing", "warning")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ steps.text_template.text }}", "reads its own result"),
        ("{{ steps.for_each.done }}", "there only after the last item"),
    ],
)
def test_results_that_cannot_be_there_yet_inside_a_loop(text: str, words: str) -> None:
    nodes = {"t": HOOK, "x": ("flow.for_each", {"over": "lines"}), "a": template(text)}
    finding = found(draw(nodes, "t.body > x.items, x.item > a.value"), "formula.not_run_yet")
    assert finding.severity == "error"
    assert words in finding.sentence


def test_results_of_a_repeated_step_have_no_single_value_outside() -> None:
    nodes = {
        "t": HOOK,
        "x": ("flow.for_each", {"over": "lines"}),
        "a": ("action.ask_model", {"prompt": "Hi"}),
        "b": template("{{ steps.ask_a_model.text }}"),
    }
    finding = found(draw(nodes, "t.body > x.items, x.item > a.value, x.done > b.value"), "formula.not_run_yet")
    assert "no single result" in finding.sentence


def test_an_error_port_carries_a_known_record() -> None:
    nodes = {
        "t": HOOK,
        "a": ("action.ask_model", {"prompt": "Hi"}, {"policy": {"on_error": "port"}}),
        "b": template("{{ message }} {{ mesage }}"),
    }
    sentence = found(draw(nodes, "t.body > a.value, a.error > b.value"), "formula.unknown_name").sentence
    assert "did you mean `message`?" in sentence


def test_what_a_formula_can_use_is_told_to_editors() -> None:
    nodes = {"t": HOOK, "f": ("action.aggregate", {"results": [{"name": "n"}]}), "a": template("x")}
    blueprint = draw(nodes, "t.body > a.value")
    known = known_at(blueprint, TYPES, "a")
    assert known.fields["name"] == TEXT
    assert set(known.fields) >= {"input", "steps", "vars", "run", "name", "lines"}
    assert known.fields["steps"].fields["webhook"].fields["method"] == TEXT
    assert known_at(blueprint, TYPES, "f", "results.of").fields["index"] == NUMBER
    assert known_at(blueprint, TYPES, "gone").open


def test_a_field_goes_before_a_port_of_its_name() -> None:
    body = ("trigger.webhook", {"path": "p", "sample_body": '{"value": 3, "vars": "x"}'})
    known = known_at(draw({"t": body, "a": template("x")}, "t.body > a.value"), TYPES, "a")
    assert known.fields["value"] == NUMBER
    assert known.fields["vars"].kind == "record"


def test_where_a_record_may_lack_the_field_the_port_is_meant() -> None:
    body = ("trigger.webhook", {"path": "p", "sample_body": '{"total": 1}'})
    nodes = {
        "t": body,
        "d": ("validation.decide", {"condition": "total > 1"}),
        "v": ("context.set_values", {"values": [{"name": "value", "value": "3", "kind": "number"}]}),
        "m": ("flow.merge", {"mode": "first"}),
        "a": template("x"),
    }
    wires = "t.body > d.value, d.yes > v.value, v.value > m.values, d.no > m.values, m.value > a.value"
    known = known_at(draw(nodes, wires), TYPES, "a")
    assert {option.kind for option in known.fields["value"].options} == {"number", "record"}
    assert "value" not in known.optional


def test_the_condition_of_rounds_knows_what_a_round_comes_to() -> None:
    def unknown(until: str) -> list[str]:
        nodes = {
            "t": ("trigger.manual",),
            "x": ("flow.repeat", {"until": until}),
            "a": (
                "context.set_values",
                {"keep": False, "values": [{"name": "score", "value": "index + 1", "kind": "formula"}]},
            ),
        }
        found = check(draw(nodes, "t.value > x.value, x.item > a.value, a.value > x.result"), TYPES)
        return [one.sentence for one in found if one.code == "formula.unknown_name"]

    assert not unknown("score > 3 and result.score > 3 and item.score > index and vars | length == 0")
    assert "did you mean `score`" in unknown("scor > 3")[0]


def test_variables_of_a_run_are_known_where_they_are_surely_set() -> None:
    def codes_of(after: str) -> list[str]:
        nodes = {
            "t": ("trigger.manual",),
            "d": ("validation.decide", {"condition": "input == 1"}),
            "v": ("flow.set_variable", {"name": "total", "to": "3"}),
            "m": ("flow.merge", {}),
            "a": template("{{ vars.total + 1 }}"),
            "b": template("{{ vars.totl }}"),
        }
        edges = "t.value > d.value, d.yes > v.value, v.value > m.values, d.no > m.values, "
        return [
            f"{one.node} {one.code}"
            for one in check(draw(nodes, edges + after), TYPES)
            if one.code.startswith("formula")
        ]

    assert codes_of("v.value > a.value, v.value > b.value") == ["b formula.unknown_name"]
    assert "a formula.may_be_missing" in codes_of("m.value > a.value, v.value > b.value")


def test_what_a_called_agent_gives_back_is_known() -> None:
    around = Surroundings(
        blueprints=frozenset({"bp_1"}),
        returns={"bp_1": (CalledField("score", "number"), CalledField("why", "text", False))},
    )
    nodes = {
        "t": ("trigger.manual",),
        "c": ("flow.call_blueprint", {"blueprint": "bp_1"}),
        "a": template("{{ score + 1 }} {{ scor }} {{ why }}"),
    }
    found = check(draw(nodes, "t.value > c.value, c.value > a.value"), TYPES, around)
    assert ["did you mean `score`" in one.sentence for one in found if one.code == "formula.unknown_name"] == [True]
