"""Who may work now and who waits: a queue for each agent, fair between the agents of a tenant and between tenants.

Pure bookkeeping without a clock. Within an agent the smallest id goes first, and ids sort by the time a run was accepted, so the
order is the same after a restart. Agents of a tenant take turns; a higher priority gets more of them, a lower one never none.
Tenants take turns one by one. Whoever is at a limit of its own holds up nobody else.
"""

from collections import deque
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Final, Generic, TypeVar

T = TypeVar("T")

TURNS: Final = {"low": 1, "normal": 4, "high": 16}
"""How many runs an agent of each priority may start before the next agent of its tenant has its turn."""

TOTAL: Final = 1_000  # runs of all tenants that one process works on at the same time
CONCURRENT: Final = 200
DEPTH: Final = 10_000
MANY: Final = 256  # agents that are remembered although they have nothing to do: making them anew costs more


@dataclass(slots=True)
class _Agent(Generic[T]):
    working: int = 0
    most: int = 0
    turns: int = 1
    left: int = 0
    """Turns it still has before the next agent's."""
    waiting: list[tuple[str, T]] = field(default_factory=list)
    listed: bool = False

    def may(self) -> bool:
        return not self.most or self.working < self.most


@dataclass(slots=True)
class _Tenant(Generic[T]):
    concurrent: int = CONCURRENT
    depth: int = DEPTH
    working: int = 0
    waiting: int = 0
    coming: int = 0
    """Places promised to runs that are on their way to the disk."""
    agents: dict[str, _Agent[T]] = field(default_factory=dict)
    turn: deque[str] = field(default_factory=deque)
    """Agents that have somebody waiting and may start one, in the order of their turns."""
    listed: bool = False


class Queue(Generic[T]):
    """The runs that want to be worked on. Every `enter` that said yes, and every run of `leave`, is ended by one `leave`."""

    def __init__(self, *, total: int = TOTAL) -> None:
        self.total = total
        self.working = 0
        self._tenants: dict[str, _Tenant[T]] = {}
        self._turn: deque[str] = deque()

    def limit(self, tenant: str, *, concurrent: int, depth: int) -> list[T]:
        """From now on so many at once and so many waiting; returns who may start because of it."""
        of = self._of(tenant)
        of.concurrent, of.depth = concurrent, depth
        self._list(tenant, of)
        return self._start()

    def reserve(self, tenant: str) -> bool:
        """Promise a place to a run that will `enter` or `withdraw`; no when those that wait are too many already."""
        of = self._of(tenant)
        free = of.concurrent - of.working
        if of.waiting + of.coming >= of.depth + (free if free > 0 else 0):
            return False
        of.coming += 1
        return True

    def withdraw(self, tenant: str) -> None:
        """Give a promised place back."""
        self._of(tenant).coming -= 1

    def enter(
        self,
        tenant: str,
        agent: str,
        id: str,
        run: T,
        *,
        most: int = 0,
        priority: str = "normal",
        reserved: bool = False,
    ) -> bool:
        """Whether the run may start at once; otherwise it waits, and a later `leave` hands it out.

        `most` is how many of the agent's runs may go on at once, 0 for as many as the tenant may have.
        """
        of = self._of(tenant)
        if reserved:
            of.coming -= 1
        known = of.agents.get(agent)
        if known is None:
            known = of.agents[agent] = _Agent()
        known.most, known.turns = most, TURNS[priority]
        if self.working < self.total and of.working < of.concurrent and known.may() and not known.waiting:
            self._begin(of, known)
            return True
        heappush(known.waiting, (id, run))
        of.waiting += 1
        self._list_agent(tenant, of, agent, known)
        return False

    def may_start(self, tenant: str, agent: str, most: int = 0) -> bool:
        """Whether a run of this agent would start at once."""
        of = self._tenants.get(tenant)
        if of is None:
            return self.working < self.total
        known = of.agents.get(agent)
        if known is not None and (known.waiting or (most and known.working >= most)):
            return False
        return self.working < self.total and of.working < of.concurrent

    def leave(self, tenant: str, agent: str) -> list[T]:
        """One of the agent's runs works no more; returns who may start now."""
        of = self._tenants[tenant]
        known = of.agents.get(agent)
        if known is None or not known.working:
            return []  # it began before `clear`
        self.working -= 1
        of.working -= 1
        known.working -= 1
        if not known.waiting:
            if not known.working and len(of.agents) > MANY:
                del of.agents[agent]
        else:
            self._list_agent(tenant, of, agent, known)
        self._list(tenant, of)
        return self._start() if self._turn else []

    def clear(self) -> None:
        """Nobody works or waits any more; limits and promised places stay."""
        self.working = 0
        self._turn.clear()
        for of in self._tenants.values():
            of.working = of.waiting = 0
            of.listed = False
            of.agents.clear()
            of.turn.clear()

    def drop(self, tenant: str, agent: str, id: str) -> bool:
        """Take a run that waits out of the line; whether it was in it."""
        of = self._tenants.get(tenant)
        known = of.agents.get(agent) if of else None
        if of is None or known is None:
            return False
        left = [entry for entry in known.waiting if entry[0] != id]
        if len(left) == len(known.waiting):
            return False
        heapify(left)
        known.waiting[:] = left
        of.waiting -= 1
        return True

    def counts(self, tenant: str) -> tuple[int, int]:
        """How many of a tenant's runs are worked on, and how many wait for their turn."""
        of = self._tenants.get(tenant)
        return (of.working, of.waiting) if of else (0, 0)

    def of_agent(self, tenant: str, agent: str) -> tuple[int, int]:
        """The same of one agent."""
        of = self._tenants.get(tenant)
        known = of.agents.get(agent) if of else None
        return (known.working, len(known.waiting)) if known else (0, 0)

    # --- whose turn it is ---------------------------------------------------------------------------------------------------

    def _of(self, tenant: str) -> _Tenant[T]:
        of = self._tenants.get(tenant)
        if of is None:
            of = self._tenants[tenant] = _Tenant()
        return of

    def _begin(self, of: _Tenant[T], known: _Agent[T]) -> None:
        self.working += 1
        of.working += 1
        known.working += 1

    def _list_agent(self, tenant: str, of: _Tenant[T], agent: str, known: _Agent[T]) -> None:
        if not known.listed and known.may():
            known.listed = True
            of.turn.append(agent)
        self._list(tenant, of)

    def _list(self, tenant: str, of: _Tenant[T]) -> None:
        if not of.listed and of.turn and of.working < of.concurrent:
            of.listed = True
            self._turn.append(tenant)

    def _start(self) -> list[T]:
        """Hand out free places in turn. Only who may start one is listed, so each step of this hands out a run or unlists."""
        started: list[T] = []
        while self._turn and self.working < self.total:
            tenant = self._turn.popleft()
            of = self._tenants[tenant]
            of.listed = False
            if of.working < of.concurrent and (run := self._next(of)) is not None:
                started.append(run)
            self._list(tenant, of)
        return started

    def _next(self, of: _Tenant[T]) -> T | None:
        while of.turn:
            agent = of.turn[0]
            known = of.agents[agent]
            if not known.waiting or not known.may():
                of.turn.popleft()
                known.listed, known.left = False, 0
                continue
            if known.left <= 0:
                known.left = known.turns
            _, run = heappop(known.waiting)
            of.waiting -= 1
            known.left -= 1
            self._begin(of, known)
            if not known.waiting or not known.may():
                of.turn.popleft()
                known.listed, known.left = False, 0
            elif known.left <= 0:
                of.turn.rotate(-1)
            return run
        return None
