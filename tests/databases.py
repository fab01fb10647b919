"""Databases with all tables and nothing in them, as the program makes them: made once, then copied for each test.

Migrating is work, more than most tests do themselves. `tests/storage/test_migrations.py` begins with nothing instead.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import asyncpg

from storage import migrations
from storage.database import Database


def laid_out(url: str) -> str:
    """The same address; when it is that of an SQLite file which is not there yet, it is there now, with all tables."""
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        if not path.exists():
            path.write_bytes(_sqlite())
    return url


@cache
def _sqlite() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "factory.db")
        with ThreadPoolExecutor(1) as apart:  # whoever asks may have a loop of his own
            apart.submit(asyncio.run, _migrated(f"sqlite:///{path}")).result()
        return path.read_bytes()


@cache
def postgres_template(server: str) -> str:
    """The name of such a database on that server; made by whoever asks first, in this process or another."""
    with ThreadPoolExecutor(1) as apart:
        return apart.submit(asyncio.run, _postgres(server)).result()


async def _postgres(server: str) -> str:
    sources = sorted(Path(migrations.__file__).parent.rglob("*.py"))
    name = f"template_{hashlib.sha256(b''.join(source.read_bytes() for source in sources)).hexdigest()[:16]}"
    beside, _, database = server.rpartition("/")
    connection = await asyncpg.connect(f"{beside.replace('+asyncpg', '')}/{database}")
    try:
        await connection.execute("SELECT pg_advisory_lock(1)")  # until the connection is closed
        if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", name):
            await connection.execute(f"DROP DATABASE IF EXISTS {name}_begun WITH (FORCE)")
            await connection.execute(f"CREATE DATABASE {name}_begun")
            await _migrated(f"{beside}/{name}_begun")
            await connection.execute(f"ALTER DATABASE {name}_begun RENAME TO {name}")
    finally:
        await connection.close()
    return name


async def _migrated(url: str) -> None:
    async with Database(url):
        pass
