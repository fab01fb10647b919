"""A start, a recovery and a tick of the clock cost the same however much has happened before: no question reads the history."""

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Engine, event

from nodes.ids import new_id
from runtime.factory import Factory
from storage import run
from storage.approval import Approval
from storage.database import Database
from storage.dead_letter import DeadLetter
from storage.event_wait import EventWait
from storage.happening import Happening
from storage.records import RunRecord
from storage.schedule import Firing
from storage.tenancy import TenantSession
from tests.runtime.factories import ADMIN, agent, new_factory

LONG = 90 * 86_400.0
LITERAL = re.compile(r"'(?:[^']|'')*'|\b\d[\d.e+]*\b|\(\?(?:, ?\?)*\)(?:, ?\(\?(?:, ?\?)*\))*")
ROWS = re.compile(r"\((?:\?|NULL|,)+\)(?:,\((?:\?|NULL|,)+\))*")
STATES = ("succeeded", "succeeded", "failed", "succeeded", "cancelled")


async def begin_with(url: str, history: int) -> None:
    """A database of agents of every kind, with runs that a crash interrupted and so many that ended."""
    async with new_factory(url) as factory:
        worker = agent({"go": ("trigger.webhook", {"path": "orders", "respond": "now"})}, name="Orders")
        first = await _deployed(factory, worker)
        watcher = agent({"in": ("trigger.run_ended", {"blueprint": first, "states": ["succeeded", "failed"]})})
        await _deployed(factory, watcher)
        await _deployed(factory, agent({"at": ("trigger.schedule", {"every": 1, "unit": "days"})}))
        listener, schedule = await factory.db.read("team", _one_of_each)
        reply = await factory.hooks.handle("orders", "POST", [(b"content-type", b"application/json")], b"{}")
        assert reply.status == 202
        [done] = await factory.runs.list(ADMIN, blueprint_id=first)
        row = await factory.db.read("team", lambda session: run.get(session, done.id))
        assert row is not None
        before = {name: getattr(row, name) for name in run.COLUMNS}
        await _add(factory.db, before, history, listener, schedule)
        for number in range(5):  # a crash has interrupted these
            going = before | {
                "id": new_id("run"),
                "state": "running",
                "finished_at": None,
                "server_id": f"srv_{number}",
            }
            fact = b'[{"seq":0,"kind":"run.accepted","at":1.0,"trigger":"go","input":{}}]'
            await factory.db.record(RunRecord(going["id"], "team", 0, fact, going))


async def _deployed(factory: Factory, blueprint: Any) -> str:
    draft = await factory.blueprints.create(ADMIN, blueprint)
    await factory.deployments.deploy(ADMIN, draft.id)
    return draft.id


def _one_of_each(session: TenantSession) -> tuple[Any, Any]:
    from sqlmodel import select

    from storage.happening import Listener
    from storage.schedule import Schedule

    return session.exec(select(Listener)).one(), session.exec(select(Schedule)).one()


async def _add(db: Database, before: dict[str, Any], history: int, listener: Any, schedule: Any) -> None:
    now, ids = time.time(), list[str]()
    for number in range(history):
        at = now - LONG * (history - number) / history - 2 * 86_400
        state = STATES[number % len(STATES)]
        id_ = run.first_id(at) + f"{number:016d}"
        ids.append(id_)
        handled = "retried" if state == "failed" else None
        values = before | {"id": id_, "accepted_at": at, "finished_at": at, "state": state, "handled": handled}
        record = RunRecord(id_, "team", 0, b'[{"seq":0,"kind":"run.accepted"}]', values)
        ended = db.record(record)
    await ended

    def also(part: range, session: TenantSession) -> None:
        for number in part:
            id_ = ids[number]
            at, base = now - 2 * 86_400 - number, dict[str, Any](run_id=id_, node="n")
            session.add(
                Approval(
                    id=id_, blueprint_id="b", blueprint_name="B", title="?", state="approved", created_at=at, **base
                )
            )
            session.add(EventWait(id=id_, subject="s", state="arrived", created_at=at, expires_at=now + 1e6, **base))
            told = {"listener_id": listener.id, "cause": id_, "deployment_id": listener.deployment_id, "depth": 1}
            session.add(Happening(**told, **base, happened_at=at, done_at=now - 60))
            session.add(Firing(schedule_id=schedule.id, due_at=at, fired_at=at, run_id=id_))
            if number % len(STATES) == 2:
                letter = DeadLetter(run_id=id_, state="retried", done_at=at, begun_at=at, retry_run=ids[number - 1])
                session.add(letter)

    # In parts, because whatever is made for the database in one go keeps this server from saying that it lives.
    for start in range(0, history, 200):
        await db.write("team", partial(also, range(start, min(history, start + 200))))


async def lives(url: str) -> None:
    """One life, and everything in it that looks for what is to be done."""
    async with new_factory(url) as factory:
        async with asyncio.timeout(20):
            for tenant, id_ in await factory.db.read_all(run.interrupted):
                while (await factory.db.read(tenant, partial(run.get, id=id_))).state not in run.FINISHED:  # type: ignore[union-attr]
                    await asyncio.sleep(0.02)
        await factory.clock.recover()
        await factory.clock.tick()
        await factory.clock.clean()
        await factory.alarms.catch_up()
        await factory.engine.errands.look()
        await factory._refresh()


@asynccontextmanager
async def counted() -> AsyncIterator[dict[str, int]]:
    """The steps of SQLite's machine that each statement took when it took most: they tell what it read, not how fast."""
    most: dict[str, int] = {}

    def connected(raw: sqlite3.Connection, _: Any) -> None:
        now: list[Any] = ["", 0, 1]

        def begins(statement: str) -> None:
            # How many runs come together into one statement is chance: what counts is what it reads for each of them.
            plain, several = ROWS.subn("(?, ...)", LITERAL.sub("?", statement))
            now[:] = [plain, 0, 1 + statement.count("),(") if several else 1]

        def step() -> None:
            if not now[0]:
                return  # a new connection reads the tables' definitions before its first statement
            now[1] += 10
            most[now[0]] = max(most.get(now[0], 0), now[1] // now[2])

        raw.set_trace_callback(begins)
        raw.set_progress_handler(step, 10)

    event.listen(Engine, "connect", connected)
    try:
        yield most
    finally:
        event.remove(Engine, "connect", connected)


async def test_no_statement_reads_more_because_more_has_happened(tmp_path: Path) -> None:
    took: list[dict[str, int]] = []
    for history in (30, 1_000):
        url = f"sqlite:///{tmp_path}/{history}.db"
        await begin_with(url, history)
        async with counted() as most:
            await lives(url)
        took.append(dict(most))
    little, much = took
    assert any("FROM run" in statement for statement in little)
    grown = {statement: steps for statement, steps in much.items() if steps > 2 * little.get(statement, 0) + 300}
    assert not grown, "\n".join(f"{steps}, not {little.get(name, 0)}: {name}" for name, steps in grown.items())


@pytest.mark.postgres
async def test_postgresql_reads_no_more_either(postgres_url: str) -> None:
    """Rows that were read one after the other, or through an index, as the server counts them."""
    await begin_with(postgres_url, 3_000)
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    question = "SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables"
    try:
        await connection.execute("ANALYZE")
        before = await _counts(connection, question)
        await lives(postgres_url)
        after = await _counts(connection, question)
    finally:
        await connection.close()
    read = {name: after[name] - before[name] for name in before}
    assert read["run"] > 0
    assert {name: rows for name, rows in read.items() if rows > 1_500} == {}


async def _counts(connection: asyncpg.Connection, question: str) -> dict[str, int]:
    # A connection tells what it has counted when it ends; until all have ended the numbers still move.
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with asyncio.timeout(10):
        while await connection.fetchval(others):
            await asyncio.sleep(0.02)
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return {row[0]: row[1] for row in await connection.fetch(question)}
