"""Migrations: from nothing to exactly the tables of the code, whole or not at all, and never backwards."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from storage import deployment, migrations, secret, setting
from storage.database import Database
from storage.errors import StorageError
from storage.tables import metadata


async def on(url: str, fn: Callable[[Connection], Any]) -> Any:
    """Call `fn` with a plain connection to the database."""
    if url.startswith("sqlite"):
        engine = create_engine(url)
        try:
            with engine.begin() as connection:
                return fn(connection)
        finally:
            engine.dispose()
    server = create_async_engine(url)
    try:
        async with server.begin() as connection:
            return await connection.run_sync(fn)
    finally:
        await server.dispose()


async def test_an_empty_database_gets_exactly_the_tables_of_the_code(bare_database_url: str) -> None:
    async with Database(bare_database_url):
        pass
    options = {"compare_type": True, "compare_server_default": True}
    differences = await on(
        bare_database_url, lambda c: compare_metadata(MigrationContext.configure(c, opts=options), metadata)
    )
    assert differences == []


async def test_partial_indexes_keep_their_conditions(bare_database_url: str) -> None:
    """Comparing metadata does not look at conditions, so this does."""
    async with Database(bare_database_url):
        pass

    def conditions(connection: Connection) -> int:
        query = "SELECT sql FROM sqlite_master WHERE type = 'index'"
        if connection.dialect.name == "postgresql":
            query = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'"
        return sum(" WHERE " in (sql or "") for (sql,) in connection.exec_driver_sql(query))

    wanted = sum(
        index.dialect_options["sqlite"]["where"] is not None
        for table in metadata.tables.values()
        for index in table.indexes
    )
    assert await on(bare_database_url, conditions) == wanted > 0


def test_the_newest_revision_is_the_one_that_the_program_asks_for() -> None:
    config = Config()
    config.set_main_option("script_location", "storage:migrations")
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [migrations.HEAD]


async def test_what_is_kept_survives_the_next_start(bare_database_url: str) -> None:
    async with Database(bare_database_url) as db:
        await db.write("a", lambda session: setting.put(session, "k", 1, at=1.0))
    async with Database(bare_database_url) as db:
        assert await db.read("a", lambda session: setting.get(session, "k")) == 1


async def test_a_newer_database_is_refused_and_left_alone(bare_database_url: str) -> None:
    async with Database(bare_database_url) as db:
        await db.write("a", lambda session: setting.put(session, "k", 1, at=1.0))
    await on(bare_database_url, lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StorageError, match="newer") as refused:
        await Database(bare_database_url).start()
    assert refused.value.code == "storage.newer"
    assert refused.value.fix
    version = await on(
        bare_database_url, lambda c: c.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    )
    assert version == "9999"
    assert await on(bare_database_url, lambda c: c.exec_driver_sql("SELECT count(*) FROM setting").scalar()) == 1


async def test_a_migration_that_fails_leaves_nothing(bare_database_url: str) -> None:
    await on(bare_database_url, lambda c: c.exec_driver_sql("CREATE TABLE approval (id INTEGER)").close())
    with pytest.raises(StorageError):
        await Database(bare_database_url).start()

    def tables(connection: Connection) -> list[str]:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        if connection.dialect.name == "postgresql":
            query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        return [name for (name,) in connection.exec_driver_sql(query)]

    assert await on(bare_database_url, tables) == ["approval"]


async def test_a_file_that_is_no_database_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "factory.db").write_text("this is not a database, it is a letter\n" * 100)
    with pytest.raises(StorageError, match="not a database"):
        await Database(f"sqlite:///{tmp_path / 'factory.db'}").start()


async def test_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "100% new" / "folder" / "factory.db"
    async with Database(f"sqlite:///{path}"):
        pass
    found = sqlite3.connect(path)
    assert found.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    found.close()


def test_an_installed_package_brings_its_migrations(tmp_path: Path) -> None:
    """From another folder, with only the package on the path, a database can be made."""
    root = Path(__file__).resolve().parents[2]
    code = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[1])\n"
        "from storage.database import Database\n"
        "db = Database('sqlite:///here.db'); asyncio.run(db.start())\n"
        "import os; os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here.db").exists()


async def test_a_start_with_nothing_to_migrate_does_not_load_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'factory.db'}"
    async with Database(url):
        pass
    root = Path(__file__).resolve().parents[2]
    code = (
        "import asyncio, sys\n"
        "from storage.database import Database\n"
        "async def main():\n"
        "    async with Database(sys.argv[1]): print('alembic' in sys.modules)\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, url], cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


async def test_secrets_and_deployments_from_before_there_were_environments_stay(bare_database_url: str) -> None:
    """A database at revision 0001 with rows in it becomes one with environments: secrets for both, deployments live."""

    def old(connection: Connection) -> None:
        from alembic import command

        config = Config()
        config.set_main_option("script_location", "storage:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        rows = {
            "secret": {"name": "key", "ciphertext": "c", "nonce": "n", "updated_at": 1.0, "updated_by": "ada"},
            "document": {"hash": "h", "text": "{}", "created_at": 1.0},
            "blueprint": {
                "id": "bp", "name": "A", "description": "", "document": "{}", "revision": 1,
                "created_at": 1.0, "updated_at": 1.0, "updated_by": "ada",
            },
            "version": {
                "blueprint_id": "bp", "number": 1, "content_hash": "h", "note": "", "created_at": 1.0, "created_by": "ada",
            },
            "deployment": {
                "id": "dep", "blueprint_id": "bp", "state": "active", "version": 1,
                "deployed_at": 1.0, "deployed_by": "ada", "changed_at": 1.0,
            },
        }  # fmt: skip
        for table, row in rows.items():
            values = {"tenant_id": "a", **row}
            names = ", ".join(f'"{name}"' for name in values)
            marks = ", ".join(f":{name}" for name in values)
            connection.execute(text(f'INSERT INTO "{table}" ({names}) VALUES ({marks})'), values)

    await on(bare_database_url, old)
    async with Database(bare_database_url) as db:
        kept = await db.read("a", secret.listed)
        assert [(row.name, row.environment, row.ciphertext) for row in kept] == [("key", "", "c")]
        live = await db.read("a", lambda session: deployment.live(session, "bp"))
        assert live is not None and (live.environment, live.hold, live.clocks) == ("live", False, True)
        assert await db.read("a", lambda session: deployment.live(session, "bp", "test")) is None


@pytest.mark.postgres
async def test_a_busy_machine_may_take_its_time_between_two_steps_of_a_migration(
    bare_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a server that is slow to start would be taken for one that froze, and its session ended."""

    def slow(connection: Connection, name: str) -> None:
        connection.exec_driver_sql("CREATE TABLE half (id int)")
        time.sleep(2.5)
        connection.exec_driver_sql("CREATE TABLE whole (id int)")
        connection.rollback()
        upgrade(connection, name)

    upgrade = migrations.upgrade
    monkeypatch.setattr(migrations, "upgrade", slow)
    async with Database(bare_postgres_url):
        pass
