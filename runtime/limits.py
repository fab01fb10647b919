"""Everything has a limit: one table of them, what each team lowered, and one kind of refusal."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from nodes.base import NodeError
from nodes.blueprint import MAX_BYTES, MAX_DEPTH, MAX_EDGES, MAX_NODES, Blueprint
from nodes.categories import Category
from nodes.errors import FactoryError
from runtime.policy import Actor, Permission
from runtime.queue import CONCURRENT, DEPTH
from storage import tenant_limit
from storage.database import Database
from storage.tenancy import TenantSession

Unit = Literal[
    "bytes", "seconds", "runs", "nodes", "connections", "levels", "items", "tries", "tokens", "messages a second",
    "processes", "percent of a processor", "micro-dollars", "days",
]  # fmt: skip

TOO_LARGE: Final = "request.too_large"
KIB: Final = 1024
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit. `status` is what a refusal answers over HTTP; one that is not `lowerable` holds for everybody alike.

    A team may set it between `least` and `most`, which is the product's own unless it says otherwise.
    """

    name: str
    title: str
    default: int
    unit: Unit
    sentence: str
    fix: str
    status: int = 422
    lowerable: bool = True
    least: int = 1
    code: str = ""
    more: int = 0

    @property
    def most(self) -> int:
        """The highest that a team may set."""
        return max(self.default, self.more)

    @property
    def error_code(self) -> str:
        """The stable code of its refusal."""
        return self.code or f"limit.{self.name}"


LIMITS: Final[Mapping[str, Limit]] = {
    each.name: each
    for each in (
        Limit(
            "concurrent_runs", "Runs at once", CONCURRENT, "runs",
            "So many runs of your team are worked on at the same time; more wait for their turn.",
            "Wait for runs to end.", 429,
        ),
        Limit(
            "queue_depth", "Runs that wait", DEPTH, "runs",
            "So many runs may wait for their turn; then new ones are refused with the time to come again.",
            "Try again in a minute; nothing was started.", 429,
        ),
        Limit(
            "run_seconds", "Working time of a run", 900, "seconds",
            "A run may work so long; time in which it waits for a person, a moment or another agent does not count.",
            "Split the agent, or let it work on less at once.",
        ),
        Limit(
            "step_seconds", "Time of a step", 120, "seconds",
            "One try of a step may take so long unless the step asks for more; a lower value here holds for every step.",
            "Let the step ask for less at once.",
        ),
        Limit(
            "retries", "Tries after a failure", 5, "tries",
            "A step is tried again at most so often, whatever it asks for.",
            "Look at why it fails.", least=0,
        ),
        Limit(
            "loop_items", "Rounds of a loop", 1_000, "items",
            "One loop goes through so many items, or rounds.",
            "Filter the list first, or split it into batches.",
        ),
        Limit(
            "run_days", "Days that runs are kept", 90, "days",
            "Runs that ended longer ago are removed, with every step and answer. What failed and nobody has dealt with stays.",
            "Nothing: old runs go by themselves.", least=2, more=3_650,
        ),
        Limit(
            "call_depth", "Agents that call each other", 5, "levels",
            "An agent may call another, which calls another, so many levels deep.",
            "Look for an agent that calls itself, directly or through others.",
        ),
        Limit(
            "chain_depth",
            "Agents that start each other",
            5,
            "levels",
            "What an agent does may start another, and what that does the next, so many times in a row.",
            "Look for agents that start each other in a circle.",
        ),
        Limit(
            "model_output_tokens", "Length of a model's answer", 8_192, "tokens",
            "One answer of a language model may be so long.",
            "Ask for a shorter answer.",
        ),
        Limit(
            "model_run_tokens", "Model tokens of a run", 100_000, "tokens",
            "Questions and answers of all models in one run may come to so much.",
            "Give the models less to read, or split the agent.",
        ),
        Limit(
            "run_money", "Budget of a run", 5_000_000, "micro-dollars",
            "The models of one run may cost so much. What a question can cost is set aside before it is asked.",
            "Let an admin raise the budget of a run.", least=0,
        ),
        Limit(
            "day_money", "Budget of a day", 50_000_000, "micro-dollars",
            "All models that your team asks in one day may cost so much, in tests too; then no model is asked until midnight (UTC).",
            "Wait for tomorrow, or let an admin raise the budget of a day.", least=0,
        ),
        Limit(
            "month_money", "Budget of a month", 500_000_000, "micro-dollars",
            "All models that your team asks in one month may cost so much; then no model is asked until the first (UTC).",
            "Wait for the next month, or let an admin raise the budget of a month.", least=0,
        ),
        Limit(
            "graph_nodes", "Nodes of an agent", MAX_NODES, "nodes",
            "An agent may be drawn from so many nodes.",
            "Split it, and call one agent from the other.",
        ),
        Limit(
            "graph_edges", "Connections of an agent", MAX_EDGES, "connections",
            "An agent may have so many connections.",
            "Split it, and call one agent from the other.",
        ),
        Limit(
            "graph_bytes", "Size of an agent", MAX_BYTES, "bytes",
            "The document of an agent, with all its texts, may be so large.",
            "Move long texts into a file or table that the agent reads.", 413, least=KIB,
        ),
        Limit(
            "nesting", "Nesting of data", MAX_DEPTH, "levels",
            "Records and lists may stand inside each other so deep.",
            "Send flatter data.", lowerable=False,
        ),
        Limit(
            "request_bytes", "Size of a request", MIB, "bytes",
            "A request to the API or a page may bring so much; importing an agent and uploading a file have limits of their own.",
            "Send less, or split it.", 413, least=KIB, code=TOO_LARGE,
        ),
        Limit(
            "webhook_bytes", "Size of a webhook call", MIB, "bytes",
            "A call of another system may bring so much.",
            "Send less, or send a link to it.", 413, least=KIB, code=TOO_LARGE,
        ),
        Limit(
            "upload_bytes", "Size of a file", 25 * MIB, "bytes",
            "A file on the shelf, uploaded or written by an agent, may be so large.",
            "Split it, or keep it elsewhere and store a link.", 413, least=KIB,
        ),
        Limit(
            "frame_bytes", "Size of a message from a page", 256 * KIB, "bytes",
            "An open page may send so much in one message; a change of the drawing may have 1 MiB.",
            "Do it in smaller parts.", 413, lowerable=False,
        ),
        Limit(
            "frames_a_second", "Messages from a page", 50, "messages a second",
            "An open page may send so many messages; faster ones wait.",
            "Nothing: they wait by themselves.", 429, lowerable=False,
        ),
        Limit(
            "worker_cpu", "Processor of a worker", 50, "percent of a processor",
            "Code steps run in a worker that has so much of a processor.",
            "Let the code do less.", lowerable=False,
        ),
        Limit(
            "worker_memory", "Memory of a worker", 128 * MIB, "bytes",
            "Code that needs more memory is ended with an explanation.",
            "Work on less at once.", lowerable=False,
        ),
        Limit(
            "worker_processes", "Processes of a worker", 64, "processes",
            "Code may start so many processes.",
            "Start fewer.", lowerable=False,
        ),
        Limit(
            "worker_disk", "Files of a worker", 16 * MIB, "bytes",
            "Code may keep so much in files while it runs.",
            "Write smaller files.", lowerable=False,
        ),
        Limit(
            "worker_output", "Output of a worker", MIB, "bytes",
            "Of what code prints so much is kept.",
            "Print less.", lowerable=False,
        ),
    )
}  # fmt: skip


class Exceeded(FactoryError):
    """A limit was reached. The code says which: `limit.graph_nodes`."""

    code = "limit.reached"
    category = Category.LIMIT


@dataclass(frozen=True, slots=True)
class LimitInfo:
    """A limit as a team sees it. `used` is the present use where it is known."""

    limit: Limit
    value: int
    lowered: bool
    used: int | None = None


class Limits:
    """What holds for whom. Asked on every run, so it answers from memory; `load` reads what teams lowered."""

    def __init__(self, db: Database | None = None, own: Mapping[str, int] | None = None) -> None:
        self._db = db
        self._own = dict(own or {})
        self.table: Mapping[str, Limit] = LIMITS
        if own:
            self.table = dict(LIMITS) | {name: replace(LIMITS[name], default=value) for name, value in own.items()}
        self._lowered: dict[tuple[str, str], int] = {}
        self._listeners: list[Callable[[str], None]] = []
        self.used: Callable[[str], Mapping[str, int]] = lambda _: {}
        """The present use of a team, by name of the limit."""
        self.spent: Callable[[str], Awaitable[Mapping[str, int]]] | None = None
        """The same, where it has to be read."""

    def of(self, tenant: str, name: str) -> int:
        """What holds for a team."""
        found = self._lowered.get((tenant, name)) if self._lowered else None
        return self.table[name].default if found is None else found

    def chosen(self, tenant: str, name: str) -> bool:
        """Whether somebody decided on it: the team, or who runs the installation."""
        return name in self._own or (tenant, name) in self._lowered

    def lowered(self, tenant: str, name: str) -> int | None:
        """What the team set, if it did."""
        return self._lowered.get((tenant, name)) if self._lowered else None

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Be told of a team whose limits have changed."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """Read what every team set, here or through another server."""
        assert self._db is not None
        rows = await self._db.read_all(tenant_limit.every)
        now = {(row.tenant_id, row.name): row.value for row in rows if row.name in LIMITS}
        before, self._lowered = self._lowered, now
        for tenant in sorted({tenant for (tenant, _), _ in before.items() ^ now.items()}):
            self._tell(tenant)

    def _tell(self, tenant: str) -> None:
        for listener in self._listeners:
            listener(tenant)

    # --- for people ---------------------------------------------------------------------------------------------------------

    async def list(self, who: Actor) -> Sequence[LimitInfo]:
        """Every limit with what holds for the team."""
        who.require(Permission.VIEW)
        used = await self._used(who.tenant)
        return [
            LimitInfo(each, self.of(who.tenant, name), self.lowered(who.tenant, name) is not None, used.get(name))
            for name, each in self.table.items()
        ]

    async def _used(self, tenant: str) -> Mapping[str, int]:
        read = await self.spent(tenant) if self.spent is not None else {}
        return {**self.used(tenant), **read}

    async def set(self, who: Actor, name: str, value: int | None) -> LimitInfo:
        """Lower a limit of the team, or with None go back to the product's own. Raises FactoryError."""
        who.require(Permission.ADMIN)
        limit = self.table.get(name)
        if limit is None:
            raise FactoryError(
                "There is no such limit.", code="limit.unknown", status=404, fix="See the list of limits."
            )
        if not limit.lowerable:
            raise FactoryError(
                f"“{limit.title}” holds for everybody alike.", code="limit.fixed", status=422, fix="Choose another one."
            )
        if value is not None and not limit.least <= value <= limit.most:
            raise FactoryError(
                f"“{limit.title}” can be between {in_words(limit.least, limit.unit)} and "
                f"{in_words(limit.most, limit.unit)}.",
                code="limit.range",
                status=422,
                fix="Choose a number in between." if limit.more else "Limits can be lowered, not raised.",
            )
        assert self._db is not None
        now, key = time.time(), (who.tenant, name)

        def write(session: TenantSession) -> None:
            if value is None or value == limit.default:
                tenant_limit.remove(session, name)
            else:
                tenant_limit.put(session, name, value, at=now, by=who.name)

        await self._db.write(who.tenant, write)
        if value is None or value == limit.default:
            self._lowered.pop(key, None)
        else:
            self._lowered[key] = value
        self._tell(who.tenant)
        return LimitInfo(limit, self.of(*key), key in self._lowered, (await self._used(who.tenant)).get(name))

    # --- refusing -----------------------------------------------------------------------------------------------------------

    def check(self, tenant: str, name: str, amount: int, what: str = "") -> None:
        """Raises Exceeded when it is more than holds for the team. `what` is whose amount it is, to begin the sentence."""
        most = self.of(tenant, name)
        if amount > most:
            limit = LIMITS[name]
            raise Exceeded(said(limit, amount, most, what), code=limit.error_code, fix=limit.fix, status=limit.status)

    def check_step(self, tenant: str, name: str, amount: int, what: str = "") -> None:
        """The same inside a run: raises NodeError."""
        most = self.of(tenant, name)
        if amount > most:
            limit = LIMITS[name]
            raise NodeError(said(limit, amount, most, what), category="limit", code=limit.error_code, fix=limit.fix)

    def check_graph(self, tenant: str, blueprint: Blueprint) -> None:
        """Raises Exceeded when an agent is larger than the team lets agents be."""
        self.check(tenant, "graph_nodes", len(blueprint.nodes), "The agent has")
        self.check(tenant, "graph_edges", len(blueprint.edges), "The agent has")
        if self.lowered(tenant, "graph_bytes") is not None:
            self.check(tenant, "graph_bytes", len(blueprint.canonical()), "The agent takes")


def said(limit: Limit, amount: int, most: int, what: str = "") -> str:
    """The sentence of a refusal: “The agent has 501 nodes; up to 500 nodes are possible.”"""
    begin = f"{what} {in_words(amount, limit.unit)}" if what else f"{limit.title}: {in_words(amount, limit.unit)}"
    return f"{begin}; the limit is {in_words(most, limit.unit)}."


def in_words(value: int, unit: str) -> str:
    """An amount as people say it: “1 MiB”, “15 minutes”, “500 nodes”."""
    if unit == "bytes":
        for size, name in ((MIB, "MiB"), (KIB, "KiB")):
            if value >= size:
                return f"{value / size:,.4g} {name}" if value % size else f"{value // size:,} {name}"
        return f"{value:,} bytes"
    if unit == "micro-dollars":
        return in_dollars(value)
    if unit == "seconds" and value >= 60 and value % 60 == 0:
        return f"{value // 60:,} minute{'s' if value != 60 else ''}"
    if value == 1:
        unit = {"tries": "try", "processes": "process", "messages a second": "message a second"}.get(
            unit, unit.removesuffix("s")
        )
    return f"{value:,} {unit}"


def in_dollars(micro: int) -> str:
    """An amount of money: “$5.00”, “$0.0042”, “less than $0.0001”."""
    if micro % 10_000 == 0 or micro >= 1_000_000:
        return f"${micro / 1_000_000:,.2f}"
    return f"${micro / 1_000_000:.4f}" if micro >= 100 else "less than $0.0001"
