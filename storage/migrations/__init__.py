"""Brings a database to the tables of this program, whole or not at all, and refuses one that is ahead of it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, inspect

from storage import errors

HEAD: Final = "0012"
"""The newest revision; a test holds it against the files."""

_LOCK: Final = 7_306_181_120_911
"""PostgreSQL's advisory lock that lets one starting process migrate while the others wait."""


def upgrade(connection: Connection, name: str) -> None:
    """Migrate to HEAD in one transaction. Raises StorageError `storage.newer` when the database is ahead."""
    on_sqlite = connection.dialect.name == "sqlite"
    if on_sqlite:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    try:
        _upgrade(connection, name)
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


def current(connection: Connection) -> str | None:
    """The revision that the database is at; None when it is empty."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return revision


def _upgrade(connection: Connection, name: str) -> None:
    now = current(connection)
    if now == HEAD:
        return
    # Imported here: a start that has nothing to migrate does not pay for it.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "storage:migrations")
    config.attributes["connection"] = connection
    if now is not None and now not in {
        script.revision for script in ScriptDirectory.from_config(config).walk_revisions()
    }:
        raise errors.newer(name)
    command.upgrade(config, HEAD)
