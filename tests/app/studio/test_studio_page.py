"""The studio's page without a browser: the form, the builder, tests, findings, versions, and who may do what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from nicegui.testing import User

from app.canvas.element import Canvas
from app.canvas.session import Editor, Rejected
from runtime.policy import Actor, Role
from tests.app.conftest import House
from tests.app.studio.conftest import ORDERS, Open, Opening

Person = Callable[[Role], Awaitable[User]]


# --- the form ------------------------------------------------------------------------------------------------------


async def test_selecting_a_node_shows_the_form_of_its_fields(studio: Opening):
    open_ = await studio()
    await open_.sees("Select a node")
    open_.select("hook")
    for title in ("Address", "Method", "Signed with", "Answer", "Sample body"):
        await open_.sees(title)


async def test_what_is_typed_is_kept_even_when_it_is_wrong_and_the_field_says_what_is_wrong(studio: Opening):
    open_ = await studio()
    open_.select("hook")
    open_.fill("input-path", "not a path!")
    assert open_.node("hook").settings["path"] == "not a path!"
    await open_.sees("This has characters that cannot be used here.")
    open_.fill("input-path", "orders-2")
    assert "This has characters" not in " ".join(open_.texts("field-path"))


async def test_typing_in_one_field_is_one_step_that_undo_takes_back(studio: Opening):
    open_ = await studio()
    open_.select("hook")
    for text in ("a", "ab", "abc"):
        open_.fill("input-path", text)
    canvas = next(iter(open_.user.find(kind=Canvas).elements))
    open_.session.undo(canvas.editor)
    assert open_.node("hook").settings["path"] == "orders"
    await open_.until(lambda: next(iter(open_.user.find(marker="input-path").elements)).value == "orders")


async def test_a_change_of_somebody_else_shows_in_the_form(studio: Opening):
    open_ = await studio()
    open_.select("hook")
    open_.session.commit(bo(open_), [{"op": "set", "id": "hook", "patch": {"settings": {"path": "from-bo"}}}])
    assert next(iter(open_.user.find(marker="input-path").elements)).value == "from-bo"


async def test_fields_show_only_when_they_matter(studio: Opening):
    open_ = await studio({"nodes": [{"id": "s", "type": "trigger.schedule"}]})
    open_.select("s")
    field = next(iter(open_.user.find(marker="field-days").elements))
    assert field.visible
    open_.fill("input-mode", "cron")
    assert not field.visible
    assert open_.node("s").settings["mode"] == "cron"


async def test_code_is_written_in_the_language_that_is_chosen(studio: Opening):
    open_ = await studio({"nodes": [{"id": "c", "type": "action.run_code"}]})
    open_.select("c")
    with open_.user.client:  # type: ignore[union-attr]
        every = list(open_.user.client.elements.values())  # type: ignore[union-attr]
    named = {marker: element for element in every for marker in element._markers}
    assert [named[f"input-{name}"].language for name in ("code", "javascript")] == ["Python", "JavaScript"]
    fields = [named[f"field-{name}"] for name in ("code", "size", "javascript")]
    assert [field.visible for field in fields] == [True, True, False]
    open_.fill("input-language", "javascript")
    assert [field.visible for field in fields] == [False, False, True]
    open_.fill("input-javascript", "return 1")
    assert open_.node("c").settings == {"language": "javascript", "javascript": "return 1"}


async def test_a_cron_text_is_read_back_in_words(studio: Opening):
    open_ = await studio({"nodes": [{"id": "s", "type": "trigger.schedule", "settings": {"mode": "cron"}}]})
    open_.select("s")
    await open_.sees("Next:")
    open_.fill("input-cron", "61 9 * * *")
    assert open_.node("s").settings["cron"] == "61 9 * * *"
    assert "Next:" not in " ".join(open_.texts("field-cron"))


async def test_rows_can_be_added_filled_moved_and_removed(studio: Opening):
    open_ = await studio()
    open_.select("set")
    open_.click("add-values")
    open_.fill("input-values.0.name", "status")
    open_.fill("input-values.0.value", "new")
    open_.click("add-values")
    open_.fill("input-values.1.name", "country")
    assert open_.node("set").settings["values"] == [{"name": "status", "value": "new"}, {"name": "country"}]
    open_.click("arrow_upward-values.1")
    assert names(open_) == ["country", "status"]
    open_.click("close-values.0")
    assert names(open_) == ["status"]


async def test_the_sort_of_a_field_follows_another_one(studio: Opening):
    document = {
        "nodes": [
            {
                "id": "v",
                "type": "context.set_values",
                "settings": {"values": [{"name": "n", "value": "1 +", "kind": "text"}]},
            }
        ]
    }
    open_ = await studio(document)
    open_.select("v")
    assert "af-mono" not in next(iter(open_.user.find(marker="input-values.0.value").elements)).classes
    open_.fill("input-values.0.kind", "formula")
    assert "af-mono" in next(iter(open_.user.find(marker="input-values.0.value").elements)).classes
    assert open_.node("v").settings["values"] == [{"name": "n", "value": "1 +", "kind": "formula"}]


async def test_policy_is_a_form_too(studio: Opening):
    open_ = await studio()
    open_.select("dec")
    open_.fill_tabs("errors")
    open_.fill("input-retries", 3)
    open_.fill("input-on_error", "port")
    policy = open_.node("dec").policy
    assert (policy.retries, policy.on_error) == (3, "port")


async def test_a_node_that_is_not_installed_is_shown_and_kept(studio: Opening):
    open_ = await studio({"nodes": [{"id": "x", "type": "other.thing", "settings": {"a": 1}}]})
    open_.select("x")
    await open_.sees("is not installed here")
    assert open_.node("x").settings == {"a": 1}


async def test_without_a_model_the_node_says_so_and_what_to_do(studio: Opening):
    open_ = await studio({"nodes": [{"id": "m", "type": "action.ask_model"}]})
    open_.select("m")
    await open_.sees("No model is set up.")
    await open_.sees("Open Settings → Model")


async def test_help_has_words_ports_and_examples_that_can_be_used(studio: Opening):
    open_ = await studio()
    open_.select("dec")
    open_.fill_tabs("help")
    await open_.sees("What comes in")
    open_.user.find("Use these settings").click()
    assert open_.node("dec").settings["condition"]


# --- formulas ------------------------------------------------------------------------------------------------------


async def test_a_condition_is_built_from_a_field_a_question_and_a_value(studio: Opening):
    open_ = await studio()
    open_.select("dec")
    open_.fill("line-field-condition-0", "total")
    open_.fill("line-operator-condition-0", "greater")
    open_.fill("line-value-condition-0", "1000")
    assert open_.node("dec").settings["condition"] == "total > 1000"
    await open_.sees("yes")
    assert open_.texts("preview") == ["yes"]


async def test_a_misspelt_name_is_an_error_at_once_with_a_button_that_puts_it_right(studio: Opening):
    open_ = await studio()
    open_.select("dec")
    open_.click("turn-condition")
    open_.fill("input-condition", "totl > 1000")
    await open_.sees("did you mean “total”?")
    open_.click("use-meant")
    assert open_.node("dec").settings["condition"] == "total > 1000"


async def test_a_condition_that_the_builder_cannot_show_stays_text(studio: Opening):
    document = {
        **ORDERS,
        "nodes": [
            *ORDERS["nodes"][:1],
            {"id": "dec", "type": "validation.decide", "settings": {"condition": "total * 2 > 5"}},
        ],
        "edges": ORDERS["edges"][:1],
    }
    open_ = await studio(document)
    open_.select("dec")
    open_.click("turn-condition")
    assert next(iter(open_.user.find(marker="input-condition").elements)).value == "total * 2 > 5"
    assert open_.node("dec").settings["condition"] == "total * 2 > 5"


async def test_data_and_functions_are_offered_below_a_formula(studio: Opening):
    open_ = await studio()
    open_.select("dec")
    open_.click("data-condition")
    await open_.sees("Arrives here")
    assert open_.texts("pick-total") == ["total 1200"]
    open_.click("functions-condition")
    open_.fill("functions-search", "round")
    await open_.sees("round(")


# --- tests ---------------------------------------------------------------------------------------------------------


async def test_a_test_shows_every_step_and_its_data(studio: Opening):
    open_ = await studio()
    open_.session.commit(bo(open_), [{"op": "set", "id": "dec", "patch": {"settings": {"condition": "total > 1000"}}}])
    open_.select("dec")
    open_.click("run-all")
    await open_.sees("All went well: 3 steps.")
    assert "Ada" in " ".join(open_.texts("step-dec"))
    await open_.sees("What went out")
    open_.click("pin")
    assert open_.node("dec").pinned == {"yes": {"name": "Ada", "total": 1200}}
    await open_.sees("Pinned")
    open_.click("unpin")
    assert open_.node("dec").pinned is None


async def test_what_code_prints_is_seen_in_the_list_and_in_the_data_while_it_runs(
    studio: Opening, say: asyncio.Queue[str]
):
    open_ = await studio(
        {
            "name": "Counter",
            "nodes": [{"id": "m", "type": "trigger.manual"}, {"id": "c", "type": "action.run_code", "x": 300}],
            "edges": [{"id": "e", "source": "m", "source_port": "value", "target": "c", "target_port": "value"}],
        }
    )
    open_.select("c")
    open_.click("run-all")
    say.put_nowait("one\n")
    await open_.until(lambda: "one" in " ".join(open_.texts("step-c")))
    await open_.until(lambda: open_.texts("printing") == ["one\n"])
    say.put_nowait("two\n")
    await open_.until(lambda: open_.texts("printing") == ["one\ntwo\n"])
    say.put_nowait("end")
    await open_.sees("All went well: 2 steps.")
    assert open_.texts("printing") == []


async def test_the_input_is_typed_json_and_says_the_line_that_is_wrong(studio: Opening):
    open_ = await studio()
    open_.session.commit(bo(open_), [{"op": "set", "id": "dec", "patch": {"settings": {"condition": "total > 1000"}}}])
    open_.click("drawer")
    open_.fill("test-input", '{"body": \n{"total" 1}}')
    await open_.sees("Line 2, column")
    open_.fill("test-input", '{"body": {"total": 1}}')
    open_.click("run-all")
    await open_.sees("All went well: 2 steps.")


async def test_the_inspector_says_how_many_are_selected(studio: Opening):
    open_ = await studio()
    open_.select("hook", "dec")
    await open_.sees("2 things are selected")
    open_.select("hook", "dec", "set")
    await open_.sees("3 things are selected")


async def test_a_drawing_that_cannot_run_says_why_and_where(studio: Opening):
    open_ = await studio()
    open_.click("run-all")
    await open_.sees("this is still empty.")
    open_.user.find("Show").click()


async def test_a_run_up_to_a_node_stops_there(studio: Opening):
    open_ = await studio()
    open_.select("hook")
    open_.click("run-until")
    await open_.sees("All went well: 1 step.")


async def test_effects_are_told_and_answers_of_people_can_be_chosen(studio: Opening):
    document = {
        "nodes": [
            {"id": "m", "type": "trigger.manual"},
            {"id": "a", "type": "validation.approve"},
            {
                "id": "s",
                "type": "action.slack_post",
                "settings": {"address": "hook", "channel": "#support", "text": "Hello"},
            },
        ],
        "edges": [
            {"id": "e1", "source": "m", "source_port": "value", "target": "a", "target_port": "value"},
            {"id": "e2", "source": "a", "source_port": "approved", "target": "s", "target_port": "value"},
        ],
    }
    open_ = await studio(document)
    open_.click("run-all")
    await open_.sees("All went well: 3 steps.")
    assert any("#support" in text for text in open_.texts("effect"))
    open_.fill("answer-a", False)
    open_.click("run-all")
    await open_.sees("All went well: 2 steps.")


async def test_an_effect_is_really_done_only_after_a_second_yes(studio: Opening):
    settings = {"address": "hook", "text": "Hello"}
    nodes = [{"id": "m", "type": "trigger.manual"}, {"id": "s", "type": "action.slack_post", "settings": settings}]
    wire = {"id": "e", "source": "m", "source_port": "value", "target": "s", "target_port": "value"}
    open_ = await studio({"nodes": nodes, "edges": [wire]})
    open_.click("drawer")
    open_.fill("allow-s", True)
    await open_.sees("cannot be taken back")
    open_.user.find("Only say it").click()
    await open_.until(lambda: not next(iter(open_.user.find(marker="allow-s").elements)).value)
    open_.click("run-all")
    await open_.sees("All went well: 2 steps.")
    assert open_.texts("effect")


async def test_an_input_is_kept_as_an_example_and_chosen_again(studio: Opening):
    open_ = await studio()
    open_.click("drawer")
    open_.fill("test-input", '{"body": {"total": 7}}')
    open_.user.find("Keep as example").click()
    await open_.until(lambda: open_.texts("keep-example"))
    open_.fill("example-name", "Seven")
    open_.click("keep-example")
    source = next(iter(open_.user.find(marker="test-source").elements))
    await open_.until(lambda: source.value == "kept:Seven")
    open_.fill("test-source", "sample")
    code = next(iter(open_.user.find(marker="test-input").elements))
    await open_.until(lambda: "Ada" in code.value)
    open_.fill("test-source", "kept:Seven")
    await open_.until(lambda: code.value == '{"body": {"total": 7}}')


# --- what is kept elsewhere ------------------------------------------------------------------------------------------


async def test_an_admin_adds_a_secret_where_it_is_needed_and_only_its_name_is_kept_here(studio: Opening):
    open_ = await studio()
    open_.select("hook")
    open_.user.find("Add a secret").click()
    await open_.until(lambda: open_.texts("keep-secret"))
    open_.fill("secret-name", "shop_key")
    open_.fill("secret-value", "s3cret-words")
    open_.click("keep-secret")
    await open_.until(lambda: open_.node("hook").settings.get("secret") == "shop_key")
    assert "s3cret" not in open_.session.blueprint.canonical().decode()
    assert [secret.name for secret in await open_.house.factory.vault.names(open_.who)] == ["shop_key"]


async def test_a_developer_chooses_secrets_but_does_not_add_them(studio: Opening, person: Person):
    developer = await person(Role.DEVELOPER)
    open_ = await studio(user=developer)
    open_.select("hook")
    await open_.sees("Signed with")
    await developer.should_not_see("Add a secret")


# --- checks, versions, the whole agent --------------------------------------------------------------------------------


async def test_findings_are_counted_listed_and_fixed(studio: Opening):
    document = {
        "nodes": [
            {"id": "hook", "type": "trigger.webhook", "settings": {"path": "p"}},
            {"id": "r", "type": "action.respond"},
        ],
        "edges": [{"id": "e", "source": "hook", "source_port": "body", "target": "r", "target_port": "value"}],
    }
    open_ = await studio(document)
    open_.click("findings")
    await open_.sees("What the checks say")
    await open_.until(lambda: open_.texts("fix-it"))
    before = open_.session.revision
    open_.click("fix-it")
    assert open_.session.revision > before


async def test_a_version_is_kept_compared_and_gone_back_to(studio: Opening):
    open_ = await studio()
    open_.click("versions")
    await open_.sees("No versions yet")
    open_.fill("version-note", "before the change")
    open_.click("keep-version")
    await open_.until(lambda: open_.texts("compare-1"))
    assert "before the change" in open_.texts("version-1")[0]
    open_.session.commit(bo(open_), [{"op": "remove_node", "id": "set"}])
    open_.click("compare-1")
    await open_.sees("“Set values” removed")
    open_.click("restore-1")
    await open_.until(lambda: open_.session.blueprint.node("set"))


async def test_name_and_settings_of_the_agent(studio: Opening):
    open_ = await studio()
    open_.fill("agent-name", "Orders of Berlin")
    assert open_.session.blueprint.name == "Orders of Berlin"
    open_.click("details")
    await open_.until(lambda: open_.texts("keep-settings"))
    open_.fill("hosts", "api.example.com\n")
    open_.click("add-variable")
    open_.fill("variable-0-0", "limit")
    open_.fill("variable-0-1", "1000")
    open_.click("keep-settings")
    blueprint = open_.session.blueprint
    assert blueprint.allowed_hosts == ["api.example.com"]
    assert [(one.name, one.value) for one in blueprint.variables] == [("limit", 1000)]


async def test_an_imported_document_takes_the_place_of_the_drawing_and_undo_brings_it_back(studio: Opening):
    open_ = await studio()
    open_.click("details")
    await open_.until(lambda: open_.texts("import"))
    open_.click("import")
    await open_.until(lambda: open_.texts("import-now"))
    open_.fill("import-text", '{"name": "Other", "nodes": [{"id": "z", "type": "trigger.manual"}]}')
    open_.click("import-now")
    assert [node.id for node in open_.session.blueprint.nodes] == ["z"]
    canvas = next(iter(open_.user.find(kind=Canvas).elements))
    open_.session.undo(canvas.editor)
    assert {node.id for node in open_.session.blueprint.nodes} == {"hook", "dec", "set"}


async def test_what_is_no_agent_is_refused_in_words_and_nothing_is_lost(studio: Opening):
    open_ = await studio()
    open_.click("details")
    await open_.until(lambda: open_.texts("import"))
    open_.click("import")
    await open_.until(lambda: open_.texts("import-now"))
    open_.fill("import-text", '{"nodes": 5')
    open_.click("import-now")
    assert any("not valid JSON" in message for message in open_.user.notify.messages)
    assert len(open_.session.blueprint.nodes) == 3


# --- deploying -----------------------------------------------------------------------------------------------------


async def test_what_must_be_fixed_keeps_it_from_being_deployed(studio: Opening):
    open_ = await studio()
    open_.click("deploy")
    await open_.sees("must be fixed first")
    assert not open_.texts("deploy-now")


async def test_deploying_gives_addresses_with_an_example_to_copy(studio: Opening):
    open_ = await studio()
    open_.session.commit(bo(open_), [{"op": "set", "id": "dec", "patch": {"settings": {"condition": "total > 1000"}}}])
    open_.click("deploy")
    await open_.sees("It goes live for the first time.")
    open_.click("deploy-now")
    await open_.sees("Version 1 is live")
    assert open_.texts("address")[0].endswith("/hooks/orders")
    assert "curl -X POST" in open_.texts("curl")[0]
    live = await open_.house.factory.deployments.of(open_.who, open_.id)
    assert live.state == "active"


# --- who may do what -------------------------------------------------------------------------------------------------


async def test_a_viewer_sees_everything_and_changes_nothing(studio: Opening, person: Person):
    viewer = await person(Role.VIEWER)
    open_ = await studio(user=viewer)
    await open_.sees("Look only")
    assert not open_.texts("palette-trigger.webhook")
    open_.select("hook")
    await open_.sees("Address")
    open_.fill("input-path", "mine-now")
    open_.fill("agent-name", "Mine now")
    assert open_.node("hook").settings["path"] == "orders"
    assert open_.session.blueprint.name == "Orders"
    with viewer.client:  # type: ignore[union-attr]
        hidden = [
            element for element in viewer.client.elements.values() if {"deploy", "run-all"} & set(element._markers)
        ]  # type: ignore[union-attr]
        assert hidden
        assert not any(element.visible for element in hidden)


async def test_a_role_that_is_taken_away_ends_changing_at_once(studio: Opening, house: House, person: Person):
    developer = await person(Role.DEVELOPER)
    open_ = await studio(user=developer)
    open_.select("hook")
    open_.fill("input-path", "one")
    assert open_.node("hook").settings["path"] == "one"
    people = house.door.outer.state.people
    ids = [one.id for one in await people.everybody(open_.who) if one.email.startswith("developer")]
    await people.set_role(open_.who, ids[0], Role.VIEWER)
    open_.fill("input-path", "two")
    assert open_.node("hook").settings["path"] == "one"


async def test_an_agent_of_nobody_is_not_found(admin: User):
    answer = await admin.http_client.get("/studio/bp_nothing")
    assert answer.status_code == 404


# --- small things ----------------------------------------------------------------------------------------------------


def bo(open_: Open) -> Editor:
    """Somebody else, in another tab."""
    return Editor("Bo", who=open_.who)


def names(open_: Open) -> list[object]:
    """The names of the rows of “Set values”."""
    rows = open_.node("set").settings["values"]
    assert isinstance(rows, list)
    return [row["name"] for row in rows if isinstance(row, dict)]


async def test_a_schedule_shows_its_next_ten_times_and_follows_the_form(studio: Opening):
    nine = {"mode": "weekdays", "at": "09:00", "time_zone": "Europe/Berlin"}
    open_ = await studio({"nodes": [{"id": "s", "type": "trigger.schedule", "settings": nine}]})
    open_.select("s")
    assert open_.texts("next-times")[0].count(", 09:00") == 10
    open_.fill("input-at", "10:30")
    assert open_.texts("next-times")[0].count(", 10:30") == 10
    open_.fill("input-at", "25:00")
    assert "They show here" in " ".join(open_.texts("next-times"))


async def test_a_limit_that_the_team_lowered_holds_on_the_canvas_too(studio: Opening, house: House, ada: Actor):
    await house.factory.limits.set(ada, "graph_nodes", 3)
    open_ = await studio()
    with pytest.raises(Rejected) as refused:
        open_.session.commit(
            Editor("Ada", who=ada), [{"op": "add_node", "node": {"id": "more", "type": "context.set_values"}}]
        )
    assert refused.value.code == "limit.graph_nodes"
    assert refused.value.message == "The agent would then have 4 nodes; the limit is 3 nodes."
