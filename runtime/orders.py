"""What is asked of the engine, and what a caller is answered."""

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from runtime.debugger import Debugger
from runtime.events import Fact
from runtime.plan import Plan
from storage.deployment import Deployment


@dataclass(slots=True)
class Order:
    """What is asked of the engine: this plan, on this input, for this tenant."""

    run_id: str
    tenant: str
    plan: Plan
    trigger: str | None
    input: Any
    by: str = ""
    """Who started it: a person's or token's id, empty for the outside world."""
    blueprint_id: str = ""
    version: int | None = None
    deployment_id: str | None = None
    parent: tuple[str, str, str] | None = None
    """The run, node and iteration that called or started this run."""
    awaited: bool = True
    """Whether the parent waits for its end from the start."""
    depth: int = 0
    sandbox: bool = False
    allow: frozenset[str] = frozenset()
    pretend: dict[str, Any] = field(default_factory=dict)
    environment: str = "live"
    """Whose variables and secrets it uses."""
    fork: dict[str, Any] | None = None
    """For a run that goes on from a former one: that run, where it begins, and whose keys its steps keep."""
    seed: tuple[Fact, ...] = ()
    """The facts of what it takes over."""
    debug: Debugger | None = None

    @classmethod
    def of(cls, live: Deployment, plan: Plan, run_id: str, trigger: str, event: Any) -> "Order":
        """The run that a deployment starts when one of its triggers hears something."""
        return cls(
            run_id=run_id,
            tenant=live.tenant_id,
            plan=plan,
            trigger=trigger,
            input=event,
            blueprint_id=live.blueprint_id,
            version=live.version,
            deployment_id=live.id,
            environment=live.environment,
        )


class Dispatcher(Protocol):
    """The seam to other machines: brings a run, by its id alone, to a process that takes it up from its rows.

    The engine is the one that keeps everything in this process. A distributed engine that exists can be another: its processes
    run ours over the same database, and of two that get the same id one takes the row and the other is refused.
    """

    async def submit(self, tenant: str, run_id: str) -> object:
        """Have the run go on somewhere. Raises NotFound; Elsewhere when another process has it in hand."""
        ...


ALARM: Final = "failure of "
"""Who started the run of an error agent: this, and the run that failed."""


LOOSE: Final = ", not awaited"
"""Ends the name of who started a run that its parent does not wait for."""


def by_run(order: Order, *, awaited: bool) -> str:
    """Who started a run that another run called or started; what an error agent starts stays known as such."""
    alarm = order.by.removesuffix(LOOSE) if order.by.startswith(ALARM) else ""
    return alarm if awaited else (alarm or f"run {order.run_id}") + LOOSE


def has_teller(order: Order) -> bool:
    """Whether another run is told when this one fails, and so deals with it."""
    return order.parent is not None and order.awaited


def owes_alarm(order: Order) -> bool:
    """Whether another agent has to be told when this run fails: not when its caller is, nor for what alarms have started."""
    return bool(order.plan.blueprint.on_failure) and not has_teller(order) and not order.by.startswith(ALARM)


@dataclass(slots=True)
class Response:
    """What the caller of a run is answered."""

    status: int
    body: Any
    headers: dict[str, str]
