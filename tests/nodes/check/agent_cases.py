"""What the checks say of agents, each with a drawing that has it and one that has not."""

from nodes.check import Surroundings
from tests.nodes.check.case import Case, named, off
from tests.nodes.check.drawing import draw

MANUAL = ("trigger.manual",)
HOOK = ("trigger.webhook", {"path": "orders"})
TEXT = ("action.text_template", {"template": "Hello"})
AGENT = ("action.agent", {"task": "Answer {{ input }}"})
WEATHER = ("context.recall", {"key": "weather {{ args.city }}"})
TELL = ("action.send_email", {"to": "ann@example.com", "subject": "{{ args.subject }}"})
MODEL = ("context.model", {})
HELPED = draw({"t": MANUAL, "a": AGENT, "w": WEATHER}, "t.value > a.value, w.tool > a.tools")
MAILING = {"t": HOOK, "a": AGENT, "w": WEATHER, "m": TELL}
AGENT_CASES = [
    Case(
        "agent.no_tools", "hint", "structure", "a",
        draw({"t": MANUAL, "a": AGENT}, "t.value > a.value"), HELPED,
    ),
    Case(
        "agent.loose_part", "warning", "structure", "m",
        draw({"t": MANUAL, "a": AGENT, "m": MODEL}, "t.value > a.value"),
        draw({"t": MANUAL, "a": AGENT, "m": MODEL}, "t.value > a.value, m.model > a.model"),
    ),
    Case(
        "agent.part_off", "hint", "structure", "m",
        draw({"t": MANUAL, "a": AGENT, "m": off(MODEL)}, "t.value > a.value, m.model > a.model"),
        draw({"t": MANUAL, "a": AGENT, "m": MODEL}, "t.value > a.value, m.model > a.model"),
    ),
    Case(
        "agent.two", "error", "structure", "a",
        draw({"t": MANUAL, "a": AGENT, "m": MODEL, "n": named(MODEL, "Other")}, "t.value > a.value, m.model > a.model, n.model > a.model"),
        draw({"t": MANUAL, "a": AGENT, "m": MODEL}, "t.value > a.value, m.model > a.model"),
        words="which takes one",
    ),
    Case(
        "tool.shared", "error", "structure", "w",
        draw({"t": MANUAL, "a": AGENT, "b": named(AGENT, "Second"), "w": WEATHER}, "t.value > a.value, a.value > b.value, w.tool > a.tools, w.tool > b.tools"),
        HELPED,
    ),
    Case(
        "tool.joined", "error", "structure", "x",
        draw({"t": MANUAL, "a": AGENT, "w": WEATHER, "v": named(WEATHER, "More"), "x": ("flow.merge", {})},
             "t.value > a.value, w.tool > a.tools, v.tool > a.tools, w.value > x.values, v.value > x.values"),
        HELPED,
    ),
    Case(
        "tool.leaks", "error", "structure", "x",
        draw({"t": MANUAL, "a": AGENT, "w": WEATHER, "x": ("flow.merge", {})},
             "t.value > a.value, w.tool > a.tools, w.value > x.values, a.value > x.values"),
        HELPED, words="whenever “Agent” uses a tool",
    ),
    Case(
        "model.missing", "warning", "business", "a", HELPED, draw({"t": MANUAL, "a": TEXT}, "t.value > a.value"),
        Surroundings(model_configured=False),
    ),
    Case(
        "tool.unused", "error", "structure", "w",
        draw({"t": MANUAL, "a": AGENT, "w": WEATHER}, "t.value > a.value, a.value > w.value"), HELPED, words="this step is none",
    ),
    Case(
        "formula.not_run_yet", "error", "business", "e",
        draw({"t": MANUAL, "a": AGENT, "w": WEATHER, "e": ("action.text_template", {"template": "{{ steps.recall.value }}"})},
             "t.value > a.value, w.tool > a.tools, a.value > e.value"),
        HELPED, words="is a tool of “Agent”",
    ),
    Case(
        "rule_of_two.broken", "error", "security", "m",
        draw(MAILING, "t.body > a.value, w.tool > a.tools, m.tool > a.tools"),
        draw(MAILING | {"ok": ("validation.approve", {})},
             "t.body > a.value, w.tool > a.tools, ok.tool > a.tools, ok.approved > m.value"),
        words="“Webhook” brings in what others wrote, “Recall” reads private data, and “Send e-mail” acts outside",
    ),
    Case(
        "rule_of_two.broken", "error", "security", "m",
        draw(MAILING, "t.body > a.value, w.tool > a.tools, m.tool > a.tools"),
        draw(MAILING | {"m": (*TELL, {"policy": {"ask_first": True}})},
             "t.body > a.value, w.tool > a.tools, m.tool > a.tools"),
        words="“Send e-mail” acts outside on both",
    ),
    Case(
        "rule_of_two.broken", "error", "security", "m",
        draw({"t": HOOK, "a": AGENT, "k": ("context.memory", {"name": "x"}), "m": TELL},
             "t.body > a.value, k.memory > a.memory, m.tool > a.tools"),
        draw({"t": HOOK, "a": AGENT, "m": TELL}, "t.body > a.value, m.tool > a.tools"),
        words="“Conversation memory” reads private data",
    ),
]  # fmt: skip
