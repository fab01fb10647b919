"""Two servers on one PostgreSQL under load: one is killed, or its machine freezes, and the other finishes what it had in hand.

FACTORY_SOAK_TAKEOVERS says how often (2 if unset: one killed, one frozen). Prints how long each takeover took.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.chaos.orders import Callers, Receiver, orders
from tests.chaos.report import note
from tests.deploying import deploy
from tests.fakes.http_server import HttpServer
from tests.server import Server

TAKEOVERS = int(os.environ.get("FACTORY_SOAK_TAKEOVERS", "2"))
LEASE = 3  # seconds
TO_END = 120.0

pytestmark = [pytest.mark.soak, pytest.mark.postgres, pytest.mark.timeout(240 + 60 * TAKEOVERS)]


class Rows:
    """What the database says."""

    def __init__(self, connection: "asyncpg.Connection[Any]") -> None:
        self.connection = connection

    async def until(self, question: str, *values: Any) -> None:
        """Wait until there is nothing left that the question finds."""
        end = time.monotonic() + TO_END
        while found := await self.connection.fetchval(question, *values):
            assert time.monotonic() < end, f"{found} left of: {question}"
            await asyncio.sleep(0.05)


async def test_what_two_servers_accepted_ends_once_whichever_of_them_dies(tmp_path: Path, postgres_url: str) -> None:
    receiver = Receiver()
    plain = postgres_url.replace("+asyncpg", "")
    async with HttpServer(receiver) as other:
        settings = {
            "database_url": postgres_url, "allow_private_hosts": other.place, "lease_seconds": str(LEASE), "pool_size": "0",
        }  # fmt: skip
        await asyncio.to_thread(deploy, tmp_path / "one", [orders(other.url)], postgres_url)
        shutil.copytree(tmp_path / "one", tmp_path / "two")  # the keys: servers of one installation share them
        servers = [Server(tmp_path / name, **settings) for name in ("one", "two")]
        callers = [Callers(server.url, first=100 * number, clients=4) for number, server in enumerate(servers)]
        connection = await asyncpg.connect(plain)
        rows, took = Rows(connection), []
        try:
            for server in servers:
                await asyncio.to_thread(server.start)
            async with callers[0].ordering(), callers[1].ordering():
                for number in range(TAKEOVERS):
                    await asyncio.sleep(1.5)
                    took.append(await end_one(servers[number % 2], rows, freeze=number % 2 == 1))
                await asyncio.sleep(1)
            await rows.until("SELECT count(*) FROM run WHERE finished_at IS NULL")
        finally:
            for server in servers:
                await asyncio.to_thread(server.stop)

        ended = {row["id"]: row["state"] for row in await connection.fetch("SELECT id, state FROM run")}
        why = Counter(
            row["error"] for row in await connection.fetch("SELECT error FROM run WHERE state <> 'succeeded'")
        )
        kept = Counter(json.loads(row["data"])["order"] for row in await connection.fetch("SELECT data FROM table_row"))
        broken = await connection.fetchval(
            "SELECT count(*) FROM (SELECT run_id FROM journal GROUP BY tenant_id, run_id"
            " HAVING sum((facts::json->-1->>'kind' = 'run.finished')::int) <> 1) AS odd"
        )
        await connection.close()

    accepted = {order: run for caller in callers for order, run in caller.accepted.items()}
    figures = {
        "takeovers": TAKEOVERS, "accepted": len(accepted), "runs": len(ended), "keyed effects": len(receiver.by_key),
        "lease in s": LEASE, "took s": ", ".join(f"{seconds:.1f}" for seconds in took),
    }  # fmt: skip
    assert [odd for caller in callers for odd in caller.odd if not odd.startswith("503")] == []
    assert {order: run for order, run in accepted.items() if run not in ended} == {}
    assert Counter(ended.values()) == {"succeeded": len(ended)}, why
    assert len(accepted) > 20 * TAKEOVERS
    assert broken == 0, "each journal has one end"
    assert set(kept.values()) == {1} and accepted.keys() <= kept.keys() and len(kept) == len(ended)
    assert all(len(set(calls)) == 1 for calls in receiver.by_key.values())
    assert set(receiver.acted_on.values()) <= {1}
    note("two servers on one PostgreSQL", **figures)


def life(server: Server) -> str:
    """The id of the life that the server is in, or was in last, as it printed it."""
    return re.findall(r"share the database\s+server=(\w+)", server.log.read_text())[-1]


async def end_one(server: Server, rows: Rows, *, freeze: bool) -> float:
    """Kill a server or freeze it, and bring it back when the other has all it had; how long that took."""
    assert server.process is not None
    began, ended = time.monotonic(), life(server)
    if freeze:
        server.process.send_signal(signal.SIGSTOP)
    else:
        await asyncio.to_thread(server.kill)
    await rows.until("SELECT count(*) FROM server WHERE id = $1", ended)
    await rows.until("SELECT count(*) FROM run WHERE server_id = $1 AND finished_at IS NULL", ended)
    took = time.monotonic() - began
    if freeze:
        server.process.send_signal(signal.SIGCONT)
    else:
        await asyncio.to_thread(server.start)
    end = time.monotonic() + TO_END
    while life(server) == ended:
        assert time.monotonic() < end, f"it did not come back\n{server.tail()}"
        await asyncio.sleep(0.05)
    return took
