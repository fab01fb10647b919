"""The form of an agent says what it has: its model, its memory, its tools and what the model sees of each; and who is asked first."""

from __future__ import annotations

from typing import Any

from app.canvas.element import Canvas
from app.canvas.session import Editor
from tests.app.studio.conftest import Opening

MAIL = {"to": "a@example.com", "subject": "{{ args.subject }}", "body": "{{ args.body | default('') }}"}
DESK: dict[str, Any] = {
    "name": "Desk",
    "nodes": [
        {"id": "go", "type": "trigger.manual"},
        {"id": "agent", "type": "action.agent", "settings": {"task": "Help"}, "x": 300},
        {"id": "model", "type": "context.model", "settings": {"model": "openai/gpt-4o"}, "y": 300},
        {
            "id": "mail",
            "type": "action.send_email",
            "name": "Tell them",
            "settings": MAIL,
            "policy": {"ask_first": True},
        },
        {"id": "off", "type": "context.recall", "disabled": True, "settings": {"key": "x"}},
    ],
    "edges": [
        {"id": f"e{number}", "source": source, "source_port": out, "target": "agent", "target_port": into}
        for number, (source, out, into) in enumerate(
            [("go", "value", "value"), ("model", "model", "model"), ("mail", "tool", "tools"), ("off", "tool", "tools")]
        )
    ],
}


async def test_an_agent_lists_what_it_has_and_what_the_model_sees_of_each_tool(studio: Opening):
    open_ = await studio(DESK)
    open_.select("agent")
    await open_.sees("What the model sees")
    [has] = open_.texts("belongings")
    assert "openai/gpt-4o" in has
    assert "None. Connect a “Conversation memory” to let it remember." in has
    [mail] = open_.texts("tool-mail")
    assert "The agent gives it “subject”, “body” (can be left out)." in mail
    assert "A person is asked each time before it does anything." in mail
    assert "tell_them" in mail
    [off] = open_.texts("tool-off")
    assert "switched off" in off


async def test_an_agent_without_tools_teaches_how_to_give_it_one(studio: Opening):
    open_ = await studio(DESK | {"edges": DESK["edges"][:1]})
    open_.select("agent")
    await open_.sees("No tools yet")
    [has] = open_.texts("belongings")
    assert "draw from the handle at its top to “tools”" in has
    assert "The one in Settings." in has


async def test_the_list_follows_the_drawing(studio: Opening):
    open_ = await studio(DESK)
    open_.select("agent")
    await open_.sees("What the model sees")
    open_.session.commit(Editor("Bo", who=open_.who), [{"op": "remove_edge", "id": "e2"}])
    await open_.until(lambda: not open_.texts("tool-mail"))
    open_.session.commit(Editor("Bo", who=open_.who), [{"op": "set", "id": "off", "patch": {"disabled": False}}])
    await open_.until(lambda: "switched off" not in open_.texts("tool-off")[0])


async def test_a_press_on_a_tool_selects_it(studio: Opening):
    open_ = await studio(DESK)
    open_.select("agent")
    await open_.sees("What the model sees")
    shown: list[str] = []
    canvas = next(iter(open_.user.find(kind=Canvas).elements))
    canvas.focus_node = shown.append  # type: ignore[method-assign]
    open_.click("belongs-mail")
    assert shown == ["mail"]


async def test_a_step_asks_a_person_first_when_its_rules_say_so(studio: Opening):
    open_ = await studio(DESK)
    open_.select("off")
    open_.fill_tabs("errors")
    await open_.sees("When it runs")
    await open_.sees("If it fails")
    open_.fill("input-ask_first", True)
    assert open_.node("off").policy.ask_first
    await open_.sees("Wait for an answer at most")


async def test_what_never_acts_by_itself_asks_nobody(studio: Opening):
    open_ = await studio(DESK)
    for id_ in ("go", "model"):
        open_.select(id_)
        open_.fill_tabs("errors")
        await open_.sees("When it runs")
        assert not open_.texts("field-ask_first")
