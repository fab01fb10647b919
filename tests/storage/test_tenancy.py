"""A tenant is alone: nothing that a session of one tenant does reads, changes or adds a row of another."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.orm import aliased
from sqlmodel import col, delete, func, select, update

from storage import document, setting
from storage.database import Database
from storage.document import Document
from storage.errors import Clash, WrongTenant
from storage.run import Run
from storage.setting import Setting
from storage.tables import metadata
from storage.tenancy import Owned, TenantSession

ROOT = Path(__file__).resolve().parents[2]
other = aliased(Document)

READS: dict[str, Callable[[TenantSession], Any]] = {
    "rows": lambda s: s.exec(select(Document)).all(),
    "a column": lambda s: s.exec(select(Document.text)).all(),
    "an alias": lambda s: s.exec(select(other.text)).all(),
    "a count": lambda s: s.exec(select(func.count()).select_from(Document)).one(),
    "an aggregate": lambda s: s.exec(select(func.max(Document.text))).all(),
    "a join": lambda s: s.exec(select(Document.text, other.text).join(other, col(other.tenant_id) != "")).all(),
    "a subquery": lambda s: s.exec(select(select(func.max(Document.text)).scalar_subquery())).all(),
    "a subquery in a condition": lambda s: s.exec(
        select(Document.text).where(col(Document.text).in_(select(other.text)))
    ).all(),
    "a union": lambda s: s.exec(select(Document.text).union_all(select(other.text))).all(),  # type: ignore[call-overload]
    "a common table": lambda s: s.exec(select(select(Document.text).cte("found").c.text)).all(),
    "the other's key": lambda s: s.get(Document, ("b", "y")),
    "the other's tenant": lambda s: s.exec(select(Document).where(Document.tenant_id == "b")).all(),
    "either tenant": lambda s: s.exec(
        select(Document).where((col(Document.hash) == "x") | (col(Document.hash) != ""))
    ).all(),
}


@pytest.fixture
async def two(db: Database) -> Database:
    """Two tenants with documents of the same names."""
    for tenant in ("a", "b"):
        for hash in ("x", "y"):
            await db.write(tenant, lambda s, t=tenant, h=hash: document.put(s, h, f"CANARY-{t}-{h}", 1.0))  # type: ignore[misc]
    return db


@pytest.mark.parametrize("what", READS)
async def test_reads_find_only_their_own(two: Database, what: str) -> None:
    assert "CANARY-b" not in repr(await two.read("a", READS[what]))


async def test_the_others_rows_do_not_change_what_is_found(two: Database) -> None:
    before = {what: repr(await two.read("a", read)) for what, read in READS.items()}
    await two.write("b", lambda session: document.put(session, "z", "CANARY-b-z", 1.0))
    await two.write("b", lambda session: session.exec(delete(Document).where(col(Document.hash) == "x")))
    assert {what: repr(await two.read("a", read)) for what, read in READS.items()} == before


async def test_updates_and_deletes_change_only_their_own(two: Database) -> None:
    assert await two.write("a", lambda s: s.change(update(Document).values(text="changed"))) == 2
    assert await two.write("a", lambda s: s.change(delete(Document).where(col(Document.hash) == "x"))) == 1
    assert await two.write("a", lambda s: s.change(delete(Document).where(col(Document.tenant_id) == "b"))) == 0
    assert await two.read("b", lambda s: sorted(s.exec(select(Document.text)))) == ["CANARY-b-x", "CANARY-b-y"]
    assert await two.read("a", lambda s: s.exec(select(Document.text)).all()) == ["changed"]


async def test_the_same_name_is_two_rows_in_two_tenants(two: Database) -> None:
    await two.write("a", lambda session: setting.put(session, "k", "of a", at=1.0))
    await two.write("b", lambda session: setting.put(session, "k", "of b", at=1.0))
    assert await two.read("a", lambda session: setting.get(session, "k")) == "of a"
    assert await two.read("b", lambda session: setting.get(session, "k")) == "of b"


async def test_new_rows_belong_to_the_sessions_tenant(two: Database) -> None:
    await two.write("a", lambda session: session.add(Setting(key="k", value=1, updated_at=1.0)))
    assert await two.read("b", setting.every) == {}


def _moved(session: TenantSession) -> None:
    row = session.find(Document, "x")
    assert row is not None
    row.tenant_id = "b"
    session.flush()


FORBIDDEN: dict[str, Callable[[TenantSession], Any]] = {
    "SQL as text": lambda s: s.exec(text("SELECT * FROM document")),  # type: ignore[call-overload]
    "text with execute": lambda s: s.execute(text("DELETE FROM document")),
    "a bare table": lambda s: s.exec(select(Document.__table__)),  # type: ignore[attr-defined]
    "a bare table's delete": lambda s: s.exec(delete(Document.__table__)),  # type: ignore[attr-defined]
    "an insert statement": lambda s: s.exec(insert(Document).values(tenant_id="b", hash="q", text="", created_at=1.0)),
    "a row of another": lambda s: (s.add(Setting(tenant_id="b", key="k", updated_at=1.0)), s.flush()),
    "a row moved to another": _moved,
    "an upsert into another": lambda s: s.upsert(Setting, {"key": "k", "tenant_id": "b"}, {"updated_at": 1.0}),
    "an upsert that gives away": lambda s: s.upsert(Setting, {"key": "k"}, {"tenant_id": "b", "updated_at": 1.0}),
    "a put into another": lambda s: s.put_once(Setting, {"key": "k", "tenant_id": "b"}, {"updated_at": 1.0}),
    "rows in bulk": lambda s: s.bulk_insert_mappings(Setting, [{"tenant_id": "b", "key": "k", "updated_at": 1.0}]),  # type: ignore[arg-type]
    "objects in bulk": lambda s: s.bulk_save_objects([Setting(tenant_id="b", key="k", updated_at=1.0)]),
    "updates in bulk": lambda s: s.bulk_update_mappings(Setting, []),  # type: ignore[arg-type]
    "the bare connection": lambda s: s.connection(),
    "a merge of another's": lambda s: (s.merge(Setting(tenant_id="b", key="k", updated_at=1.0)), s.flush()),
    "an update that gives away": lambda s: s.change(update(Document).values(tenant_id="b")),
    "an update by column": lambda s: s.change(update(Document).values({Document.tenant_id: "b"})),
    "an update in order": lambda s: s.change(update(Document).ordered_values((Document.tenant_id, "b"))),
    "an update by parameters": lambda s: s.execute(
        update(Document), [{"tenant_id": "b", "hash": "x", "text": "taken"}]
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_ways_around_are_refused(two: Database, what: str) -> None:
    with pytest.raises(WrongTenant):
        await two.write("a", FORBIDDEN[what])
    assert await two.read_all(lambda s: sorted(s.exec(select(Document.tenant_id)))) == ["a", "a", "b", "b"]
    assert await two.read("b", setting.every) == {}


async def test_there_is_no_session_without_a_tenant(db: Database) -> None:
    with pytest.raises(WrongTenant):
        await db.read("", setting.every)


async def test_a_foreign_key_cannot_lead_to_another_tenant(two: Database, row: Callable[..., dict[str, Any]]) -> None:
    await two.write("b", lambda session: document.put(session, "only-b", "", 1.0))
    values = {**row("run_1"), "document_hash": "only-b"}
    with pytest.raises(Clash):
        await two.write("a", lambda session: session.add(Run(**values)))


def test_every_table_has_the_tenant_in_its_key_and_in_its_foreign_keys() -> None:
    for table in metadata.tables.values():
        assert "tenant_id" in table.primary_key.columns, table.name
        for key in table.foreign_key_constraints:
            assert next(iter(key.column_keys)) == "tenant_id", table.name
            assert key.elements[0].target_fullname.endswith(".tenant_id"), table.name


def test_only_files_keep_bytes() -> None:
    """A column of bytes invites code to be kept in it; texts and numbers are never loaded as code."""
    found = {
        f"{table.name}.{column.name}"
        for table in metadata.tables.values()
        for column in table.columns
        if column.type.python_type is bytes
    }
    assert found == {"blob.content"}


def test_every_table_is_owned() -> None:
    assert {mapper.__table__.name for mapper in _subclasses(Owned)} == set(metadata.tables)  # type: ignore[attr-defined]


def test_no_sql_is_written_by_hand() -> None:
    """Text of SQL goes around the tenant: only the writers and the migration may hold any."""
    allowed = {"storage/sqlite.py", "storage/postgres.py", "storage/migrations/__init__.py"}
    found = set()
    for path in (ROOT / "storage").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _name(node.func) in ("exec_driver_sql", "execute", "executemany"):
                if path.parent.name == "versions":
                    continue  # a migration changes all tenants' rows alike
                found.add(path.relative_to(ROOT).as_posix())
    assert found - {"storage/tenancy.py"} <= allowed


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _subclasses(of: type[Owned]) -> set[type[Owned]]:
    found = set(of.__subclasses__())
    return found | {deeper for each in found for deeper in _subclasses(each)}
