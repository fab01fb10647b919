"""Test runs: a document as it is on the canvas, tried out, gone on with from a step, and held to be looked at."""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from nodes.blueprint import Blueprint
from nodes.errors import FactoryError, NotFound, TooMany
from nodes.graph import up_to
from nodes.ids import new_id
from runtime.debugger import Command, Debugger, Held
from runtime.engine import Engine
from runtime.environments import LIVE, check_environment
from runtime.execution import Execution, Order
from runtime.forks import Past, Reuse, Start, reuse
from runtime.journal import Plans
from runtime.plan import Plan, Step
from runtime.policy import Actor, Permission

CODE = "action.run_code"
MAX_HELD = 20  # test runs of one tenant that are held at a step at the same time


class Sandbox:
    """Test runs of a document as it is on the canvas: nothing durable, outside effects only told."""

    def __init__(self, engine: Engine, plans: Plans) -> None:
        self._engine = engine
        self._plans = plans
        self.on_opened: Callable[[str, Plan], None] = lambda tenant, plan: None
        """Told when somebody opens the test of a plan."""

    def opened(self, who: Actor, blueprint: Blueprint) -> None:
        """Somebody is about to test this: what it will need may be made ready. Nothing happens if it cannot run yet."""
        if not who.may(Permission.RUN) or not any(placed.type == CODE for placed in blueprint.nodes):
            return
        with suppress(FactoryError):
            self.on_opened(who.tenant, self._plan(who, blueprint, None))

    async def start(
        self,
        who: Actor,
        blueprint: Blueprint,
        input: Any = None,
        *,
        trigger: str | None = None,
        until: str | None = None,
        allow: frozenset[str] = frozenset(),
        pretend: dict[str, Any] | None = None,
        environment: str = LIVE,
        reuse_of: Past | None = None,
        start: str = Start.FAILURE,
        breakpoints: Collection[str] = (),
        step: bool = False,
    ) -> str:
        """Start a test run and return its id, which Runs.get, watch and cancel know while the process lives.

        `until` runs only what leads up to that node; effects outside are simulated but for the nodes in `allow`; `pretend`
        maps approvals to what people would answer, such as `{"n4": {"approved": false}}`. With `reuse_of` a former run is gone
        on with from the step `start`, on what came in then (see `runtime.forks`). It is held before the steps in
        `breakpoints`, with `step` before every one; `go_on` lets it go. Raises PlanError, NotFound, Conflict, TooMany.
        """
        who.require(Permission.RUN)
        check_environment(environment)
        plan = self._plan(who, blueprint, until)
        taken = await asyncio.to_thread(reuse, reuse_of, plan, start, sandbox=True) if reuse_of is not None else None
        first = choose_trigger(plan, taken.trigger if taken else trigger)
        order = Order(
            run_id=new_id("test"),
            tenant=who.tenant,
            plan=plan,
            trigger=first.id if first else None,
            input=taken.input if taken else first.node.sample() if input is None and first else input,
            by=who.id,
            sandbox=True,
            allow=allow,
            pretend=pretend or {},
            environment=environment,
            fork=taken.told if taken else None,
            seed=taken.facts if taken else (),
            debug=self._debugger(who, breakpoints, step),
        )
        ex = self._engine.begin(order)
        self._engine.launch(ex)
        return ex.id

    async def preview(
        self, who: Actor, blueprint: Blueprint, reuse_of: Past, start: str = Start.FAILURE, *, until: str | None = None
    ) -> Reuse:
        """What a test run that goes on with a former run would use again, and what would run. Raises as `start` does."""
        who.require(Permission.VIEW)
        return await asyncio.to_thread(reuse, reuse_of, self._plan(who, blueprint, until), start, sandbox=True)

    # --- held runs -----------------------------------------------------------------------------------------------------------

    def held(self, who: Actor, run_id: str) -> Held | None:
        """The step that a test run is held at, with what came in. Raises NotFound."""
        who.require(Permission.VIEW)
        return self._debugged(who, run_id)[1].held

    def go_on(self, who: Actor, run_id: str, command: Command) -> None:
        """Let the held step run and hold the next one (`step`), or go on to the next breakpoint (`continue`), or end (`stop`).

        Raises NotFound; Conflict when it is not held.
        """
        who.require(Permission.RUN)
        ex, debugger = self._debugged(who, run_id)
        debugger.go_on(ex, command)

    def put(self, who: Actor, run_id: str, node: str, outputs: Mapping[str, Any]) -> None:
        """Say what the held step gives, by port: it gives this instead of running when the run goes on.

        Raises NotFound, Conflict; FactoryError for a port that it does not have.
        """
        who.require(Permission.RUN)
        ex, debugger = self._debugged(who, run_id)
        debugger.write(ex, node, outputs)

    def break_at(self, who: Actor, run_id: str, breakpoints: Collection[str]) -> None:
        """Change the breakpoints of a test run that goes on. Raises NotFound."""
        who.require(Permission.RUN)
        self._debugged(who, run_id)[1].breakpoints = frozenset(breakpoints)

    def leave(self, who: Actor, run_id: str) -> None:
        """Whoever looked at a test run is gone: it is held no more, and ends if it is held now. Raises NotFound."""
        who.require(Permission.RUN)
        ex, debugger = self._debugged(who, run_id)
        debugger.leave(ex)

    def _debugger(self, who: Actor, breakpoints: Collection[str], step: bool) -> Debugger:
        tests = [ex for ex in self._engine.sandboxes.values() if ex.order.tenant == who.tenant]
        held = sum(ex.order.debug is not None and ex.order.debug.held is not None for ex in tests)
        if (breakpoints or step) and held >= MAX_HELD:
            raise TooMany(
                f"{MAX_HELD} test runs of your team are held at a step already.",
                code="limit.held",
                fix="Let one of them go on, or stop it.",
            )
        return Debugger(breakpoints, step=step)

    def _debugged(self, who: Actor, run_id: str) -> tuple[Execution, Debugger]:
        ex = self._engine.sandboxes.get(run_id)
        if ex is None or ex.order.tenant != who.tenant or ex.order.debug is None:
            raise NotFound("There is no such test run.", fix="Run the test again.")
        return ex, ex.order.debug

    def _plan(self, who: Actor, blueprint: Blueprint, until: str | None) -> Plan:
        if until is not None:
            if blueprint.node(until) is None:
                raise NotFound("That step is not in the agent any more.", fix="Select a step and run again.")
            blueprint = up_to(blueprint, until)
        self._engine.limits.check_graph(who.tenant, blueprint)
        return self._plans.of(who.tenant, blueprint)


def choose_trigger(plan: Plan, wanted: str | None) -> Step | None:
    """The trigger that a run begins with: the one asked for, else the first. Raises NotFound."""
    triggers = plan.triggers()
    if wanted is None:
        return triggers[0] if triggers else None
    for step in triggers:
        if wanted == step.id:
            return step
    raise NotFound(f"This agent has no trigger “{wanted}”.", code="run.no_trigger", fix="Choose one of its triggers.")
