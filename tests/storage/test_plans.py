"""Questions asked at every request, page or tick are answered from an index, however many runs there are."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event

from storage import activity, approval, dead_letter, deployment, hook, journal, run, schedule, session, spending, user
from storage.database import Database

OWN: dict[str, Callable[[Any], Any]] = {
    "a run": lambda s: run.get(s, "r"),
    "its facts": lambda s: journal.facts(s, "r"),
    "a page of runs": lambda s: run.listed(s, before="r"),
    "a page of an agent's runs": lambda s: run.listed(s, blueprint_id="b", before="r"),
    "a page of failed runs": lambda s: run.listed(s, state="failed", before="r"),
    "called runs": lambda s: run.children(s, "r"),
    "the last run": lambda s: run.last(s, "b", "n1"),
    "counts of a day": lambda s: run.counts(s, since=1e9),
    "newest of each": run.latest,
    "what waits for a person": approval.listed,
    "what is live": lambda s: deployment.live(s, "b"),
    "how it is doing": lambda s: activity.of(s, deployment.Deployment(id="d", blueprint_id="b"), 1e9),
    "a page of what needs attention": lambda s: dead_letter.listed(s, before="r"),
    "a page of what was dismissed": lambda s: dead_letter.listed(s, state="dismissed", before="r"),
    "one that needs attention": lambda s: dead_letter.get(s, "r"),
    "what needs attention": dead_letter.waiting,
    "kinds of what needs attention": dead_letter.tally,
    "of what it is a retry": lambda s: dead_letter.retry_of(s, "r"),
    "what a run cost": lambda s: spending.of(s, spending.LIFE, "r"),
    "what agents cost": lambda s: spending.by_agent(s, "2026-11"),
}
ALL: dict[str, Callable[[Any], Any]] = {
    "interrupted": run.interrupted,
    "due runs": lambda s: run.due(s, 1.0),
    "the next wake": run.next_wake,
    "unreported": run.unreported,
    "undelivered": approval.undelivered,
    "overdue": lambda s: approval.overdue(s, 1.0),
    "unannounced": dead_letter.unannounced,
    "retries that may not have begun": lambda s: dead_letter.unsure(s, 2.0),
    "due schedules": lambda s: schedule.due(s, 1.0),
    "unstarted": lambda s: schedule.unstarted(s, 1.0),
    "an address": lambda s: hook.at(s, "p"),
    "a cookie": lambda s: session.alive(s, "t", 1.0),
    "a token": lambda s: session.live_token(s, "t", 1.0),
    "sign-in": lambda s: user.by_email(s, "e"),
}


@pytest.mark.parametrize("what", [*OWN, *ALL])
async def test_no_question_reads_everything(tmp_path: Path, what: str) -> None:
    steps: list[str] = []

    def explained(ask: Callable[[Any], Any]) -> Callable[[Any], None]:
        def explain(session: Any) -> None:
            @event.listens_for(session.bind, "before_cursor_execute")
            def look(connection: Any, _: Any, statement: str, values: Any, *__: Any) -> None:
                if statement.startswith("SELECT"):
                    raw = connection.connection.driver_connection
                    steps.extend(step[3] for step in raw.execute(f"EXPLAIN QUERY PLAN {statement}", values))

            ask(session)

        return explain

    async with Database(f"sqlite:///{tmp_path / 'factory.db'}") as db:
        if what in OWN:
            await db.read("a", explained(OWN[what]))
        else:
            await db.read_all(explained(ALL[what]))
    assert steps
    whole = [step for step in steps if re.search(r"SCAN (run|journal|approval|firing|web_session|dead_letter)\b", step)]
    one_tenant = [step for step in steps if re.search(r"SEARCH run\b.*(?<!run_unhandled) \(tenant_id=\?\)$", step)]
    assert whole + one_tenant == []


@pytest.mark.postgres
async def test_a_new_table_is_searched_by_its_key(postgres_url: str) -> None:
    """PostgreSQL keeps the plan it made while the table was empty; another index in its place reads all of a tenant."""
    async with Database(postgres_url):
        pass
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    try:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        for table, key in (("run", "id"), ("document", "hash")):
            await connection.execute(
                f"PREPARE check_{table}(text, text) AS SELECT 1 FROM {table} WHERE tenant_id = $1 AND {key} = $2"
            )
            plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE check_{table}('a', 'b')"))
            assert f"using {table}_pkey" in plan
    finally:
        await connection.close()


# Who may look over the fence, and for what. Everybody else goes through a tenant's session.
OVER_ALL_TENANTS = {
    "app/accounts.py": "sign-in and first set-up: the e-mail, cookie or link is what finds the tenant",
    "runtime/ahead.py": "schedules of every team that will want workers soon",
    "runtime/alarms.py": "failed runs whose error agent has not begun yet",
    "runtime/clock.py": "forgetting what is too old to matter",
    "runtime/crews/crews.py": "crews of servers that are gone",
    "runtime/engine.py": "runs whose time has come",
    "runtime/errands.py": "what other servers want of the runs of this one",
    "runtime/factory.py": "whether another server changed what this one keeps in memory",
    "runtime/fleet_desk.py": "moves of workers, of which several teams' are kept in one go",
    "runtime/happenings.py": "what deployed agents listen for, and what happened and has no run yet",
    "runtime/held.py": "paused agents for which calls wait, at the start",
    "runtime/leases.py": "the servers on this database, which belong to no tenant",
    "runtime/ledger.py": "what is held for the calls of servers that are gone",
    "runtime/limits.py": "the limits that every tenant chose, at the start",
    "runtime/retention.py": "which teams have runs that may be old enough to go",
    "runtime/schedules.py": "schedules that are due",
    "runtime/taking_up.py": "runs that a crash or another server's end cut off",
    "runtime/triggers.py": "the table of addresses",
    "runtime/variables.py": "the variables of every tenant, at the start",
    "runtime/waits.py": "what came for runs while the server was stopped; an address finds the tenant",
}


def test_only_a_few_places_look_over_all_tenants() -> None:
    root = Path(__file__).resolve().parents[2]
    found = {
        path.relative_to(root).as_posix()
        for room in ("app", "nodes", "runtime")
        for path in (root / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("read_all", "write_all", "write_apart")
    }
    assert found <= set(OVER_ALL_TENANTS)
