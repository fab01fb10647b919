"""What a child of the nursery does with its life: carry one order through everything, or take as many as it can."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import orjson

import runtime.factory as factories
import storage.sqlite  # noqa: F401 - loaded before the fork
from nodes.blueprint import Blueprint
from nodes.errors import FactoryError
from runtime.factory import Factory, Options
from runtime.policy import Actor, Role
from storage.database import Database
from storage.records import RunRecord
from tests.chaos.nursery import say

WHO = Actor("team", "usr_1", "Ada", Role.ADMIN)


class Pointed(Database):
    """A database that knows its commit points: it names each, and the process dies just before or just after one of them."""

    die_at = 0
    """The number of the commit to die at, from 1; 0 never."""
    before = True
    number = 0

    def record(self, batch: RunRecord) -> asyncio.Future[None]:
        facts = orjson.loads(batch.facts) if batch.facts else []
        kinds = ", ".join(f"{fact['kind']} {fact.get('node', '')}".strip() for fact in facts)
        state = (batch.insert or batch.update or {}).get("state")
        after = self._reach(f"run {'row' if batch.insert else 'facts'}: {kinds}{f' ({state})' if state else ''}")
        future = super().record(batch)
        if after:
            future.add_done_callback(lambda _: die())
        return future

    async def _write(self, make: Any, fn: Any) -> Any:
        name = getattr(fn, "__qualname__", repr(fn)).replace(".<locals>", "").replace(".<lambda>", "")
        after = self._reach(f"rows: {fn.__module__}.{name}")
        result = await super()._write(make, fn)
        if after:
            die()
        return result

    def _reach(self, label: str) -> bool:
        """Whether to die when it is durable."""
        cls = type(self)
        cls.number += 1
        say(point=cls.number, label=label)
        if cls.number != cls.die_at:
            return False
        if cls.before:
            die()
        return True


def die() -> None:
    """As a power cut would have it."""
    os.kill(os.getpid(), signal.SIGKILL)


def options(home: str, url: str | None, exceptions: str) -> Options:
    return Options(
        database_url=url or f"sqlite:///{home}/factory.db",
        vault_key=hashlib.sha256(home.encode()).digest(),
        docker="off",
        pool_size=0,
        allow_private_hosts=(exceptions,) if exceptions else (),
    )


async def deploys(home: str, documents: list[str], url: str | None = None, exceptions: str = "") -> None:
    """Deploy the documents; says the ids of the agents."""
    async with Factory(options(home, url, exceptions)) as factory:
        for text in documents:
            draft = await factory.blueprints.create(WHO, Blueprint.parse(text))
            try:
                await factory.deployments.deploy(WHO, draft.id)
            except FactoryError as error:
                say(problem=error.as_dict())
                raise
            say(agent=draft.id)


async def carries(
    home: str, orders: list[str], url: str | None = None, exceptions: str = "", die_at: int = 0, before: bool = True
) -> None:
    """Post the orders, say yes to every question, and stay until every run has ended; may be told to die at a commit."""
    factories.Database = Pointed  # type: ignore[attr-defined]
    async with Factory(options(home, url, exceptions)) as factory:
        Pointed.number, Pointed.die_at, Pointed.before = 0, die_at, before
        for order in orders:
            body = orjson.dumps({"order": order, "lines": [1, 2, 3]})
            reply = await factory.hooks.handle("orders", "POST", [(b"content-type", b"application/json")], body)
            say(accepted=order, run=orjson.loads(reply.body)["run"])
        async with asyncio.timeout(60):
            while True:
                for question in await factory.approvals.list(WHO):
                    await factory.approvals.decide(WHO, question.id, approve=True, choice=question.choices[0])
                counts = await factory.runs.counts(WHO)
                if not any(counts.get(state) for state in ("accepted", "running", "waiting")):
                    break
                await asyncio.sleep(0.02)
        if die_at:
            return
        say(counts=counts)


async def takes_orders(
    home: str,
    name: str,
    clients: int = 32,
    light: int = 0,
    url: str | None = None,
    exceptions: str = "",
    most: int = 1_000_000,
    tell: Callable[..., None] = say,
) -> None:
    """Take orders as fast as it goes until killed, and light work of so many clients; each is said when it was acknowledged."""
    async with Factory(options(home, url, exceptions)) as factory:

        async def client(number: int, path: str) -> None:
            for count in range(most):
                order = f"{name}-{number}-{count}"
                body = orjson.dumps({"order": order, "total": 30 if count % 20 == 0 else 10})
                try:
                    reply = await factory.hooks.handle(path, "POST", [(b"content-type", b"application/json")], body)
                except FactoryError as error:
                    tell(refused=order, code=error.code)
                    await asyncio.sleep(0.01)
                    continue
                run = orjson.loads(reply.body)["run"]
                tell(accepted=order, path=path, run=run)
                # The next one is asked for when this one has ended or rests, so that what a kill leaves stays within bounds.
                while (active := factory.engine.active.get(run)) is not None:
                    if path == "light":
                        await active.ended.wait()
                    else:
                        await asyncio.sleep(0.01)

        await asyncio.gather(
            *(client(number, "orders") for number in range(clients)),
            *(client(clients + number, "light") for number in range(light)),
        )


async def is_recorded(home: str, name: str, log: str, exceptions: str = "", pages: int = 60, **more: Any) -> None:
    """Take orders while everything that SQLite asks of the disk is noted, with what was promised; it checkpoints often."""
    from sqlalchemy import Engine, event

    from tests.chaos import recorder

    def often(connection: Any) -> None:
        connection.connection.driver_connection.execute(f"PRAGMA wal_autocheckpoint = {pages}")

    def promises(**words: Any) -> None:
        if "accepted" in words:
            recorder.promise(f"{words['path']} {words['accepted']} {words['run']}")
        say(**words)

    event.listen(Engine, "engine_connect", often)
    recorder.start(log)
    await takes_orders(home, name, exceptions=exceptions, tell=promises, **more)


async def ends_all(home: str, url: str | None = None, exceptions: str = "", seconds: float = 240) -> None:
    """Stay until every run has ended."""
    async with Factory(options(home, url, exceptions)) as factory, asyncio.timeout(seconds):
        while True:
            counts = await factory.runs.counts(WHO)
            if not any(counts.get(state) for state in ("accepted", "running", "waiting")):
                say(counts=counts)
                return
            await asyncio.sleep(0.1)


async def warms_up(home: str) -> None:
    """Everything that only the first life would load."""
    async with Factory(options(home, None, "")) as factory:
        draft = await factory.blueprints.create(WHO, Blueprint(name="Warm"))
        await factory.blueprints.get(WHO, draft.id)


KINDS: dict[str, Callable[..., Awaitable[None]]] = {
    "deploys": deploys, "carries": carries, "takes orders": takes_orders, "ends all": ends_all,
    "is recorded": is_recorded,
}  # fmt: skip
