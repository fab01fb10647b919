"""What a drawing means when it runs: ways that exclude each other, taint that a person's decision lifts, slowest ways."""

import pytest

from nodes.check import Surroundings, check, forecast_seconds, in_words
from nodes.check.reading import Reading
from tests.nodes.check.drawing import TYPES, codes, draw, found, repaired

HOOK = ("trigger.webhook", {"path": "orders"})
SIGNED = ("trigger.webhook", {"path": "orders", "secret": "hook_key"})
MANUAL = ("trigger.manual",)
YES_NO = ("validation.decide", {"condition": "1 < 2"})
TABLE = ("context.read_table", {"source": "table", "table": "customers"})
TEXT = ("action.text_template", {"template": "Hello"})
MODEL = ("action.ask_model", {"prompt": "Hello"})
MAIL = ("action.send_email", {"to": "ann@example.com", "subject": "News"})
APPROVE = ("validation.approve", {})


# --- several edges into one port ---


@pytest.mark.parametrize(
    ("nodes", "edges", "shared"),
    [
        # both ways of one decision
        ({"t": MANUAL, "d": YES_NO, "a": TEXT}, "t.value > d.value, d.yes > a.value, d.no > a.value", False),
        # one of them through further steps and another decision
        (
            {"t": MANUAL, "d": YES_NO, "b": TEXT, "c": YES_NO, "a": TEXT},
            "t.value > d.value, d.yes > b.value, b.text > c.value, c.yes > a.value, d.no > a.value",
            False,
        ),
        # different triggers
        ({"t": MANUAL, "u": HOOK, "a": TEXT}, "t.value > a.value, u.body > a.value", False),
        # what went wrong, or what went right
        (
            {"t": MANUAL, "m": ("action.ask_model", {"prompt": "x"}, {"policy": {"on_error": "port"}}), "a": TEXT},
            "t.value > m.value, m.text > a.value, m.error > a.value",
            False,
        ),
        # approved or rejected
        ({"t": MANUAL, "p": APPROVE, "a": TEXT}, "t.value > p.value, p.approved > a.value, p.rejected > a.value", False),
        # the same way of a decision twice
        (
            {"t": MANUAL, "d": YES_NO, "b": TEXT, "a": TEXT},
            "t.value > d.value, d.yes > b.value, b.text > a.value, d.yes > a.value",
            True,
        ),
        # a switch that takes every match
        (
            {
                "t": MANUAL,
                "s": ("validation.switch", {"take": "all", "cases": [{"name": "a", "condition": "1 < 2"}, {"name": "b", "condition": "1 < 3"}]}),
                "x": TEXT,
            },
            "t.value > s.value, s.a > x.value, s.b > x.value",
            True,
        ),
        # two decisions that know nothing of each other
        (
            {"t": MANUAL, "d": YES_NO, "e": YES_NO, "a": TEXT},
            "t.value > d.value, t.value > e.value, d.yes > a.value, e.no > a.value",
            True,
        ),
        # a port that takes many
        ({"t": MANUAL, "a": TEXT, "m": ("flow.merge", {})}, "t.value > a.value, a.text > m.values, t.value > m.values", False),
    ],
)  # fmt: skip
def test_a_port_is_shared_only_by_what_can_arrive_together(nodes: dict, edges: str, shared: bool) -> None:
    assert ("port.shared" in codes(draw(nodes, edges))) is shared


def test_a_step_behind_two_triggers_of_which_both_are_needed_never_runs() -> None:
    blueprint = draw({"t": MANUAL, "u": HOOK, "p": ("flow.pair",)}, "t.value > p.left, u.body > p.right")
    assert "different triggers" in found(blueprint, "graph.never_runs").sentence


def test_what_hangs_behind_a_step_that_never_runs_is_not_said_again() -> None:
    blueprint = draw(
        {"t": MANUAL, "d": YES_NO, "p": ("flow.pair",), "a": TEXT, "b": TEXT},
        "t.value > d.value, d.yes > p.left, d.no > p.right, p.value > a.value, a.text > b.value",
    )
    assert [one.node for one in check(blueprint, TYPES) if one.code == "graph.never_runs"] == ["p"]


# --- the Rule of Two ---


def broken(nodes: dict, edges: str) -> list[str]:
    return [one.node for one in check(draw(nodes, edges), TYPES) if one.code == "rule_of_two.broken"]


def test_two_of_the_three_may_meet() -> None:
    assert not broken({"t": HOOK, "e": MAIL}, "t.body > e.value")
    assert not broken({"t": MANUAL, "r": TABLE, "e": MAIL}, "t.value > r.value, r.rows > e.value")
    assert not broken({"t": HOOK, "r": TABLE, "m": MODEL}, "t.body > r.value, r.rows > m.value")
    assert not broken({"t": SIGNED, "r": TABLE, "e": MAIL}, "t.body > r.value, r.rows > e.value")


def test_all_three_may_not_and_the_way_is_drawn() -> None:
    blueprint = draw(
        {"t": HOOK, "r": TABLE, "m": MODEL, "e": MAIL}, "t.body > r.value, r.rows > m.value, m.text > e.value"
    )
    finding = found(blueprint, "rule_of_two.broken")
    assert finding.severity == "error"
    assert finding.path == ("t", "r", "m", "e")
    assert "“Webhook” brings in what others wrote" in finding.sentence
    assert "“Read a table” reads private data" in finding.sentence


def test_they_may_come_by_different_ways() -> None:
    nodes = {"t": HOOK, "r": TABLE, "a": TEXT, "m": ("flow.merge", {}), "e": MAIL}
    assert broken(nodes, "t.body > a.value, a.text > m.values, r.rows > m.values, m.value > e.value") == ["e"]


def test_an_approval_lifts_it_only_where_every_way_passes_it() -> None:
    nodes = {"t": HOOK, "r": TABLE, "g": APPROVE, "e": MAIL}
    assert not broken(nodes, "t.body > r.value, r.rows > g.value, g.approved > e.value")
    around = {**nodes, "m": ("flow.merge", {})}
    assert broken(
        around, "t.body > r.value, r.rows > g.value, g.approved > m.values, r.rows > m.values, m.value > e.value"
    ) == ["e"]


def test_an_approval_that_is_switched_off_lifts_nothing() -> None:
    nodes = {"t": HOOK, "r": TABLE, "g": ("validation.approve", {}, {"disabled": True}), "e": MAIL}
    assert broken(nodes, "t.body > r.value, r.rows > g.value, g.approved > e.value") == ["e"]


def test_it_holds_inside_and_behind_loops() -> None:
    inside = {"t": HOOK, "x": ("flow.for_each", {}), "r": TABLE, "e": MAIL}
    assert broken(inside, "t.body > x.items, x.item > r.value, r.rows > e.value") == ["e"]
    behind = {"t": HOOK, "x": ("flow.for_each", {}), "r": TABLE, "e": MAIL}
    assert broken(behind, "t.body > x.items, x.item > r.value, r.rows > x.result, x.done > e.value") == ["e"]


def test_a_key_that_a_step_signs_in_with_is_not_private_data_that_it_sends() -> None:
    post = {"method": "POST", "url": "https://api.example.com", "auth": "bearer", "secret": "key"}
    nodes = {"t": HOOK, "h": ("context.http_request", post), "e": MAIL}
    assert not broken({"t": HOOK, "h": ("context.http_request", post)}, "t.body > h.value")
    assert broken(nodes, "t.body > h.value, h.body > e.value") == ["e"]


def test_its_repair_puts_a_person_before_the_effect() -> None:
    blueprint = draw({"t": HOOK, "r": TABLE, "e": MAIL}, "t.body > r.value, r.rows > e.value")
    fixed = repaired(blueprint, found(blueprint, "rule_of_two.broken"))
    assert [node.type for node in fixed.nodes].count("validation.approve") == 1
    assert "rule_of_two.broken" not in codes(fixed)
    assert not [one for one in check(fixed, TYPES) if one.severity == "error"]


# --- hosts ---


def test_the_repair_of_a_missing_list_names_every_host_that_is_called() -> None:
    nodes = {
        "t": MANUAL,
        "a": ("context.http_request", {"url": "https://one.example.com/x"}),
        "b": ("context.web_page", {"url": "https://Two.example.com/"}),
    }
    blueprint = draw(nodes, "t.value > a.value, a.body > b.value")
    fixed = repaired(blueprint, found(blueprint, "host.no_list"))
    assert fixed.allowed_hosts == ["one.example.com", "two.example.com"]
    assert not [code for code in codes(fixed) if code.startswith("host.")]


# --- time ---


def test_the_forecast_follows_the_slowest_way_and_counts_loops_ten_times() -> None:
    line = draw({"t": MANUAL, "a": MODEL, "b": MODEL}, "t.value > a.value, a.text > b.value")
    fork = draw({"t": MANUAL, "a": MODEL, "b": MODEL}, "t.value > a.value, t.value > b.value")
    assert 6 <= forecast_seconds(line, TYPES) < 6.1
    assert 3 <= forecast_seconds(fork, TYPES) < 3.1
    loop = draw({"t": MANUAL, "x": ("flow.for_each", {}), "a": MODEL}, "t.value > x.items, x.item > a.value")
    quick = draw(
        {"t": MANUAL, "x": ("flow.for_each", {"parallel": 5}), "a": MODEL}, "t.value > x.items, x.item > a.value"
    )
    assert 30 <= forecast_seconds(loop, TYPES) < 31
    assert 6 <= forecast_seconds(quick, TYPES) < 7


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 second"),
        (1, "1 second"),
        (45, "45 seconds"),
        (100, "2 minutes"),
        (3600, "1 hour"),
        (7200, "2 hours"),
        (90_000, "1 day"),
    ],
)
def test_lengths_of_time_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


# --- loops and order ---


def test_what_follows_a_loop_is_read_behind_what_the_loop_repeats() -> None:
    blueprint = draw(
        {"t": MANUAL, "x": ("flow.for_each", {}), "after": TEXT, "a": TEXT},
        "t.value > x.items, x.done > after.value, x.item > a.value, a.text > x.result",
    )
    order = Reading(blueprint, TYPES, Surroundings()).routes.order
    assert order.index("a") < order.index("after")
