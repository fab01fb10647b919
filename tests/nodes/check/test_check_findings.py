"""For each finding a blueprint that has it, and one like it that has not."""

import ast
from pathlib import Path
from typing import Any

import pytest

import nodes.check
from nodes.blueprint import Blueprint
from nodes.check import Surroundings, check
from nodes.formula.problems import FormulaError
from nodes.listen import CalledField
from tests.nodes.check.agent_cases import AGENT_CASES
from tests.nodes.check.case import Case, named, off
from tests.nodes.check.drawing import TYPES, codes, draw, found, repaired

MANUAL = ("trigger.manual",)
HOOK = ("trigger.webhook", {"path": "orders"})
SIGNED = ("trigger.webhook", {"path": "orders", "secret": "hook_key"})
WAITING = ("trigger.webhook", {"path": "orders", "respond": "end"})
DAILY = ("trigger.schedule", {"mode": "weekdays", "at": "09:00"})
DECIDE = ("validation.decide", {"condition": "total > 1000"})
TEXT = ("action.text_template", {"template": "Hello"})
RESPOND = ("action.respond", {})
TABLE = ("context.read_table", {"source": "table", "table": "customers"})
MAIL = ("action.send_email", {"to": "ann@example.com", "subject": "News"})
EACH = ("flow.for_each", {"over": "lines"})
LINES = ("context.set_values", {"values": [{"name": "lines", "value": "{{ [1, 2] }}"}]})
NEEDS = Surroundings(
    blueprints=frozenset({"bp_other"}),
    inputs={"bp_other": (CalledField("text", "text"), CalledField("days", "number", required=False))},
)
CALL = ("flow.call_blueprint", {"blueprint": "bp_other"})
GET = ("context.http_request", {"url": "https://api.example.com/orders"})
ALLOWED = ["api.example.com"]


def policy(given: tuple[Any, ...], **more: Any) -> tuple[Any, ...]:
    return (given[0], given[1] if len(given) > 1 else {}, {"policy": more})


def asking(prompt: str = "Hello") -> tuple[str, dict[str, Any]]:
    return ("action.ask_model", {"prompt": prompt})


WHOLE = draw({"t": MANUAL, "a": TEXT}, "t.value > a.value")

CASES = [
    # structure: what keeps it from running
    Case("node.unknown", "error", "structure", "a", draw({"t": MANUAL, "a": ("action.teleport",)}), WHOLE, words="teleport"),
    Case(
        "node.settings", "error", "structure", "a",
        draw({"t": MANUAL, "a": ("action.text_template", {})}, "t.value > a.value"), WHOLE, words="still empty",
    ),
    Case(
        "node.settings", "error", "structure", "t",
        draw({"t": ("trigger.manual", {"gone": 1}), "a": TEXT}, "t.value > a.value"), WHOLE, words="gone: this setting is not known here",
    ),
    Case(
        "node.settings", "error", "structure", "a",
        draw({"t": MANUAL, "a": ("context.set_values", {"values": [{"name": "", "value": "1"}]})}, "t.value > a.value"),
        WHOLE, words="Values 1, Field: this is still empty.",
    ),
    Case("edge.no_port", "error", "structure", "t", draw({"t": MANUAL, "a": TEXT}, "t.gone > a.value"), WHOLE, words="“gone”"),
    Case(
        "edge.types", "error", "structure", "f",
        draw({"t": MANUAL, "a": TEXT, "f": ("validation.filter_list", {"condition": "item"})}, "t.value > a.value, a.text > f.items"),
        draw({"t": MANUAL, "f": ("validation.filter_list", {"condition": "item"})}, "t.value > f.items"),
    ),
    Case(
        "graph.circle", "error", "structure", "m",
        draw({"t": MANUAL, "m": ("flow.merge", {}), "a": TEXT}, "t.value > m.values, m.value > a.value, a.text > m.values"),
        WHOLE,
    ),
    Case(
        "loop.shared", "error", "structure", "a",
        draw(
            {"t": MANUAL, "l": LINES, "x": EACH, "y": EACH, "a": ("flow.merge", {})},
            "t.value > l.value, l.value > x.items, l.value > y.items, x.item > a.values, y.item > a.values",
        ),
        draw({"t": MANUAL, "l": LINES, "x": EACH, "a": TEXT}, "t.value > l.value, l.value > x.items, x.item > a.value"),
        words="two loops",
    ),
    Case(
        "loop.leaks", "error", "structure", "a",
        draw(
            {"t": MANUAL, "l": LINES, "x": EACH, "a": ("flow.merge", {})},
            "t.value > l.value, l.value > x.items, x.item > a.values, x.done > a.values",
        ),
        draw({"t": MANUAL, "l": LINES, "x": EACH, "a": TEXT}, "t.value > l.value, l.value > x.items, x.item > a.value"),
    ),
    Case(
        "loop.result", "error", "structure", "t",
        draw({"t": MANUAL, "l": LINES, "x": EACH, "a": TEXT},
             "t.value > l.value, l.value > x.items, x.item > a.value, t.value > x.result"),
        draw({"t": MANUAL, "l": LINES, "x": EACH, "a": TEXT},
             "t.value > l.value, l.value > x.items, x.item > a.value, a.text > x.result"),
    ),
    Case("graph.empty", "error", "structure", "", draw({}), WHOLE),
    Case("graph.no_trigger", "error", "structure", "", draw({"a": TEXT}), WHOLE),
    Case("graph.trigger_off", "error", "structure", "t", draw({"t": off(MANUAL), "a": TEXT}, "t.value > a.value"), WHOLE),
    Case(
        "graph.trigger_off", "warning", "structure", "u",
        draw({"t": MANUAL, "u": off(DAILY), "a": TEXT}, "t.value > a.value, u.date > a.value"), WHOLE,
    ),
    Case("graph.loose", "warning", "structure", "r", draw({"t": MANUAL, "a": TEXT, "r": TABLE}, "t.value > a.value"), WHOLE),
    Case(
        "graph.own_start", "hint", "structure", "r",
        draw({"t": MANUAL, "a": TEXT, "r": TABLE, "m": ("flow.merge", {})}, "t.value > a.value, r.rows > m.values, a.text > m.values"),
        WHOLE,
    ),
    Case("port.unfed", "error", "structure", "d", draw({"t": MANUAL, "a": TEXT, "d": DECIDE}, "t.value > a.value"), WHOLE),
    Case(
        "port.shared", "warning", "structure", "r",
        draw({"t": MANUAL, "a": TEXT, "b": TEXT, "r": RESPOND}, "t.value > a.value, t.value > b.value, a.text > r.value, b.text > r.value"),
        draw(
            {"t": MANUAL, "d": ("validation.decide", {"condition": "input == 1"}), "a": TEXT, "b": TEXT, "r": RESPOND},
            "t.value > d.value, d.yes > a.value, d.no > b.value, a.text > r.value, b.text > r.value",
        ),
    ),
    Case(
        "graph.never_runs", "error", "structure", "s",
        draw(
            {"t": MANUAL, "d": ("validation.decide", {"condition": "input == 1"}), "s": ("flow.pair",)},
            "t.value > d.value, d.yes > s.left, d.no > s.right",
        ),
        draw(
            {"t": MANUAL, "d": ("validation.decide", {"condition": "input == 1"}), "s": ("flow.pair",)},
            "t.value > d.value, d.yes > s.left, t.value > s.right",
        ),
    ),
    Case(
        "graph.behind_off", "warning", "structure", "b",
        draw({"t": HOOK, "d": off(DECIDE), "a": TEXT, "b": TEXT}, "t.body > d.value, d.yes > a.value, d.no > b.value"),
        draw({"t": HOOK, "d": DECIDE, "a": TEXT, "b": TEXT}, "t.body > d.value, d.yes > a.value, d.no > b.value"),
    ),
    Case(
        "loop.empty", "warning", "structure", "x",
        draw({"t": MANUAL, "l": LINES, "x": EACH, "a": TEXT}, "t.value > l.value, l.value > x.items, x.done > a.value"),
        draw({"t": MANUAL, "l": LINES, "x": EACH, "a": TEXT}, "t.value > l.value, l.value > x.items, x.item > a.value"),
    ),
    Case(
        "loop.not_collected", "hint", "structure", "x",
        draw({"t": MANUAL, "l": LINES, "x": EACH, "a": TEXT, "b": TEXT},
             "t.value > l.value, l.value > x.items, x.item > a.value, x.done > b.value"),
        draw({"t": MANUAL, "l": LINES, "x": EACH, "a": TEXT, "b": TEXT},
             "t.value > l.value, l.value > x.items, x.item > a.value, a.text > x.result, x.done > b.value"),
    ),
    Case(
        "trigger.same_address", "error", "structure", "u",
        draw({"t": HOOK, "u": ("trigger.form", {"path": "orders"}), "a": TEXT}, "t.body > a.value, u.answers > a.value"),
        draw({"t": HOOK, "u": ("trigger.form", {"path": "forms"}), "a": TEXT}, "t.body > a.value, u.answers > a.value"),
    ),
    Case(
        "node.same_name", "hint", "structure", "b",
        draw({"t": MANUAL, "a": named(TEXT, "Greet"), "b": named(TEXT, "greet")}, "t.value > a.value, a.text > b.value"),
        draw({"t": MANUAL, "a": named(TEXT, "Greet"), "b": named(TEXT, "Part")}, "t.value > a.value, a.text > b.value"),
    ),
    Case(
        "group.missing", "hint", "structure", "",
        draw({"t": MANUAL, "a": TEXT}, "t.value > a.value", groups=[{"id": "g", "title": "Both", "nodes": ["a", "gone"]}]),
        WHOLE, words="“Both”",
    ),
    Case(
        "variable.twice", "error", "structure", "",
        draw({"t": MANUAL, "a": ("action.text_template", {"template": "{{ vars.x }}"})}, "t.value > a.value",
             variables=[{"name": "x", "value": 1}, {"name": "x", "value": 2}]),
        draw({"t": MANUAL, "a": ("action.text_template", {"template": "{{ vars.x }}"})}, "t.value > a.value",
             variables=[{"name": "x", "value": 1}]),
    ),
    Case(
        "variable.unused", "hint", "structure", "",
        draw({"t": MANUAL, "a": TEXT}, "t.value > a.value", variables=[{"name": "limit", "value": 1}]),
        draw({"t": MANUAL, "a": ("action.text_template", {"template": "{{ vars.limit }}"})}, "t.value > a.value",
             variables=[{"name": "limit", "value": 1}]),
    ),
    Case(
        "secret.missing", "warning", "structure", "t",
        draw({"t": SIGNED, "a": TEXT}, "t.body > a.value"), draw({"t": HOOK, "a": TEXT}, "t.body > a.value"),
        Surroundings(secrets=frozenset({"other"})), words="hook_key",
    ),
    Case(
        "file.missing", "warning", "structure", "a",
        draw({"t": MANUAL, "a": ("context.read_table", {"source": "file", "file": "gone.csv"})}, "t.value > a.value"),
        draw({"t": MANUAL, "a": ("context.read_table", {"source": "file", "file": "here.csv"})}, "t.value > a.value"),
        Surroundings(files=frozenset({"here.csv"})),
    ),
    Case(
        "file.missing", "warning", "structure", "a",
        draw({"t": MANUAL, "a": ("action.run_code", {"reads": ["here.csv", "gone.csv"]})}, "t.value > a.value"),
        draw({"t": MANUAL, "a": ("action.run_code", {"reads": ["here.csv"]})}, "t.value > a.value"),
        Surroundings(files=frozenset({"here.csv"})), words="gone.csv",
    ),
    Case(
        "blueprint.calls_itself", "error", "structure", "a",
        draw({"t": MANUAL, "a": ("flow.call_blueprint", {"blueprint": "bp_own"})}, "t.value > a.value"),
        draw({"t": MANUAL, "a": CALL}, "t.value > a.value"),
        Surroundings(blueprints=frozenset({"bp_own", "bp_other"}), own_id="bp_own"),
    ),
    Case(
        "blueprint.missing", "error", "structure", "a",
        draw({"t": MANUAL, "a": ("flow.call_blueprint", {"blueprint": "bp_gone"})}, "t.value > a.value"),
        draw({"t": MANUAL, "a": CALL}, "t.value > a.value"),
        Surroundings(blueprints=frozenset({"bp_other"})),
    ),
    Case(
        "call.missing_input", "error", "structure", "a",
        draw({"t": MANUAL, "a": ("flow.call_blueprint", {"blueprint": "bp_other", "input": '{"to": "en"}'})}, "t.value > a.value"),
        draw({"t": MANUAL, "a": ("flow.call_blueprint", {"blueprint": "bp_other", "input": '{"text": "{{ x }}"}'})}, "t.value > a.value"),
        NEEDS, words="“text”",
    ),
    Case(
        "call.missing_input", "error", "structure", "a",
        draw({"t": ("trigger.called", {"fields": [{"name": "body"}]}), "a": CALL}, "t.value > a.value"),
        draw({"t": ("trigger.called", {"fields": [{"name": "text"}]}), "a": CALL}, "t.value > a.value"),
        NEEDS, words="“text”",
    ),
    Case(
        "call.wrong_input", "error", "structure", "a",
        draw({"t": MANUAL, "a": ("flow.start_blueprint", {"blueprint": "bp_other", "input": '{"text": "x", "days": "{{ n }} days"}'})}, "t.value > a.value"),
        draw({"t": MANUAL, "a": ("flow.start_blueprint", {"blueprint": "bp_other", "input": '{"text": "x", "days": "{{ n }}"}'})}, "t.value > a.value"),
        NEEDS, words="a number",
    ),
    Case(
        "call.wrong_input", "warning", "structure", "a",
        draw({"t": ("trigger.called", {"fields": [{"name": "text"}, {"name": "days"}]}), "a": CALL}, "t.value > a.value"),
        draw({"t": ("trigger.called", {"fields": [{"name": "text"}, {"name": "days", "kind": "number"}]}), "a": CALL}, "t.value > a.value"),
        NEEDS, words="as text",
    ),
    Case(
        "call.unknown_input", "warning", "structure", "a",
        draw({"t": MANUAL, "a": ("flow.call_blueprint", {"blueprint": "bp_other", "input": '{"text": "x", "tone": "y"}'})}, "t.value > a.value"),
        draw({"t": MANUAL, "a": ("flow.call_blueprint", {"blueprint": "bp_other", "input": '{"text": "x", "days": 3}'})}, "t.value > a.value"),
        NEEDS, words="“tone”",
    ),
    Case(
        "loop.same_rounds", "warning", "structure", "x",
        draw({"t": MANUAL, "x": ("flow.repeat", {"until": "index > 3"}), "a": TEXT}, "t.value > x.value, x.item > a.value"),
        draw({"t": MANUAL, "x": ("flow.repeat", {"until": "index > 3"}), "a": TEXT}, "t.value > x.value, x.item > a.value, a.text > x.result"),
    ),
    Case(
        "loop.slow", "hint", "performance", "x",
        draw({"t": MANUAL, "l": LINES, "x": ("flow.for_each", {"over": "lines", "most": 50, "parallel": 10}), "a": (*GET, {"policy": {"at_most": 10, "per": 60}})}, "t.value > l.value, l.value > x.items, x.item > a.value"),
        draw({"t": MANUAL, "l": LINES, "x": ("flow.for_each", {"over": "lines", "most": 50, "parallel": 10}), "a": GET}, "t.value > l.value, l.value > x.items, x.item > a.value"),
        words="5 minutes",
    ),
    Case(
        "loop.slow", "hint", "performance", "x",
        draw({"t": MANUAL, "x": ("flow.repeat", {"until": "index > 3"}), "a": asking()}, "t.value > x.value, x.item > a.value, a.text > x.result"),
        draw({"t": MANUAL, "x": ("flow.repeat", {"until": "index > 3", "most": 5}), "a": asking()}, "t.value > x.value, x.item > a.value, a.text > x.result"),
        words="100 rounds",
    ),
    # security
    Case(
        "secret.in_text", "error", "security", "a",
        draw({"t": MANUAL, "a": asking("Use sk-ant-api03-R2D2c3poBB8skywalkerLEIAhan0 to answer")}, "t.value > a.value"),
        draw({"t": MANUAL, "a": asking("Use the key in the vault to answer")}, "t.value > a.value"),
    ),
    Case(
        "host.no_list", "warning", "security", "a",
        draw({"t": MANUAL, "a": GET}, "t.value > a.value"),
        draw({"t": MANUAL, "a": GET}, "t.value > a.value", allowed_hosts=ALLOWED),
        words="api.example.com",
    ),
    Case(
        "host.not_allowed", "error", "security", "a",
        draw({"t": MANUAL, "a": GET}, "t.value > a.value", allowed_hosts=["*.example.org"]),
        draw({"t": MANUAL, "a": GET}, "t.value > a.value", allowed_hosts=["*.example.com"]),
    ),
    Case(
        "host.unknown", "warning", "security", "a",
        draw({"t": HOOK, "a": ("context.http_request", {"url": "https://{{ name }}/x"})}, "t.body > a.value"),
        draw({"t": HOOK, "a": ("context.http_request", {"url": "https://{{ name }}/x"})}, "t.body > a.value", allowed_hosts=ALLOWED),
    ),
    Case(
        "rule_of_two.broken", "error", "security", "e",
        draw({"t": HOOK, "r": TABLE, "e": MAIL}, "t.body > r.value, r.rows > e.value"),
        draw({"t": HOOK, "r": TABLE, "g": ("validation.approve", {}), "e": MAIL}, "t.body > r.value, r.rows > g.value, g.approved > e.value"),
    ),
    Case(
        "webhook.open", "hint", "security", "t",
        draw({"t": HOOK, "e": MAIL}, "t.body > e.value"), draw({"t": SIGNED, "e": MAIL}, "t.body > e.value"),
    ),
    # performance
    Case(
        "run.slow", "hint", "performance", "a0",
        draw({"t": MANUAL, **{f"a{n}": asking() for n in range(30)}},
             "t.value > a0.value" + "".join(f", a{n}.text > a{n + 1}.value" for n in range(29))),
        draw({"t": MANUAL, "a": asking()}, "t.value > a.value"), words="2 minutes",
    ),
    Case(
        "run.caller_waits", "hint", "performance", "t",
        draw({"t": WAITING, **{f"a{n}": asking() for n in range(15)}},
             "t.body > a0.value" + "".join(f", a{n}.text > a{n + 1}.value" for n in range(14))),
        draw({"t": HOOK, **{f"a{n}": asking() for n in range(15)}},
             "t.body > a0.value" + "".join(f", a{n}.text > a{n + 1}.value" for n in range(14))),
    ),
    Case(
        "run.overlaps", "hint", "performance", "t",
        draw({"t": ("trigger.schedule", {"mode": "every", "every": 1, "unit": "minutes"}), **{f"a{n}": asking() for n in range(25)}},
             "t.date > a0.value" + "".join(f", a{n}.text > a{n + 1}.value" for n in range(24))),
        draw({"t": ("trigger.schedule", {"mode": "every", "every": 1, "unit": "hours"}), **{f"a{n}": asking() for n in range(25)}},
             "t.date > a0.value" + "".join(f", a{n}.text > a{n + 1}.value" for n in range(24))),
    ),
    Case(
        "loop.no_bound", "hint", "performance", "x",
        draw({"t": MANUAL, "l": LINES, "x": EACH, "a": asking()}, "t.value > l.value, l.value > x.items, x.item > a.value"),
        draw({"t": MANUAL, "l": LINES, "x": ("flow.for_each", {"over": "lines", "most": 20}), "a": asking()},
             "t.value > l.value, l.value > x.items, x.item > a.value"),
        words="100 answers of a model",
    ),
    Case(
        "loop.slow", "hint", "performance", "x",
        draw({"t": MANUAL, "l": LINES, "x": ("flow.for_each", {"over": "lines", "most": 500}), "a": asking()},
             "t.value > l.value, l.value > x.items, x.item > a.value"),
        draw({"t": MANUAL, "l": LINES, "x": ("flow.for_each", {"over": "lines", "most": 20}), "a": asking()},
             "t.value > l.value, l.value > x.items, x.item > a.value"),
        words="25 minutes",
    ),
    Case(
        "loop.crowd", "hint", "performance", "x",
        draw({"t": MANUAL, "l": LINES, "x": ("flow.for_each", {"over": "lines", "parallel": 40}), "a": asking()},
             "t.value > l.value, l.value > x.items, x.item > a.value"),
        draw({"t": MANUAL, "l": LINES, "x": ("flow.for_each", {"over": "lines", "parallel": 40}), "a": TEXT},
             "t.value > l.value, l.value > x.items, x.item > a.value"),
    ),
    Case(
        "step.tries_long", "hint", "performance", "a",
        draw({"t": MANUAL, "a": policy(asking(), retries=5, timeout=3600)}, "t.value > a.value"),
        draw({"t": MANUAL, "a": policy(asking(), retries=2, timeout=60)}, "t.value > a.value"),
    ),
    Case(
        "text.long", "hint", "performance", "a",
        draw({"t": MANUAL, "a": asking("word " * 5000)}, "t.value > a.value"),
        draw({"t": MANUAL, "a": asking("word " * 50)}, "t.value > a.value"),
    ),
    # business
    Case("trigger.alone", "warning", "business", "t", draw({"t": MANUAL}), WHOLE),
    Case(
        "decision.unused", "warning", "business", "d",
        draw({"t": HOOK, "d": DECIDE}, "t.body > d.value"),
        draw({"t": HOOK, "d": DECIDE, "a": TEXT}, "t.body > d.value, d.yes > a.value"),
    ),
    Case(
        "branch.unused", "hint", "business", "d",
        draw({"t": HOOK, "d": DECIDE, "a": TEXT}, "t.body > d.value, d.yes > a.value"),
        draw({"t": HOOK, "d": DECIDE, "a": TEXT}, "t.body > d.value, d.yes > a.value, d.no > a.value"),
        words="says “no”",
    ),
    Case(
        "error.dropped", "warning", "business", "a",
        draw({"t": MANUAL, "a": policy(asking(), on_error="port")}, "t.value > a.value"),
        draw({"t": MANUAL, "a": policy(asking(), on_error="port"), "b": TEXT}, "t.value > a.value, a.error > b.value"),
    ),
    Case(
        "respond.missing", "hint", "business", "t",
        draw({"t": WAITING, "a": TEXT}, "t.body > a.value"),
        draw({"t": WAITING, "r": RESPOND}, "t.body > r.value"),
    ),
    Case(
        "respond.unheard", "warning", "business", "r",
        draw({"t": HOOK, "r": RESPOND}, "t.body > r.value"),
        draw({"t": WAITING, "r": RESPOND}, "t.body > r.value"),
    ),
    Case(
        "respond.nobody", "warning", "business", "r",
        draw({"t": DAILY, "r": RESPOND}, "t.date > r.value"),
        draw({"t": ("trigger.chat", {"path": "c"}), "r": RESPOND}, "t.text > r.value"),
    ),
    Case(
        "model.missing", "warning", "business", "a",
        draw({"t": MANUAL, "a": asking()}, "t.value > a.value"), WHOLE, Surroundings(model_configured=False),
    ),
    Case(
        "mail.missing", "warning", "business", "a",
        draw({"t": MANUAL, "a": MAIL}, "t.value > a.value"), WHOLE, Surroundings(mail_configured=False),
    ),
    Case(
        "node.missing", "warning", "business", "a",
        draw({"t": MANUAL, "a": ("action.run_code", {"language": "javascript"})}, "t.value > a.value"),
        draw({"t": MANUAL, "a": ("action.run_code", {})}, "t.value > a.value"), Surroundings(lacks_node=True),
    ),
    Case(
        "formula.not_run_yet", "error", "business", "a",
        draw({"t": MANUAL, "a": ("action.text_template", {"template": "{{ steps.ask_a_model.text }}"}), "b": asking()},
             "t.value > a.value, a.text > b.value"),
        draw({"t": MANUAL, "a": ("action.text_template", {"template": "{{ steps.ask_a_model.text }}"}), "b": asking()},
             "t.value > b.value, b.text > a.value"),
        words="runs only after it",
    ),
    Case(
        "formula.may_not_have_run", "warning", "business", "a",
        draw({"t": MANUAL, "a": ("action.text_template", {"template": "{{ steps.ask_a_model.text }}"}), "b": asking()},
             "t.value > a.value, t.value > b.value"),
        draw({"t": MANUAL, "a": ("action.text_template", {"template": "{{ steps.ask_a_model.text }}"}), "b": asking()},
             "t.value > b.value, b.text > a.value"),
    ),
    # what happens when something fails
    Case(
        "policy.never_tried", "hint", "business", "a",
        draw({"t": MANUAL, "a": policy(GET, retry_on=["remote"])}, "t.value > a.value"),
        draw({"t": MANUAL, "a": policy(GET, retry_on=["remote"], retries=2)}, "t.value > a.value"),
    ),
    Case(
        "policy.pauses", "warning", "business", "a",
        draw({"t": MANUAL, "a": policy(GET, retries=2, first_delay=90)}, "t.value > a.value"),
        draw({"t": MANUAL, "a": policy(GET, retries=2, first_delay=9)}, "t.value > a.value"),
        words="90 s",
    ),
    Case(
        "policy.same_again", "hint", "business", "a",
        draw({"t": MANUAL, "a": policy(TEXT, retries=2)}, "t.value > a.value"),
        draw({"t": MANUAL, "a": policy(GET, retries=2)}, "t.value > a.value"),
    ),
    Case(
        "policy.hopeless", "warning", "business", "a",
        draw({"t": MANUAL, "a": policy(GET, retries=2, retry_on=["input", "credential"])}, "t.value > a.value"),
        draw({"t": MANUAL, "a": policy(GET, retries=2, retry_on=["input", "remote"])}, "t.value > a.value"),
        words="“Data” and “Sign-in”",
    ),
    Case(
        "policy.twice", "hint", "business", "a",
        draw({"t": MANUAL, "a": policy(MAIL, retries=2, retry_on=["timeout"])}, "t.value > a.value"),
        draw({"t": MANUAL, "a": policy(MAIL, retries=2, retry_on=["rate_limit"])}, "t.value > a.value"),
        words="may happen twice",
    ),
    Case(
        "policy.value_unused", "hint", "business", "a",
        draw({"t": MANUAL, "a": policy(GET, on_error_value=0)}, "t.value > a.value"),
        draw({"t": MANUAL, "a": policy(GET, on_error="continue", on_error_value=0)}, "t.value > a.value"),
    ),
    Case(
        "policy.value_kind", "warning", "business", "a",
        draw({"t": MANUAL, "a": policy(TEXT, on_error="continue", on_error_value=[1])}, "t.value > a.value"),
        draw({"t": MANUAL, "a": policy(TEXT, on_error="continue", on_error_value="none")}, "t.value > a.value"),
        words="a list",
    ),
    Case(
        "error_agent.itself", "error", "business", "",
        draw({"t": MANUAL, "a": TEXT}, "t.value > a.value", on_failure="bp_me"), WHOLE, Surroundings(own_id="bp_me"),
    ),
    Case(
        "error_agent.missing", "error", "business", "",
        draw({"t": MANUAL, "a": TEXT}, "t.value > a.value", on_failure="bp_gone"), WHOLE, Surroundings(own_id="bp_me"),
    ),
    Case(
        "error_agent.not_deployed", "warning", "business", "",
        draw({"t": MANUAL, "a": TEXT}, "t.value > a.value", on_failure="bp_tell"), WHOLE,
        Surroundings(blueprints=frozenset({"bp_tell"}), deployed=frozenset()), words="not deployed",
    ),
]  # fmt: skip
CASES += AGENT_CASES


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.code}-{case.severity}")
class TestEachFinding:
    def test_is_said_where_it_is_so(self, case: Case) -> None:
        finding = found(case.bad, case.code, case.around)
        assert (finding.severity, finding.tier, finding.node) == (case.severity, case.tier, case.node)
        assert case.words in finding.sentence

    def test_is_not_said_where_it_is_not_so(self, case: Case) -> None:
        assert case.code not in codes(case.good, case.around)

    def test_names_its_node_by_its_title_and_offers_a_fix(self, case: Case) -> None:
        finding = found(case.bad, case.code, case.around)
        placed = case.bad.node(finding.node)
        if placed is not None:
            title = placed.name or (TYPES.get(placed.type).title if placed.type in TYPES else placed.type)
            assert f"“{title}”" in finding.sentence
        assert finding.sentence.endswith(".")
        assert finding.fix.endswith(".")
        ids = {node.id for node in case.bad.nodes}
        assert set(finding.path) <= ids
        assert finding.edge in {"", *(edge.id for edge in case.bad.edges)}


@pytest.mark.parametrize(
    "case", [case for case in CASES if found(case.bad, case.code, case.around).repair], ids=lambda case: case.code
)
def test_a_repair_makes_the_finding_go_away(case: Case) -> None:
    finding = found(case.bad, case.code, case.around)
    assert finding not in check(repaired(case.bad, finding), TYPES, case.around)


def test_every_finding_has_a_pair_here() -> None:
    written = set()
    for file in Path(nodes.check.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add":
                written |= {part.value for part in node.args[1:2] if isinstance(part, ast.Constant)}
    graph = ast.parse((Path(nodes.check.__file__).parent.parent / "graph.py").read_text())
    for node in ast.walk(graph):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem":
            written |= {node.args[0].value} if isinstance(node.args[0], ast.Constant) else set()
    assert written - {FormulaError.code} <= {case.code for case in CASES}
    assert len(written) > 35


def test_errors_come_first_and_the_order_is_always_the_same() -> None:
    bad = draw(
        {
            "t": HOOK,
            "d": ("validation.decide", {"condition": "totl > 1"}),
            "e": MAIL,
            "x": ("action.gone",),
            "r": TABLE,
        },
        "t.body > d.value, d.yes > r.value, r.rows > e.value",
    )
    findings = check(bad, TYPES)
    severities = [finding.severity for finding in findings]
    assert severities == sorted(severities, key=["error", "warning", "hint"].index)
    assert {"error", "warning", "hint"} == set(severities)
    assert findings == check(bad, TYPES)


def test_a_good_agent_has_no_findings() -> None:
    good = draw(
        {"t": WAITING, "d": DECIDE, "a": TEXT, "b": TEXT, "r": RESPOND},
        "t.body > d.value, d.yes > a.value, d.no > b.value, a.text > r.value, b.text > r.value",
    )
    assert check(good, TYPES, Surroundings()) == []


@pytest.mark.parametrize(
    ("type_", "settings", "said", "fix"),
    [
        ("flow.for_each", {"parallel": 0}, "At once: this must be at least 1.", "Look at “At once” in its settings."),
        ("action.text_template", {}, "Text: this is still empty.", "Fill in “Text”."),
        (
            "action.text_template",
            {"template": "x", "color": 1},
            "color: this setting is not known here.",
            "Take “color”",
        ),
        ("flow.merge", {"mode": "some", "count": "many"}, "How many: write a number.", "Look at “How many”"),
    ],
)
def test_what_a_setting_refuses_is_said_in_plain_words(
    type_: str, settings: dict[str, Any], said: str, fix: str
) -> None:
    nodes = [{"id": "s", "type": "trigger.manual"}, {"id": "x", "type": type_, "name": "X", "settings": settings}]
    found = [
        one for one in check(Blueprint.parse({"name": "One", "nodes": nodes}), TYPES) if one.code == "node.settings"
    ]
    assert any(one.sentence == f"“X”: {said}" and one.fix.startswith(fix) for one in found), found
