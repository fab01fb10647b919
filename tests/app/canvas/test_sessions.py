"""Open blueprints: shared by everybody who has one open, kept as they are drawn, let go of when the last one leaves."""

import asyncio
from typing import Any

import pytest

from app.canvas.session import Editor, GraphSession, Rejected, Replaced, Saving
from app.canvas.sessions import NotSaved, Sessions
from nodes.blueprint import Blueprint, Placed
from nodes.catalog import Catalog
from nodes.errors import Conflict, NotFound


class Shelf:
    """A place where drafts are kept, with the revisions of a real one; it can be made to fail."""

    def __init__(self) -> None:
        self.drafts = {"bp_1": (Blueprint(name="First"), 1)}
        self.failing: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.writes: list[tuple[Any, int]] = []

    async def load(self, who: Any, blueprint_id: str) -> tuple[Blueprint, int]:
        if who == "stranger" or blueprint_id not in self.drafts:
            raise NotFound("There is no such agent.")
        return self.drafts[blueprint_id]

    async def save(self, who: Any, blueprint_id: str, blueprint: Blueprint, revision: int) -> int:
        await self.gate.wait()
        if self.failing is not None:
            raise self.failing
        if revision != self.drafts[blueprint_id][1]:
            raise Conflict("Somebody else changed it first.")
        self.drafts[blueprint_id] = (blueprint, revision + 1)
        self.writes.append((who, len(blueprint.nodes)))
        return revision + 1

    def nodes(self) -> list[str]:
        return [node.id for node in self.drafts["bp_1"][0].nodes]


def add(id_: str) -> list[dict[str, Any]]:
    return [{"op": "add_node", "node": {"id": id_, "type": "any.type"}}]


def sessions(shelf: Shelf, linger: float = 60.0) -> Sessions:
    return Sessions(shelf.load, shelf.save, types=Catalog([]), linger=linger)


async def until(true: Any) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


def joined(session: GraphSession, who: str = "ada") -> tuple[Editor, list[object], Any]:
    editor, heard = Editor(who, who=who), []
    return editor, heard, session.subscribe(editor, heard.append)


async def test_everybody_who_opens_it_draws_on_the_same() -> None:
    open_ = sessions(Shelf())
    assert await open_.open("ada", "bp_1") is await open_.open("bo", "bp_1")
    await open_.close()


async def test_who_may_not_load_it_does_not_get_the_open_one_either() -> None:
    open_ = sessions(Shelf())
    await open_.open("ada", "bp_1")
    with pytest.raises(NotFound):
        await open_.open("stranger", "bp_1")
    await open_.close()


async def test_each_gesture_is_kept_and_many_share_a_write() -> None:
    shelf = Shelf()
    open_ = sessions(shelf)
    session = await open_.open("ada", "bp_1")
    editor, heard, _ = joined(session)
    shelf.gate.clear()
    for number in range(50):
        session.commit(editor, add(f"n{number}"))
    shelf.gate.set()
    assert await open_.flush("bp_1") == shelf.drafts["bp_1"][1]
    assert len(shelf.nodes()) == 50
    assert len(shelf.writes) <= 2
    assert shelf.writes[-1] == ("ada", 50)
    assert heard[-1] == Saving("saved")
    await open_.close()


async def test_a_failing_disk_is_said_and_the_drawing_is_written_when_it_is_back() -> None:
    shelf = Shelf()
    open_ = sessions(shelf)
    session = await open_.open("ada", "bp_1")
    editor, heard, _ = joined(session)
    shelf.failing = OSError("No space left on device")
    session.commit(editor, add("a"))
    with pytest.raises(NotSaved) as failure:
        await open_.flush("bp_1")
    assert "kept here" in failure.value.message
    assert "No space" not in failure.value.message
    assert any(isinstance(event, Saving) and event.state == "failing" for event in heard)
    shelf.failing = None
    session.commit(editor, add("b"))
    await open_.flush("bp_1")
    assert shelf.nodes() == ["a", "b"]
    await open_.close()


@pytest.mark.parametrize("mine", [True, False])
async def test_a_change_from_elsewhere_is_a_choice_for_a_person(mine: bool) -> None:
    shelf = Shelf()
    open_ = sessions(shelf)
    session = await open_.open("ada", "bp_1")
    editor, heard, _ = joined(session)
    shelf.drafts["bp_1"] = (Blueprint(nodes=[Placed(id="theirs", type="any.type")]), 7)
    session.commit(editor, add("mine"))
    await until(lambda: session.saving.state == "conflict")
    session.commit(editor, add("mine_too"))
    assert shelf.nodes() == ["theirs"]
    if mine:
        await open_.keep_mine("ada", "bp_1")
        await open_.flush("bp_1")
        assert shelf.nodes() == ["mine", "mine_too"]
    else:
        await open_.take_theirs("ada", "bp_1")
        assert [node.id for node in session.blueprint.nodes] == ["theirs"]
        assert any(isinstance(event, Replaced) for event in heard)
        session.commit(editor, add("more"))
        await open_.flush("bp_1")
        assert shelf.nodes() == ["theirs", "more"]
    await open_.close()


async def test_who_opens_an_agent_that_was_changed_elsewhere_sees_its_newest_state() -> None:
    shelf = Shelf()
    open_ = sessions(shelf)
    session = await open_.open("ada", "bp_1")
    shelf.drafts["bp_1"] = (Blueprint(nodes=[Placed(id="theirs", type="any.type")]), 7)
    assert await open_.open("bo", "bp_1") is session
    assert [node.id for node in session.blueprint.nodes] == ["theirs"]
    await open_.close()


async def test_the_last_one_to_leave_closes_it_and_nothing_is_lost() -> None:
    shelf = Shelf()
    open_ = sessions(shelf, linger=0.01)
    session = await open_.open("ada", "bp_1")
    editor, _, leave = joined(session)
    shelf.gate.clear()
    session.commit(editor, add("a"))
    leave()
    await asyncio.sleep(0.05)
    assert len(open_) == 1
    shelf.gate.set()
    await until(lambda: len(open_) == 0)
    assert shelf.nodes() == ["a"]
    again = await open_.open("ada", "bp_1")
    assert again is not session
    assert [node.id for node in again.blueprint.nodes] == ["a"]
    await open_.close()


async def test_what_cannot_be_stored_yet_is_not_let_go_of() -> None:
    shelf = Shelf()
    open_ = sessions(shelf, linger=0.01)
    session = await open_.open("ada", "bp_1")
    editor, _, leave = joined(session)
    shelf.failing = OSError("gone")
    session.commit(editor, add("a"))
    leave()
    await asyncio.sleep(0.1)
    assert len(open_) == 1
    shelf.failing = None
    await until(lambda: len(open_) == 0)
    assert shelf.nodes() == ["a"]


async def test_a_page_loaded_again_within_a_moment_finds_its_session() -> None:
    open_ = sessions(Shelf(), linger=30)
    session = await open_.open("ada", "bp_1")
    _, _, leave = joined(session)
    leave()
    assert await open_.open("ada", "bp_1") is session
    await open_.close()


async def test_closing_stores_what_is_not_stored_yet() -> None:
    shelf = Shelf()
    open_ = sessions(shelf)
    session = await open_.open("ada", "bp_1")
    editor, _, _ = joined(session)
    session.commit(editor, add("a"))
    with pytest.raises(Rejected):
        session.commit(editor, add("a"))
    await open_.close()
    assert shelf.nodes() == ["a"]
