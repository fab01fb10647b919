"""Those who wait for a worker, and the workers that wait for somebody: in order, and found at once."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from runtime.workers.worker import Worker

Start: TypeAlias = Literal["warm", "woken", "cold", "queued"]


@dataclass(slots=True, eq=False)
class Waiter:
    """Somebody who waits for a worker of a tenant."""

    tenant: str
    since: float
    order: int
    worker: asyncio.Future[Worker]
    start: Start = "queued"


class Waiting:
    """Who waits, tenant by tenant, in the order they came."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Waiter]] = {}
        self._order = itertools.count()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Waiter]:
        return (waiter for queue in self._queues.values() for waiter in queue)

    def add(self, tenant: str, since: float) -> Waiter:
        """Somebody begins to wait."""
        waiter = Waiter(tenant, since, next(self._order), asyncio.get_running_loop().create_future())
        self._queues.setdefault(tenant, deque()).append(waiter)
        self._count += 1
        return waiter

    def forget(self, waiter: Waiter) -> None:
        """They have what they wanted, or gave up."""
        queue = self._queues.get(waiter.tenant)
        if not queue or waiter not in queue:
            return
        if queue[0] is waiter:
            queue.popleft()
        else:
            queue.remove(waiter)
        self._count -= 1
        if not queue:
            del self._queues[waiter.tenant]

    def clear(self) -> list[Waiter]:
        """Nobody waits any more; returns who did."""
        waited = list(self)
        self._queues.clear()
        self._count = 0
        return waited

    def first(self, tenant: str) -> Waiter | None:
        """Who of this tenant has waited longest."""
        queue = self._queues.get(tenant)
        return queue[0] if queue else None

    def oldest(self, tenants: Collection[str] | None = None) -> Waiter | None:
        """Who has waited longest of all, or of these tenants."""
        queues = (queue for tenant, queue in self._queues.items() if tenants is None or tenant in tenants)
        return min((queue[0] for queue in queues), key=lambda waiter: waiter.order, default=None)

    def tenants(self) -> set[str]:
        """Who waits at all."""
        return set(self._queues)


class Pile:
    """Idle workers by the tenant that they belong to, None for those that nobody has used yet; the longest idle one first."""

    def __init__(self) -> None:
        self._piles: dict[str | None, dict[Worker, None]] = {}

    def __len__(self) -> int:
        return sum(len(pile) for pile in self._piles.values())

    def __iter__(self) -> Iterator[Worker]:
        return (worker for pile in self._piles.values() for worker in pile)

    def put(self, worker: Worker) -> None:
        """It is idle from now on."""
        self._piles.setdefault(worker.tenant, {})[worker] = None

    def take(self, tenant: str | None) -> Worker | None:
        """The one that has been idle longest: taking turns lets each rest within its share of the processor."""
        pile = self._piles.get(tenant)
        if not pile:
            return None
        worker = next(iter(pile))
        self.drop(worker)
        return worker

    def drop(self, worker: Worker) -> bool:
        """It is not idle any more. False when it was not."""
        pile = self._piles.get(worker.tenant)
        if pile is None or worker not in pile:
            return False
        del pile[worker]
        if not pile:
            del self._piles[worker.tenant]
        return True

    def fresh(self) -> int:
        """How many nobody has used yet."""
        return len(self._piles.get(None, ()))

    def owned(self) -> Iterator[Worker]:
        """Of each tenant, the one that has been idle longest."""
        return (next(iter(pile)) for tenant, pile in self._piles.items() if tenant is not None)

    def clear(self) -> None:
        """None is idle any more."""
        self._piles.clear()
