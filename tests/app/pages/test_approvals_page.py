"""Approvals: what waits, deciding, and what happens when somebody else was faster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from nicegui import ui
from nicegui.testing import User
from nicegui.testing.user_interaction import UserInteraction

from app.pieces import visible
from runtime.policy import Actor, Role
from tests.app.conftest import House
from tests.app.pages.conftest import eventually, refund, sees

Maker = Callable[[Role], Awaitable[User]]


async def asked(house: House, who: Actor, name: str = "Bo") -> str:
    """A run that waits for a decision."""
    draft = await house.factory.blueprints.create(who, refund())
    run_id = await house.factory.runs.start(who, draft.id, {"name": name, "total": 80})
    await house.factory.runs.wait(who, run_id, 10)
    return run_id


async def test_nothing_waits_and_the_page_says_what_would(admin: User) -> None:
    await admin.open("/approvals")
    await admin.should_see("Nothing waits for you")
    await admin.should_see("Nothing was decided yet.")


async def test_approving_lets_the_run_go_on_and_is_kept_with_its_note(house: House, admin: User, ada: Actor) -> None:
    run_id = await asked(house, ada)
    await admin.open("/approvals")
    await sees(admin, "Refund 80 € to Bo?")
    (one,) = await house.factory.approvals.list(ada)
    admin.find(marker=f"note-{one.id}").type("Fine by me")
    admin.find("Refund it").click()
    await sees(admin, "Refunds: approved by Ada Lovelace. “Fine by me”")
    await sees(admin, "Nothing waits for you")
    view = await house.factory.runs.wait(ada, run_id, 10)
    assert view.info.state == "succeeded"


async def test_whoever_comes_second_is_told_who_decided(house: House, admin: User, ada: Actor, person: Maker) -> None:
    await asked(house, ada)
    await admin.open("/approvals")
    await sees(admin, "Refund it")
    (one,) = await house.factory.approvals.list(ada)
    button = admin.find(marker=f"approve-{one.id}")
    bo = Actor(ada.tenant, "bo", "Bo Brown", Role.DEVELOPER)
    await house.factory.approvals.decide(bo, one.id, approve=False)
    button.click()
    await sees(admin, "Refunds: rejected by Bo Brown.")
    assert [told.state for told in await house.factory.approvals.list(ada, pending=False)] == ["rejected"]


async def test_a_new_question_appears_while_the_page_is_open(house: House, admin: User, ada: Actor) -> None:
    await admin.open("/approvals")
    await asked(house, ada)
    await sees(admin, "Refund 80 € to Bo?")


async def test_what_is_typed_survives_another_question(house: House, admin: User, ada: Actor) -> None:
    await asked(house, ada)
    await admin.open("/approvals")
    await sees(admin, "Refund 80 € to Bo?")
    (one,) = await house.factory.approvals.list(ada)
    admin.find(marker=f"note-{one.id}").type("Half a sen")
    await asked(house, ada, "Cyril")
    await sees(admin, "Refund 80 € to Cyril?")
    assert admin.find(marker=f"note-{one.id}").elements.pop().value == "Half a sen"


async def test_a_viewer_looks_and_cannot_decide(house: House, person: Maker, ada: Actor) -> None:
    await asked(house, ada)
    viewer = await person(Role.VIEWER)
    await viewer.open("/approvals")
    await sees(viewer, "Refund 80 € to Bo?")
    await viewer.should_not_see("Refund it")
    await viewer.should_see("Developers and admins decide. You can look.")


async def test_signs_that_nobody_can_see_are_written_out(house: House, admin: User, ada: Actor) -> None:
    """A text that reads otherwise than it is: turned around, or with something between its letters."""
    await asked(house, ada, "Bo\u202e\u200bfdp.exe")
    await admin.open("/approvals")
    await sees(admin, "Refund 80 € to Bo⟨U+202E⟩⟨U+200B⟩fdp.exe?")
    shown = {element.text for element in admin.find(kind=ui.label).elements}
    assert "Bo⟨U+202E⟩⟨U+200B⟩fdp.exe" in shown  # in the data too
    assert not any("\u202e" in text or "\u200b" in text for text in shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Grüße, 東京 и 👍🏽\n\tnext\u00a0line", "Grüße, 東京 и 👍🏽\n\tnext\u00a0line"),
        ("a\u2066b\u2069", "a⟨U+2066⟩b⟨U+2069⟩"),
        ("\x1b[31m\x00\r", "⟨U+001B⟩[31m⟨U+0000⟩⟨U+000D⟩"),
        ("\ufeffa\u00adb\u2028c\u3164", "⟨U+FEFF⟩a⟨U+00AD⟩b⟨U+2028⟩c⟨U+3164⟩"),
        ("x\U000e0041\U000e0101", "x⟨U+E0041⟩⟨U+E0101⟩"),
    ],
)
def test_what_can_be_seen_stays_as_it_is(text: str, shown: str) -> None:
    assert visible(text) == shown


async def test_nobody_says_yes_to_what_was_cut(house: House, admin: User, ada: Actor) -> None:
    draft = await house.factory.blueprints.create(ada, refund())
    for value in ({"name": "Bo", "total": 80, "text": "fine " * 10_000}, {"a": {"b": {"c": {"d": {"to": "evil"}}}}}):
        run_id = await house.factory.runs.start(ada, draft.id, {"name": "Bo", "total": 80, **value})
        await house.factory.runs.wait(ada, run_id, 10)
    long, deep = sorted(await house.factory.approvals.list(ada), key=lambda one: "text" not in one.details)
    await admin.open("/approvals")
    await sees(admin, "Refund 80 € to Bo?")
    for one, opens in ((long, ui.label), (deep, ui.element)):
        (yes,) = admin.find(marker=f"approve-{one.id}").elements
        (no,) = admin.find(marker=f"reject-{one.id}").elements
        assert (yes.enabled, no.enabled) == (False, True)
        (card,) = admin.find(marker=f"question-{one.id}").elements
        for element in list(card.descendants()):
            cut = isinstance(element, ui.label) and element.text.startswith("show ")
            folded = "af-json-fold" in element.classes and element.props.get("aria-expanded") == "false"
            if cut if opens is ui.label else folded:
                UserInteraction(admin, {element}, None).click()
        await eventually(lambda yes=yes: yes.enabled)  # type: ignore[misc]
    admin.find(marker=f"approve-{deep.id}").click()
    await sees(admin, "Refunds: approved by Ada Lovelace.")


async def test_a_person_who_loses_the_right_meanwhile_is_refused(house: House, person: Maker, ada: Actor) -> None:
    await asked(house, ada)
    developer = await person(Role.DEVELOPER)
    await developer.open("/approvals")
    await sees(developer, "Refund it")
    people = house.door.outer.state.people
    (them,) = [one for one in await people.everybody(ada) if one.role == Role.DEVELOPER]
    await people.set_role(ada, them.id, Role.VIEWER)
    developer.find("Refund it").click()
    await eventually(lambda: any("may not decide approvals" in text for text in developer.notify.messages))
    assert await house.factory.approvals.count(ada) == 1
