"""The Factory: holds everything that runs, in the order it has to start and stop. `async with Factory(options) as factory:`"""

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from nodes.catalog import Catalog, catalog
from nodes.ids import new_id
from runtime.ahead import Ahead
from runtime.alarms import Alarms
from runtime.approvals import Approvals
from runtime.blueprints import Blueprints, Installation
from runtime.cases import Cases
from runtime.clock import Clock
from runtime.crews.crews import Crews
from runtime.dead_letters import DeadLetters
from runtime.deploy import Deployments
from runtime.doors import Outside
from runtime.egress import Egress
from runtime.engine import Engine, Target
from runtime.events import Bus
from runtime.fleet import Fleet, PoolRules
from runtime.fleet_desk import FleetDesk
from runtime.happenings import Happenings
from runtime.held import Held
from runtime.journal import Plans
from runtime.leases import LEASE
from runtime.ledger import LIMIT_OF, Ledger
from runtime.limits import Limits
from runtime.llm import Llms, ModelSettings
from runtime.mail import Mailer
from runtime.preferences import Preferences
from runtime.prices import Price, micro
from runtime.printing import Printing
from runtime.runs import Runs
from runtime.sandbox import Sandbox
from runtime.shelves import Shelves
from runtime.status import Statuses
from runtime.triggers import Hooks
from runtime.variables import Variables
from runtime.vault import Vault
from runtime.workers.profiles import PROFILES, Profile
from runtime.workers.store import Store
from storage import changes
from storage.changes import Mark
from storage.database import Database


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator decides, as plain values. `vault_key` is 32 bytes; `home` names this installation's workers."""

    database_url: str
    vault_key: bytes = field(repr=False)
    home: str = ""
    folder: Path | None = None
    """Where files are while they are on their way to workers and back; without it, a folder that goes when this stops."""
    docker: str = "auto"
    pool_size: int = 2
    pools: Mapping[str, PoolRules] = field(default_factory=dict)
    """More about the pools of workers, by the workers' size."""
    sizes: Mapping[str, Profile] = field(default_factory=lambda: PROFILES)
    """The sizes of workers that there are."""
    model: str = ""
    model_base_url: str = ""
    model_key: str = field(default="", repr=False)
    model_price: tuple[float, float] | None = None
    """What the model costs, in dollars for a million tokens of question and of answer, where the price list does not know it."""
    run_budget: float | None = None
    day_budget: float | None = None
    month_budget: float | None = None
    """What a team's models may cost at most, in dollars; a team can only lower it. None: the product's own."""
    smtp_url: str = field(default="", repr=False)
    allow_private_hosts: tuple[str, ...] = ()
    lease_seconds: float = LEASE
    """With PostgreSQL: how long a server may be silent before another one takes over its runs."""
    public_url: str = ""
    """Where people reach this installation, without a slash at the end."""
    redis_url: str = field(default="", repr=False)
    """What crews talk over; without it, over this process's memory."""
    ticking: bool = True
    """Whether the clock runs; off for commands that run one thing and end."""


class Factory:
    """One installation. The services are its public surface; every call of theirs names who makes it."""

    def __init__(self, options: Options, *, types: Catalog | None = None) -> None:
        self.options = options
        self.catalog = types or catalog()
        self.bus = Bus()
        self.db = Database(options.database_url)
        budgets = {
            LIMIT_OF["run"]: options.run_budget,
            LIMIT_OF["day"]: options.day_budget,
            LIMIT_OF["month"]: options.month_budget,
        }
        own = {name: micro(dollars) for name, dollars in budgets.items() if dollars is not None}
        self.limits = Limits(self.db, own)
        self.plans = Plans(self.db, self.catalog)
        self.vault = Vault(self.db, options.vault_key)
        self.variables = Variables(self.db, self.bus)
        self.shelves = Shelves(self.db, self.limits)
        self.egress = Egress(exceptions=options.allow_private_hosts)
        self.preferences = Preferences(self.db, self.vault)
        self.ledger = Ledger(self.db, self.limits, self.bus, server=lambda: self.engine.lease.id)
        self.limits.spent = self.ledger.used
        price = Price(*options.model_price) if options.model_price is not None else None
        self.llms = Llms(
            ModelSettings(options.model, options.model_base_url, options.model_key, price),
            settings_of=self.preferences.model_of,
            permit=self.egress.permit,
            limits=self.limits,
            ledger=self.ledger,
            prices_of=self.preferences.prices_of,
        )
        self.mailer = Mailer(options.smtp_url)
        self.fleet = Fleet(
            options.docker, home=options.home, size=options.pool_size, rules=options.pools, sizes=options.sizes
        )
        self.fleet_desk = FleetDesk(self.fleet, self.db, self.bus)
        self.printing = Printing(self.bus)
        self.store = Store(options.folder or Path(tempfile.gettempdir()) / new_id("agent-factory"))
        outside = Outside(
            self.db,
            self.egress,
            self.llms,
            self.mailer,
            self.vault,
            self.shelves,
            self.fleet,
            self.printing,
            self.store,
        )
        self.engine = Engine(
            self.db,
            self.plans,
            self.bus,
            open_doors=outside.open,
            find_blueprint=self._find_blueprint,
            variables_of=self.variables.used,
            lease=options.lease_seconds,
            limits=self.limits,
        )
        self.engine.public_url = options.public_url
        self.limits.used = self._used
        known = Installation(self.db, self.llms, self.mailer, self.variables, self.limits, self.fleet)
        self.blueprints = Blueprints(self.db, self.bus, self.catalog, known)
        self.runs = Runs(self.db, self.bus, self.engine, self.plans)
        self.crews = Crews(
            self.db,
            self.bus,
            self.fleet,
            self.runs,
            self.egress,
            self.engine.lease,
            home=options.home,
            redis_url=options.redis_url,
        )
        self.sandbox = Sandbox(self.engine, self.plans)
        self.cases = Cases(self.db, self.sandbox, self.runs)
        self.statuses = Statuses(self.db, self.bus, self.engine)
        self.approvals = Approvals(self.db, self.bus, self.engine)
        self.held = Held(self.db, self.engine, self.plans, self.bus)
        self.hooks = Hooks(self.db, self.engine, self.plans, self.vault, self.held)
        self.deployments = Deployments(
            self.db, self.bus, self.plans, self.catalog, self.hooks, known, self.held, self.cases
        )
        self.alarms = Alarms(self.db, self.bus, self.engine, self.runs)
        self.dead_letters = DeadLetters(self.db, self.bus, self.engine, self.plans, self.runs)
        self.clock = Clock(self.db, self.engine, self.plans)
        self.clock.retention.store = self.store
        self.schedules = self.clock.schedules
        self.happenings = Happenings(self.db, self.engine, self.plans)
        self.engine.on_ended = self.happenings.run_ended
        self.shelves.on_rows, self.shelves.on_file = self.happenings.rows_added, self.happenings.file_arrived
        self.shelves.on_kept = self.happenings.start_if_any
        self.hooks.on_reload = self.happenings.load
        self.clock.recovers.append(self.happenings)
        self.ahead = Ahead(self.db, self.plans, self.fleet)
        self.engine.ahead, self.sandbox.on_opened = self.ahead.of_run, self.ahead.of_test
        self.clock.on_tick.append(self.ahead.look)
        self._mark: Mark = ()
        self._open = AsyncExitStack()

    @property
    def ready(self) -> bool:
        """Whether it takes work: a server that has lost touch with the database does not, until it is back."""
        return self.engine.lease.held

    async def start(self) -> None:
        """Open the database, take up what was interrupted, then listen to addresses and the clock."""
        async with AsyncExitStack() as stack:
            await self.db.start()
            stack.push_async_callback(self.db.stop)
            await self.limits.load()
            await self.variables.load()
            stack.push_async_callback(self.egress.stop)
            stack.push_async_callback(self.ledger.stop)
            stack.push_async_callback(self.llms.stop)
            if self.llms.configured:
                await self.llms.warm()
            if self.options.folder is None:
                stack.push_async_callback(asyncio.to_thread, self.store.remove)
            await self.fleet.start()
            stack.push_async_callback(self.fleet.stop)
            await self.fleet_desk.start()
            stack.push_async_callback(self.fleet_desk.stop)
            stack.push_async_callback(self.engine.stop)
            self._mark = await self.db.read_all(changes.mark)
            self.engine.lease.on_look.append(self._refresh)
            self.engine.lease.on_recover.append(self.ledger.recover)
            await self.engine.start(hold=True)
            await self.ledger.recover()
            stack.push_async_callback(self.crews.stop)
            await self.crews.start()
            await self.hooks.reload()
            await self.held.start()
            await self.alarms.start(ticking=self.options.ticking)
            stack.push_async_callback(self.alarms.stop)
            self.engine.lease.on_recover += [self.held.start, self.alarms.catch_up]
            if self.options.ticking:
                await self.clock.start()
                self.engine.lease.on_recover.append(self.clock.recover)
                stack.push_async_callback(self.clock.stop)
            self.engine.go_on()
            self._open = stack.pop_all()

    async def _refresh(self) -> None:
        """What another server changed, this one learns within a second."""
        if (mark := await self.db.read_all(changes.mark)) != self._mark:
            await self.limits.load()
            await self.variables.load()
            await self.hooks.reload()
            await self.held.start()
            self._mark = mark

    async def stop(self) -> None:
        """Stop in the opposite order. Runs that go on are taken up at the next start."""
        await self._open.aclose()

    async def __aenter__(self) -> "Factory":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _used(self, tenant: str) -> dict[str, int]:
        working, waiting = self.engine.queue.counts(tenant)
        return {"concurrent_runs": working, "queue_depth": waiting}

    async def _find_blueprint(self, tenant: str, blueprint_id: str, environment: str) -> Target:
        plan, number = await self.runs.target(tenant, blueprint_id, environment)
        return plan, blueprint_id, number
