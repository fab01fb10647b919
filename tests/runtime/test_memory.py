"""What agents remember between runs: nothing is lost when runs meet, and nothing counts twice."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from nodes.base import Context, Effect, Family, Node, NodeError, Value
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog, catalog
from runtime.doors import MAX_VALUE
from runtime.factory import Factory
from runtime.views import RunView
from storage import memory
from tests.runtime.factories import ADMIN, agent, new_factory


class Stumble(Node):
    """Remembers, fails, and on the next attempt remembers again."""

    type = "t.stumble"
    family, title, effect = Family.ACTION, "Stumble", Effect.E2
    attempts: ClassVar[list[str]] = []

    async def run(self, ctx: Context, value: Any) -> Value:
        kept = await ctx.memory.append("seen", value, 10)
        total = await ctx.memory.add("total", 1)
        self.attempts.append(ctx.idempotency_key)
        if len(self.attempts) == 1:
            raise NodeError("not yet", retry=True, category="remote")
        return Value({"kept": kept, "total": total})


@pytest.fixture
async def factory(database_url: str) -> AsyncIterator[Factory]:
    async with new_factory(database_url, types=Catalog([*catalog(), Stumble])) as factory:
        yield factory


def remembering(**settings: Any) -> Blueprint:
    return agent(
        {"in": "trigger.manual", "keep": ("context.remember", {"key": "seen", **settings})}, "in.value > keep.value"
    )


async def remembered(factory: Factory, key: str = "seen") -> tuple[bool, Any]:
    return await factory.db.read(ADMIN.tenant, lambda session: memory.recall(session, key))


async def run(factory: Factory, blueprint_id: str, given: Any) -> RunView:
    return await factory.runs.wait(ADMIN, await factory.runs.start(ADMIN, blueprint_id, given), 20)


async def test_runs_that_append_at_once_lose_nothing(factory: Factory) -> None:
    draft = await factory.blueprints.create(ADMIN, remembering(mode="append", value="{{ n }}"))
    views = await asyncio.gather(*[run(factory, draft.id, {"n": n}) for n in range(12)])
    assert {view.info.state for view in views} == {"succeeded"}
    there, kept = await remembered(factory)
    assert there and sorted(kept) == list(range(12))


async def test_a_list_keeps_its_last_entries(factory: Factory) -> None:
    draft = await factory.blueprints.create(ADMIN, remembering(mode="append", value="{{ n }}", longest=2))
    for n in range(4):
        await run(factory, draft.id, {"n": n})
    assert await remembered(factory) == (True, [2, 3])


async def test_a_step_that_is_tried_again_has_remembered_once(factory: Factory) -> None:
    Stumble.attempts.clear()
    raw = agent({"in": "trigger.manual", "s": "t.stumble"}, "in.value > s.value").model_dump()
    raw["nodes"][1]["policy"] |= {"retries": 2, "first_delay": 0.01}
    draft = await factory.blueprints.create(ADMIN, Blueprint.parse(raw))
    view = await run(factory, draft.id, "x")
    assert view.output == {"kept": ["x"], "total": 1}


async def test_a_list_that_grows_too_large_stays_as_it_was(factory: Factory) -> None:
    draft = await factory.blueprints.create(ADMIN, remembering(mode="append"))
    half = "x" * (MAX_VALUE // 2)
    assert (await run(factory, draft.id, half)).info.state == "succeeded"
    view = await run(factory, draft.id, half)
    assert view.info.error and view.info.error["code"] == "step.limit"
    assert await remembered(factory) == (True, [half])


@pytest.mark.parametrize(("mode", "settings"), [("append", {}), ("add", {"amount": "1"})])
async def test_what_cannot_be_added_to_says_so(factory: Factory, mode: str, settings: dict[str, Any]) -> None:
    await factory.db.write(ADMIN.tenant, lambda session: memory.remember(session, "seen", {"a": 1}, 1.0))
    draft = await factory.blueprints.create(ADMIN, remembering(mode=mode, **settings))
    view = await run(factory, draft.id, 1)
    assert view.info.error and "“seen” holds" in view.info.error["message"]
    assert await remembered(factory) == (True, {"a": 1})


async def test_a_test_run_sees_what_is_remembered_and_keeps_its_own_to_itself(factory: Factory) -> None:
    await factory.db.write(ADMIN.tenant, lambda session: memory.remember(session, "seen", ["real"], 1.0))
    id_ = await factory.sandbox.start(ADMIN, remembering(mode="append"), "test")
    async for fact in factory.runs.watch(ADMIN, id_):
        if fact["kind"] == "run.finished":
            break
    view = await factory.runs.get(ADMIN, id_)
    assert view.steps[-1].output == {"value": "test", "stored": ["real", "test"]}
    assert await remembered(factory) == (True, ["real"])


class Held(Node):
    """Remembers while another program holds the database."""

    type = "t.held"
    family, title, effect = Family.ACTION, "Held", Effect.E2
    file: str
    attempts: ClassVar[list[str]] = []

    async def run(self, ctx: Context, value: Any) -> Value:
        if not self.attempts:
            other = sqlite3.connect(self.file, isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            asyncio.get_running_loop().call_later(5.5, other.close)
        self.attempts.append(ctx.idempotency_key)
        return Value(await ctx.memory.add("total", 1))


async def test_a_step_that_remembers_waits_for_a_database_that_another_program_holds(tmp_path: Path) -> None:
    file = tmp_path / "factory.db"
    held = agent({"s": "trigger.manual", "h": ("t.held", {"file": str(file)})}, "s.value > h.value")
    async with new_factory(f"sqlite:///{file}", types=Catalog([*catalog(), Held])) as factory:
        id_ = (await factory.blueprints.create(ADMIN, held)).id
        view = await factory.runs.wait(ADMIN, await factory.runs.start(ADMIN, id_, 1), 20)
    assert (view.info.state, view.output) == ("succeeded", 1)
    assert len(Held.attempts) == 2 and len(set(Held.attempts)) == 1
