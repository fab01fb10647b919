"""What chaos is made in: an agent that takes orders, the system that it tells of them, and clients that order all the time."""

import asyncio
import random
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from nodes.blueprint import Blueprint, Edge, Placed
from tests.fakes.http_server import Answer, Asked

CLIENTS = 6


def orders(receiver: str) -> Blueprint:
    """Webhook → decide → tell the receiver (E4, with a key) → write a row, count it (E2); small orders only get a row."""
    columns = [{"name": "order", "value": "{{ order }}"}]
    nodes = [
        Placed(id="hook", type="trigger.webhook", settings={"path": "orders", "respond": "now"}),
        Placed(id="decide", type="validation.decide", settings={"condition": "total > 20"}),
        Placed(id="tell", type="action.send_webhook", settings={"url": f"{receiver}/orders"}),
        Placed(id="keep", type="action.write_row", settings={"table": "big", "write": "columns", "columns": columns}),
        Placed(id="count", type="context.remember", settings={"key": "big", "mode": "add", "amount": "1"}),
        Placed(
            id="small", type="action.write_row", settings={"table": "small", "write": "columns", "columns": columns}
        ),
    ]
    wires = [
        ("hook", "body", "decide", "value"),
        ("decide", "yes", "tell", "value"),
        ("tell", "body", "keep", "value"),
        ("tell", "body", "count", "value"),
        ("decide", "no", "small", "value"),
    ]
    edges = [
        Edge(id=f"e{number}", source=source, source_port=out, target=target, target_port=into)
        for number, (source, out, target, into) in enumerate(wires)
    ]
    return Blueprint(name="Orders", nodes=nodes, edges=edges, allowed_hosts=["127.0.0.1"])


def light() -> Blueprint:
    """Webhook → decide: taken in faster than anything else."""
    nodes = [
        Placed(id="hook", type="trigger.webhook", settings={"path": "light", "respond": "now"}),
        Placed(id="decide", type="validation.decide", settings={"condition": "total > 20"}),
    ]
    edge = Edge(id="e", source="hook", source_port="body", target="decide", target_port="value")
    return Blueprint(name="Light", nodes=nodes, edges=[edge])


@dataclass
class Receiver:
    """Another system: it acts once for each key. What it would have done without looking at keys is counted too."""

    by_key: dict[str, list[str]] = field(default_factory=dict)

    async def __call__(self, asked: Asked) -> Answer:
        order = str(asked.json["order"])
        self.by_key.setdefault(asked.headers["idempotency-key"], []).append(order)
        await asyncio.sleep(random.uniform(0, 0.02))  # so that kills also fall between the effect and its answer
        return Answer(body={"order": order})

    @property
    def acted_on(self) -> Counter[str]:
        return Counter(calls[0] for calls in self.by_key.values())

    @property
    def repeated(self) -> int:
        return sum(len(calls) - 1 for calls in self.by_key.values())


@dataclass
class Callers:
    """Clients that order all the time, and what they were told."""

    url: str
    first: int = 0
    """The number of the first client; numbers make the names of the orders."""
    clients: int = CLIENTS
    accepted: dict[str, str] = field(default_factory=dict)
    """The run of each order that was acknowledged."""
    unanswered: set[str] = field(default_factory=set)
    odd: list[str] = field(default_factory=list)

    async def call(self, name: int) -> None:
        limits = httpx.Limits(max_keepalive_connections=1)
        async with httpx.AsyncClient(timeout=30, limits=limits) as client:
            number = 0
            while True:
                number += 1
                order = f"{name}-{number}"
                try:
                    reply = await client.post(f"{self.url}/hooks/orders", json={"order": order, "total": number % 40})
                except httpx.HTTPError:
                    self.unanswered.add(order)
                    await asyncio.sleep(0.3)
                    continue
                if reply.status_code == 202:
                    self.accepted[order] = reply.json()["run"]
                else:
                    self.odd.append(f"{reply.status_code}: {reply.text[:200]}")
                await asyncio.sleep(random.uniform(0, 0.06))

    @asynccontextmanager
    async def ordering(self) -> Any:
        tasks = [asyncio.create_task(self.call(self.first + name)) for name in range(self.clients)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(outcome, asyncio.CancelledError), outcome
