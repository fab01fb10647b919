"""Each table with its questions: what lists show, which races can be lost, what must stay unique."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from storage import (
    approval,
    blueprint,
    deployment,
    document,
    event_seen,
    hook,
    memory,
    run,
    schedule,
    secret,
    session,
    setting,
    shelf,
    tenant,
    user,
    version,
    worker_move,
)
from storage.blueprint import Blueprint
from storage.database import Database
from storage.deployment import Deployment
from storage.errors import Clash
from storage.hook import Hook
from storage.records import RunRecord
from storage.schedule import Schedule
from storage.session import ApiToken
from storage.tenancy import TenantSession
from storage.user import User

New = Callable[..., RunRecord]


def draft(id: str, name: str = "Orders", at: float = 1.0) -> Blueprint:
    return Blueprint(id=id, name=name, document="{}", created_at=at, updated_at=at, updated_by="ada")


def person(id: str, email: str, role: str = "admin") -> User:
    return User(id=id, email=email, name=id.title(), password_hash="$argon2", role=role, created_at=1.0)


def deployed(s: TenantSession, id: str, blueprint_id: str = "bp_1") -> Deployment:
    if blueprint.get(s, blueprint_id) is None:
        blueprint.add(s, draft(blueprint_id))
        version.add(s, blueprint_id, hash="h1", text="{}", note="", at=1.0, by="ada")
        version.add(s, blueprint_id, hash="h2", text="{2}", note="", at=2.0, by="ada")
    row = Deployment(id=id, blueprint_id=blueprint_id, state="active", version=1, deployed_at=1.0, changed_at=1.0)
    return deployment.add(s, row)


# --- blueprints and versions ------------------------------------------------------------------------------------------


async def test_of_two_saves_of_one_revision_one_wins(db: Database) -> None:
    await db.write("a", lambda s: blueprint.add(s, draft("bp_1")))

    def save(name: str) -> Callable[[TenantSession], bool]:
        return lambda s: blueprint.save(
            s, "bp_1", revision=1, name=name, description="", document=f'"{name}"', at=2.0, by=name
        )

    assert await asyncio.gather(db.write("a", save("ada")), db.write("a", save("bob"))) == [True, False]
    row = await db.read("a", lambda s: blueprint.get(s, "bp_1"))
    assert row is not None
    assert (row.name, row.revision, row.document, row.updated_by) == ("ada", 2, '"ada"', "ada")


async def test_deleted_blueprints_wait_in_the_bin(db: Database) -> None:
    for number, id in enumerate(("bp_1", "bp_2", "bp_3")):
        await db.write("a", lambda s, i=id, n=number: blueprint.add(s, draft(i, at=n)))  # type: ignore[misc]
    assert await db.write("a", lambda s: blueprint.delete(s, "bp_2", 9.0))
    assert not await db.write("a", lambda s: blueprint.delete(s, "bp_2", 9.0))
    assert [row.id for row in await db.read("a", blueprint.listed)] == ["bp_3", "bp_1"]
    assert [row.id for row in await db.read("a", lambda s: blueprint.listed(s, deleted=True))] == ["bp_2"]
    gone = await db.write(
        "a", lambda s: blueprint.save(s, "bp_2", revision=1, name="", description="", document="", at=1.0, by="")
    )
    assert not gone
    assert await db.write("a", lambda s: blueprint.undelete(s, "bp_2"))
    assert len(await db.read("a", blueprint.listed)) == 3


async def test_versions_are_numbered_and_unchanged_drafts_make_none(db: Database) -> None:
    await db.write("a", lambda s: blueprint.add(s, draft("bp_1")))

    def add(hash: str, note: str = "") -> Callable[[TenantSession], int]:
        return lambda s: version.add(s, "bp_1", hash=hash, text=f"text {hash}", note=note, at=1.0, by="ada").number

    numbers = [await db.write("a", add(*given)) for given in (("x",), ("x",), ("x", "say why"), ("y",), ("x",))]
    assert numbers == [1, 1, 2, 3, 4]
    rows = await db.read("a", lambda s: [(row.number, version.text(s, row)) for row in version.listed(s, "bp_1")])
    assert rows == [(4, "text x"), (3, "text y"), (2, "text x"), (1, "text x")]
    assert await db.read("a", lambda s: version.get(s, "bp_1", 5)) is None
    with pytest.raises(Clash):
        await db.write("b", lambda s: version.add(s, "bp_1", hash="x", text="", note="", at=1.0, by=""))


async def test_a_document_is_kept_once(db: Database) -> None:
    await db.write("a", lambda s: document.put(s, "h", "first", 1.0))
    await db.write("a", lambda s: document.put(s, "h", "second", 2.0))
    assert await db.read("a", lambda s: document.get(s, "h")) == "first"
    assert await db.read("a", lambda s: document.get(s, "none")) is None


# --- deployments and triggers -----------------------------------------------------------------------------------------


async def test_a_blueprint_has_one_live_deployment(db: Database) -> None:
    await db.write("a", lambda s: deployed(s, "dep_1"))
    with pytest.raises(Clash) as refused:
        await db.write("a", lambda s: deployed(s, "dep_2"))
    assert refused.value.code == "storage.live"
    stop = lambda s: deployment.move(s, "dep_1", expected=deployment.LIVE, to="stopped", at=5.0)  # noqa: E731
    assert await db.write("a", stop)
    assert not await db.write("a", stop)
    await db.write("a", lambda s: deployed(s, "dep_2"))
    found = await db.read("a", lambda s: deployment.live(s, "bp_1"))
    assert found is not None
    assert found.id == "dep_2"
    assert [row.id for row in await db.read("a", deployment.listed)] == ["dep_2"]
    assert {row.id for row in await db.read("a", lambda s: deployment.listed(s, stopped=True))} == {"dep_1", "dep_2"}
    assert [row.id for row in await db.read_all(deployment.every_live)] == ["dep_2"]


async def test_a_swap_needs_the_version_it_replaces(db: Database) -> None:
    await db.write("a", lambda s: deployed(s, "dep_1"))
    swap = lambda s: deployment.swap(s, "dep_1", current=1, version=2, at=3.0, by="bob")  # noqa: E731
    assert await asyncio.gather(db.write("a", swap), db.write("a", swap)) == [True, False]
    row = await db.read("a", lambda s: deployment.get(s, "dep_1"))
    assert row is not None
    assert (row.version, row.previous, row.deployed_by) == (2, 1, "bob")
    with pytest.raises(Clash):
        await db.write("a", lambda s: deployment.swap(s, "dep_1", current=2, version=77, at=3.0, by="bob"))


def address(id: str, path: str, deployment_id: str = "dep_1") -> Hook:
    return Hook(
        id=id, kind="webhook", path=path, method="POST", deployment_id=deployment_id, blueprint_id="bp_1", node="n1"
    )


async def test_an_address_leads_to_one_place_in_the_installation(db: Database) -> None:
    await db.write("a", lambda s: deployed(s, "dep_1"))
    await db.write("b", lambda s: deployed(s, "dep_1"))
    await db.write("a", lambda s: hook.replace(s, "dep_1", [address("hook_1", "orders"), address("hook_2", "returns")]))
    with pytest.raises(Clash) as refused:
        await db.write("b", lambda s: hook.replace(s, "dep_1", [address("hook_1", "orders")]))
    assert refused.value.code == "storage.path_taken"
    found = await db.read_all(lambda s: hook.at(s, "orders"))
    assert found is not None
    assert (found.tenant_id, found.id) == ("a", "hook_1")
    await db.write("a", lambda s: hook.replace(s, "dep_1", [address("hook_3", "orders")]))
    assert [row.path for row in await db.read("a", lambda s: hook.of(s, "dep_1"))] == ["orders"]
    assert [row.id for row in await db.read_all(hook.every)] == ["hook_3"]
    wired = await db.read_all(hook.wired)
    assert [(each.hook.path, each.deployment.id, each.content_hash) for each in wired] == [("orders", "dep_1", "h1")]


def timer(id: str, due: float | None, spec: dict[str, Any] | None = None) -> Schedule:
    return Schedule(
        id=id, deployment_id="dep_1", blueprint_id="bp_1", node="n1", spec=spec or {"every": id}, next_due=due
    )


async def test_a_due_moment_fires_once(db: Database) -> None:
    await db.write("a", lambda s: deployed(s, "dep_1"))
    await db.write("a", lambda s: schedule.replace(s, "dep_1", [timer("sch_1", 10.0), timer("sch_2", 20.0)]))
    assert [row.id for row in await db.read_all(lambda s: schedule.due(s, 15.0))] == ["sch_1"]
    assert await db.read_all(schedule.next_due) == 10.0

    def fire(run_id: str) -> Callable[[TenantSession], bool]:
        return lambda s: schedule.fire(s, "sch_1", due_at=10.0, next_due=110.0, at=15.0, run_id=run_id)

    tries = await asyncio.gather(*[db.write("a", fire(f"run_{n}")) for n in range(5)])
    assert tries == [True, False, False, False, False]
    firings = await db.read("a", lambda s: schedule.firings(s, "sch_1"))
    assert [(row.due_at, row.run_id) for row in firings] == [(10.0, "run_0")]
    assert await db.read_all(schedule.next_due) == 20.0
    assert [row.id for row in await db.read("a", schedule.listed)] == ["sch_2", "sch_1"]
    assert [each.run_id for each in await db.read_all(lambda s: schedule.unstarted(s, 0.0))] == ["run_0"]
    assert await db.write_all(lambda s: schedule.forget(s, 16.0)) == 1


async def test_paused_schedules_are_not_due(db: Database) -> None:
    await db.write("a", lambda s: deployed(s, "dep_1"))
    await db.write("a", lambda s: schedule.replace(s, "dep_1", [timer("sch_1", 10.0)]))
    assert await db.write("a", lambda s: schedule.set_paused(s, "dep_1", True)) == 1
    assert await db.read_all(lambda s: schedule.due(s, 99.0)) == []
    await db.write("a", lambda s: schedule.set_paused(s, "dep_1", False))
    assert await db.write("a", lambda s: schedule.set_next(s, "sch_1", 50.0))
    assert [row.next_due for row in await db.read_all(lambda s: schedule.due(s, 99.0))] == [50.0]


async def test_a_new_version_keeps_the_schedules_that_stay(db: Database) -> None:
    await db.write("a", lambda s: deployed(s, "dep_1"))
    first = [timer("sch_1", 10.0, {"cron": "0 9 * * *"}), timer("sch_2", 20.0, {"every": 60})]
    await db.write("a", lambda s: schedule.replace(s, "dep_1", first))
    await db.write("a", lambda s: schedule.fire(s, "sch_1", due_at=10.0, next_due=30.0, at=10.0, run_id=None))
    await db.write("a", lambda s: schedule.fire(s, "sch_2", due_at=20.0, next_due=40.0, at=20.0, run_id=None))
    after = [timer("sch_3", 11.0, {"cron": "0 9 * * *"}), timer("sch_4", 70.0, {"every": 90})]
    await db.write("a", lambda s: schedule.replace(s, "dep_1", after))
    rows = await db.read("a", lambda s: schedule.of(s, "dep_1"))
    assert [(row.id, row.next_due) for row in rows] == [("sch_1", 30.0), ("sch_4", 70.0)]


# --- runs and approvals -----------------------------------------------------------------------------------------------


async def test_lists_of_runs_are_newest_first_filtered_and_in_pages(ready: Database, new: New) -> None:
    for n in range(30):
        state, id = ("failed" if n % 3 == 0 else "succeeded"), f"run_{n:02}"
        ready.record(
            new(id, state=state, blueprint_id=f"bp_{n % 2}", accepted_at=float(n), deployment_id=f"dep_{n % 5}")
        )
    await ready.record(new("run_zz", tenant="b"))

    async def ids(**given: Any) -> list[str]:
        return [row.id for row in await ready.read("a", lambda s: run.listed(s, **given))]

    everything = [f"run_{n:02}" for n in reversed(range(30))]
    assert await ids() == everything
    assert await ids(limit=4, before="run_20") == ["run_19", "run_18", "run_17", "run_16"]
    assert await ids(state="failed", limit=3) == ["run_27", "run_24", "run_21"]
    assert await ids(blueprint_id="bp_1", state="failed", before="run_20") == ["run_15", "run_09", "run_03"]
    assert await ids(deployment_id="dep_0", limit=2) == ["run_25", "run_20"]
    assert await ready.read("a", run.counts) == {"failed": 10, "succeeded": 20}
    assert await ready.read("a", lambda s: run.counts(s, blueprint_id="bp_0")) == {"failed": 5, "succeeded": 10}
    last = await ready.read("a", lambda s: run.last(s, "bp_0", "n1"))
    assert last is not None
    assert last.id == "run_28"
    assert await ready.read("a", lambda s: run.last(s, "bp_0", "n2")) is None


async def test_counts_of_a_day_do_not_count_the_day_before(ready: Database, new: New) -> None:
    at = 1_700_000_000.0
    for n, seconds in enumerate((-90_000.0, -86_400.001, -86_400.0, -1.0, 0.0)):
        await ready.record(new(f"{run.first_id(at + seconds)}{n:016}", accepted_at=at + seconds))
    assert await ready.read("a", lambda s: run.counts(s, since=at - 86_400.0)) == {"accepted": 3}


async def test_the_newest_run_of_each_blueprint(ready: Database, new: New) -> None:
    for id in ("bp_1", "bp_2", "bp_3"):
        await ready.write("a", lambda s, i=id: blueprint.add(s, draft(i)))  # type: ignore[misc]
    for n in range(9):
        await ready.record(new(f"run_{n}", blueprint_id=f"bp_{n % 2 + 1}"))
    newest = await ready.read("a", run.latest)
    assert {id: row.id for id, row in newest.items()} == {"bp_1": "run_8", "bp_2": "run_7"}


async def test_recovery_finds_what_a_crash_interrupted(ready: Database, new: New) -> None:
    for n, state in enumerate(("accepted", "running", "waiting", "succeeded", "failed", "cancelled")):
        finished = 2.0 if state in run.FINISHED else None
        await ready.record(new(f"run_{n}", tenant="ab"[n % 2], state=state, finished_at=finished))
    found = await ready.read_all(run.interrupted)
    assert [tuple(row) for row in found] == [("a", "run_0"), ("b", "run_1")]


async def test_waiting_runs_come_due(ready: Database, new: New) -> None:
    for n, wake in enumerate((30.0, 10.0, None, 20.0)):
        await ready.record(new(f"run_{n}", state="waiting", wake_at=wake))
    await ready.record(new("run_9", state="running", wake_at=1.0))
    assert await ready.read_all(run.next_wake) == 10.0
    assert [tuple(row) for row in await ready.read_all(lambda s: run.due(s, 20.0))] == [("a", "run_1"), ("a", "run_3")]
    await ready.record(RunRecord("run_1", "a", update={"state": "running", "wake_at": None}, expected=("waiting",)))
    assert [row[1] for row in await ready.read_all(lambda s: run.due(s, 20.0))] == ["run_3"]


async def test_a_state_changes_only_from_where_it_was_expected(ready: Database, new: New) -> None:
    await ready.record(new("run_1", state="running"))
    move = lambda s: run.move(s, "run_1", expected=run.UNFINISHED, to="failed", finished_at=3.0, error={"code": "x"})  # noqa: E731
    assert await asyncio.gather(ready.write("a", move), ready.write("a", move)) == [True, False]
    row = await ready.read("a", lambda s: run.get(s, "run_1"))
    assert row is not None
    assert (row.state, row.finished_at, row.error) == ("failed", 3.0, {"code": "x"})


async def test_called_runs_are_found_from_both_ends(ready: Database, new: New) -> None:
    await ready.record(new("run_1", state="waiting"))
    await ready.record(new("run_2", parent_run="run_1", parent_step="n4", state="succeeded", finished_at=1.0))
    await ready.record(new("run_3", parent_run="run_1", parent_step="n4", state="running"))
    assert [row.id for row in await ready.read("a", lambda s: run.children(s, "run_1"))] == ["run_2", "run_3"]
    assert [row.id for row in await ready.read_all(run.unreported)] == ["run_2"]


def question(at: float = 1.0, expires: float | None = None, run_id: str = "run_1") -> dict[str, Any]:
    return {
        "run_id": run_id, "node": "n", "blueprint_id": "bp_1", "blueprint_name": "Orders", "title": "Refund 40 €?",
        "details": {"amount": 40}, "choices": ["all", "half"], "created_at": at, "expires_at": expires,
    }  # fmt: skip


async def test_a_decision_is_made_once(db: Database) -> None:
    assert await db.write("a", lambda s: approval.put(s, "apr_1", question()))
    assert not await db.write("a", lambda s: approval.put(s, "apr_1", question(at=99.0)))
    assert await db.read("a", approval.waiting) == 1
    assert await db.read("b", approval.waiting) == 0

    def decide(to: str) -> Callable[[TenantSession], bool]:
        return lambda s: approval.decide(s, "apr_1", to=to, by="ada", at=2.0, note="ok", choice="half")

    assert not await db.write("b", decide("approved"))
    assert await asyncio.gather(db.write("a", decide("rejected")), db.write("a", decide("approved"))) == [True, False]
    row = await db.read("a", lambda s: approval.get(s, "apr_1"))
    assert row is not None
    assert (row.state, row.decided_by, row.decided_at, row.choice, row.details, row.choices) == (
        "rejected", "ada", 2.0, "half", {"amount": 40}, ["all", "half"],
    )  # fmt: skip
    assert await db.read("a", approval.listed) == []
    assert [row.id for row in await db.read("a", lambda s: approval.listed(s, pending=False))] == ["apr_1"]
    assert not await db.write("a", lambda s: approval.move(s, "apr_1", expected="pending", to="cancelled"))


async def test_after_its_time_nothing_can_be_approved(db: Database) -> None:
    for n, expires in enumerate((5.0, 10.0, None)):
        await db.write("a", lambda s, i=n, e=expires: approval.put(s, f"apr_{i}", question(at=float(-i), expires=e)))  # type: ignore[misc]
    assert [row.id for row in await db.read_all(lambda s: approval.overdue(s, 7.0))] == ["apr_0"]
    assert not await db.write("a", lambda s: approval.decide(s, "apr_0", to="approved", by="ada", at=7.0))
    assert await db.write("a", lambda s: approval.decide(s, "apr_1", to="approved", by="ada", at=7.0))
    assert [row.id for row in await db.read("a", approval.listed)] == ["apr_2", "apr_0"]
    assert await db.write("a", lambda s: approval.cancel_of_run(s, "run_1", 8.0)) == 2
    assert {row.state for row in await db.read("a", lambda s: approval.of_run(s, "run_1"))} == {"approved", "cancelled"}


# --- people -----------------------------------------------------------------------------------------------------------


async def test_an_address_signs_in_one_person(db: Database) -> None:
    await db.write_all(lambda s: tenant.add(s, "a", name="Team A", at=1.0))
    await db.write("a", lambda s: user.add(s, person("u1", " Ada@Example.org ")))
    with pytest.raises(Clash) as refused:
        await db.write("b", lambda s: user.add(s, person("u9", "ada@example.ORG")))
    assert refused.value.code == "storage.email_taken"
    found = await db.read_all(lambda s: user.by_email(s, "ADA@example.org"))
    assert found is not None
    assert (found.tenant_id, found.id) == ("a", "u1")
    assert await db.read_all(user.anybody)
    own = await db.read("a", tenant.get)
    assert own is not None
    assert own.name == "Team A"
    assert [row.tenant_id for row in await db.read_all(tenant.every)] == ["a"]


async def test_somebody_stays_in_charge(db: Database) -> None:
    await db.write("a", lambda s: user.add(s, person("u1", "a@x.org")))
    await db.write("a", lambda s: user.add(s, person("u2", "b@x.org", "developer")))
    for change in (
        lambda s: user.set_role(s, "u1", "viewer"),
        lambda s: user.set_disabled(s, "u1", True),
    ):
        with pytest.raises(Clash) as refused:
            await db.write("a", change)
        assert refused.value.code == "storage.last_admin"
    assert await db.write("a", lambda s: user.set_role(s, "u2", "admin"))
    assert await db.write("a", lambda s: user.set_disabled(s, "u1", True))
    assert await db.write("a", lambda s: user.set_password(s, "u1", "$new"))
    assert await db.write("a", lambda s: user.set_name(s, "u1", "Zoe"))
    assert [(row.name, row.role, row.disabled) for row in await db.read("a", user.listed)] == [
        ("U2", "admin", False),
        ("Zoe", "admin", True),
    ]


async def test_a_session_lives_until_it_is_left_ends_or_its_person_is_locked_out(db: Database) -> None:
    await db.write("a", lambda s: user.add(s, person("u1", "a@x.org")))
    await db.write("a", lambda s: user.add(s, person("u2", "b@x.org")))
    for name in ("t1", "t2", "t3"):
        await db.write("a", lambda s, n=name: session.open(s, n, "u1", at=1.0, expires_at=100.0))  # type: ignore[misc]

    async def alive(token: str, now: float = 50.0) -> bool:
        found = await db.read_all(lambda s: session.alive(s, token, now))
        assert found is None or (found[0].token_hash, found[1].id) == (token, "u1")
        return found is not None

    assert await alive("t1")
    assert not await alive("t1", now=100.0)
    assert not await alive("other")
    assert await db.write("a", lambda s: session.seen(s, "t1", 50.0, 200.0))
    assert await alive("t1", now=150.0)
    assert await db.write("a", lambda s: session.revoke(s, "t1", 60.0))
    assert not await alive("t1")
    assert not await db.write("a", lambda s: session.seen(s, "t1", 61.0, 300.0))
    assert await db.write("a", lambda s: session.revoke_all(s, "u1", 70.0, keep="t3")) == 1
    assert [row.token_hash for row in await db.read("a", lambda s: session.of_user(s, "u1", 71.0))] == ["t3"]
    await db.write("a", lambda s: user.set_disabled(s, "u1", True))
    assert not await alive("t3")
    assert await db.write_all(lambda s: session.purge(s, 65.0)) == 1


async def test_tokens_of_programs_work_until_they_expire_or_are_taken_back(db: Database) -> None:
    for id, expires in (("tok_1", None), ("tok_2", 10.0)):
        token = ApiToken(id=id, token_hash=f"hash {id}", name=id, role="viewer", created_at=1.0, expires_at=expires)
        await db.write("a", lambda s, t=token: session.add_token(s, t))  # type: ignore[misc]

    async def works(id: str, now: float) -> bool:
        return await db.read_all(lambda s: session.live_token(s, f"hash {id}", now)) is not None

    assert [await works("tok_1", 99.0), await works("tok_2", 9.0), await works("tok_2", 10.0)] == [True, True, False]
    await db.write("a", lambda s: session.token_seen(s, "tok_1", 5.0))
    assert not await db.write("b", lambda s: session.revoke_token(s, "tok_1", 6.0))
    assert await db.write("a", lambda s: session.revoke_token(s, "tok_1", 6.0))
    assert not await works("tok_1", 7.0)
    assert [row.id for row in await db.read("a", session.tokens)] == ["tok_2"]


async def test_the_set_up_link_works_once_and_only_the_newest(db: Database) -> None:
    await db.write("a", lambda s: session.add_setup(s, "old", at=1.0, expires_at=100.0))
    await db.write("a", lambda s: session.add_setup(s, "new", at=2.0, expires_at=100.0))
    assert await db.read_all(lambda s: session.live_setup(s, "old", 3.0)) is None
    assert await db.read_all(lambda s: session.live_setup(s, "new", 100.0)) is None
    found = await db.read_all(lambda s: session.live_setup(s, "new", 3.0))
    assert found is not None
    assert found.tenant_id == "a"
    use = lambda s: session.use_setup(s, "new", 4.0)  # noqa: E731
    assert await asyncio.gather(db.write("a", use), db.write("a", use)) == [True, False]


# --- what belongs to a tenant -----------------------------------------------------------------------------------------


async def test_secrets_are_replaced_listed_and_forgotten(db: Database) -> None:
    for value in ("one", "two"):
        await db.write("a", lambda s, v=value: secret.put(s, "key", ciphertext=v, nonce="n", at=1.0, by="ada"))  # type: ignore[misc]
    row = await db.read("a", lambda s: secret.get(s, "key"))
    assert row is not None
    assert (row.ciphertext, row.updated_by) == ("two", "ada")
    assert await db.read("b", lambda s: secret.get(s, "key")) is None
    assert [row.name for row in await db.read("a", secret.listed)] == ["key"]
    assert await db.write("a", lambda s: secret.remove(s, "key"))
    assert not await db.write("a", lambda s: secret.remove(s, "key"))


async def test_counting_in_memory_counts_everybody(db: Database) -> None:
    await asyncio.gather(*[db.write("a", lambda s: memory.add(s, "n", 1, 1.0)) for _ in range(40)])
    assert await db.write("a", lambda s: memory.add(s, "n", 0.5, 2.0)) == 40.5
    assert await db.read("a", lambda s: memory.recall(s, "n")) == (True, 40.5)
    assert await db.read("b", lambda s: memory.recall(s, "n")) == (False, None)
    await db.write("a", lambda s: memory.remember(s, "text", "x", 1.0))
    with pytest.raises(ValueError, match="not a number"):
        await db.write("a", lambda s: memory.add(s, "text", 1, 1.0))


async def test_appending_in_memory_loses_nobody_and_keeps_the_last(db: Database) -> None:
    await asyncio.gather(*[db.write("a", lambda s, n=n: memory.append(s, "l", n, 100, 1.0)) for n in range(40)])  # type: ignore[misc]
    there, kept = await db.read("a", lambda s: memory.recall(s, "l"))
    assert there and sorted(kept) == list(range(40))
    assert await db.write("a", lambda s: memory.append(s, "l", "x", 2, 2.0)) == [kept[-1], "x"]
    assert await db.read("b", lambda s: memory.recall(s, "l")) == (False, None)
    await db.write("a", lambda s: memory.remember(s, "text", "x", 1.0))
    with pytest.raises(ValueError, match="not a list"):
        await db.write("a", lambda s: memory.append(s, "text", 1, 9, 1.0))


async def test_memory_keeps_any_json_even_nothing(db: Database) -> None:
    for value in (None, {"a": [1, "é"]}, "", 0, False):
        await db.write("a", lambda s, v=value: memory.remember(s, "50%_off", v, 1.0))  # type: ignore[misc]
        assert await db.read("a", lambda s: memory.recall(s, "50%_off")) == (True, value)
    await db.write("a", lambda s: memory.remember(s, "50 others", 1, 1.0))
    assert [row.key for row in await db.read("a", lambda s: memory.listed(s, "50%"))] == ["50%_off"]
    assert await db.write("a", lambda s: memory.forget(s, "50%_off"))
    assert await db.read("a", lambda s: memory.recall(s, "50%_off")) == (False, None)


async def test_tables_keep_the_order_of_their_rows(db: Database) -> None:
    assert await db.write("a", lambda s: shelf.append(s, "orders", [{"n": n} for n in range(5)], 1.0)) == 5
    assert await db.write("a", lambda s: shelf.append(s, "orders", [{"n": 5}], 2.0)) == 6
    await db.write("a", lambda s: shelf.append(s, "other", [{}], 2.0))
    page = await db.read("a", lambda s: shelf.rows(s, "orders", limit=2, after=3))
    assert [(row.number, row.data) for row in page] == [(4, {"n": 3}), (5, {"n": 4})]
    assert [tuple(row) for row in await db.read("a", shelf.tables)] == [("orders", 6), ("other", 1)]
    assert await db.write("a", lambda s: shelf.replace(s, "orders", [{"n": 9}], 3.0)) == 1
    assert await db.write("a", lambda s: shelf.clear(s, "orders")) == 1
    assert [tuple(row) for row in await db.read("a", shelf.tables)] == [("other", 1)]
    assert await db.read("b", shelf.tables) == []


async def test_bytes_of_files_are_kept_once_and_go_with_the_last_file(db: Database) -> None:
    def put(name: str, content: bytes) -> Callable[[TenantSession], None]:
        hash = content.hex()[:64]
        return lambda s: shelf.put_file(s, name, hash=hash, content=content, media_type="text/csv", at=1.0, by="ada")

    async def kept() -> int:
        return len(await db.read("a", lambda s: s.exec(shelf.select(shelf.Blob.hash)).all()))

    await db.write("a", put("one.csv", b"\0\xff same"))
    await db.write("a", put("two.csv", b"\0\xff same"))
    assert await kept() == 1
    found = await db.read("a", lambda s: shelf.file(s, "two.csv"))
    assert found is not None
    assert (found[0].size, found[0].media_type, found[1]) == (7, "text/csv", b"\0\xff same")
    await db.write("a", put("two.csv", b"new"))
    assert await kept() == 2
    assert await db.write("a", lambda s: shelf.remove_file(s, "one.csv"))
    assert await kept() == 1
    assert [row.name for row in await db.read("a", shelf.files)] == ["two.csv"]
    assert not await db.write("a", lambda s: shelf.remove_file(s, "one.csv"))
    assert await db.read("b", lambda s: shelf.file(s, "two.csv")) is None


async def test_settings_have_defaults(db: Database) -> None:
    assert await db.read("a", lambda s: setting.get(s, "theme", "light")) == "light"
    await db.write("a", lambda s: setting.put(s, "theme", "dark", at=1.0, by="ada"))
    assert await db.read("a", setting.every) == {"theme": "dark"}
    assert await db.write("a", lambda s: setting.remove(s, "theme"))
    assert await db.read("a", lambda s: setting.get(s, "theme", "light")) == "light"


async def test_an_event_is_new_once_until_it_expires(db: Database) -> None:
    def first(now: float) -> Callable[[TenantSession], bool]:
        return lambda s: event_seen.first_time(s, "hook_1", "evt", now=now, expires_at=now + 10.0)

    assert await asyncio.gather(*[db.write("a", first(1.0)) for _ in range(4)]) == [True, False, False, False]
    assert await db.write("b", first(1.0))
    assert not await db.write("a", first(10.5))
    assert await db.write("a", first(11.0))
    assert await db.write_all(lambda s: event_seen.purge(s, 11.0)) == 1


async def test_moves_of_workers_are_told_in_the_order_in_which_they_came(db: Database) -> None:
    lives = ["provisioning", "warming", "draining", "gone"]
    rows = [  # several moves in one millisecond: their ids do not tell which came first
        worker_move.WorkerMove(
            tenant_id=tenant,
            id=f"move_{id}",
            at=at / 10_000,
            worker="w",
            profile="small",
            host="",
            before="",
            after=after,
        )
        for tenant, id, at, after in zip("aaab", "dbca", range(4), lives, strict=True)
    ]
    await db.write_all(lambda s: worker_move.add_all(s, rows))
    for worker in (None, "w"):
        found = await db.read_all(lambda s, worker=worker: worker_move.newest(s, "a", 10, worker))
        assert [row.after for row in found] == lives[2::-1]
