"""What runs wait for: people, the clock, events, addresses, and other runs; how each wait begins, ends and is made up for.

What has to be there before a wait is a fact is made by `prepare`; what follows when the fact is safe is done by `begin`. An answer
that came in between, or while a crash was made up for, stands in a row of its own, so it is found and counts once.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from nodes.base import Events, NodeError, Pause
from nodes.errors import FactoryError
from nodes.ids import new_id, new_token
from nodes.listen import Called
from runtime.context import step_key
from runtime.execution import Execution, Order
from runtime.forks import Past, Reuse, reuse
from runtime.orders import by_run
from runtime.patience import patiently
from runtime.plan import Plan, Step
from runtime.progress import CONSENT
from runtime.states import ApprovalState
from storage import approval, event_wait, run
from storage.errors import Clash, StorageError
from storage.tenancy import TenantSession

if TYPE_CHECKING:
    from runtime.engine import Engine

PREFIX = "resume/"
"""Where addresses of runs begin, below `/hooks/`."""
KEPT_FOR = (
    7 * 86_400.0
)  # seconds that an event that was sent is kept, so that a repeat is known and who comes later hears it

TOO_LATE = {"arrived": False, "value": None}
QUESTIONS = frozenset({"approval", CONSENT, "doubt"})
"""Waits that a person ends, under “Approvals”."""
_DECIDED = frozenset({ApprovalState.APPROVED.value, ApprovalState.REJECTED.value, ApprovalState.EXPIRED.value})


class Waits:
    """The waits of one engine's runs."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.db = engine.db

    # --- before and after the fact -------------------------------------------------------------------------------------------

    async def prepare(
        self, ex: Execution, step: Step, iteration: str, kind: str, until: float | None, data: dict[str, Any]
    ) -> None:
        """What has to be there before the wait is a fact: the row of the question or event, the name of the called run."""
        if kind in ("call", "start"):
            self._not_too_deep(ex)
            await self.engine.find_blueprint(ex.order.tenant, str(data["blueprint"]), ex.order.environment)
            data["run"] = new_id("run")
        elif kind == "event":
            await ex.flush()
            await self._prepare_event(ex, step, iteration, until or 0.0, data)
        elif kind == "run":
            child = await self._row(ex.order.tenant, str(data["run"]))
            # A run that goes on from another may ask for what that one had started, once it has ended.
            other = ex.order.fork is not None and child is not None and child.state in run.FINISHED
            if child is None or (child.parent_run != ex.id and not other):
                raise _unknown_run()
        elif kind in QUESTIONS:
            await self._prepare_question(ex, step, iteration, kind, until, data)

    async def begin(
        self, ex: Execution, step: Step, iteration: str, kind: str, until: float | None, data: dict[str, Any]
    ) -> None:
        """What follows when the wait is durable: the called run starts, people are told, what came meanwhile is taken."""
        if kind in ("call", "start"):
            await self._call(ex, step, iteration, kind, data)
        elif kind == "event":
            await self._look_at_event(ex.order.tenant, ex.id, step.id, iteration, data["wait"])
        elif kind == "run":
            await self._look_at_run(ex, data["run"])
        elif kind in QUESTIONS:
            self.engine.bus.publish(ex.order.tenant, ("approvals",), {"id": data["approval"], "state": "pending"})
            await self._look_at_question(ex, step.id, iteration, data["approval"])

    async def _prepare_question(
        self, ex: Execution, step: Step, iteration: str, kind: str, until: float | None, data: dict[str, Any]
    ) -> None:
        data["approval"] = id_ = f"apr_{step_key(ex.id, step.id, f'{iteration} {kind}')[:26]}"
        values = {
            "run_id": ex.id,
            "node": step.id,
            "iteration": iteration,
            "blueprint_id": ex.order.blueprint_id,
            "blueprint_name": ex.plan.blueprint.name,
            "title": str(data.get("title") or step.name)[:500],
            "details": data.get("details"),
            "choices": list(data.get("choices") or []),
            "state": ApprovalState.PENDING.value,
            "created_at": self.engine.clock(),
            "expires_at": until,
        }
        await ex.flush()
        await self.db.write(ex.order.tenant, lambda session: approval.put(session, id_, values))

    async def _look_at_question(self, ex: Execution, node: str, iteration: str, id_: str) -> None:
        """Somebody may have decided before the wait was a fact: between a crash and the next start, or just now."""
        row = await self.db.read(ex.order.tenant, lambda session: approval.get(session, id_))
        if row is not None and row.state in _DECIDED:
            await self.engine.answer(ex.order.tenant, ex.id, node, iteration, decision(row))

    def wake(self, ex: Execution) -> None:
        """Give the steps of a run whose time has come their answer."""
        now = self.engine.clock()
        for (node, iteration), wait in list(ex.progress.waiting.items()):
            if wait["until"] is None or wait["until"] > now:
                continue
            if wait["wait"] in ("until", "turn"):
                ex.answer(node, iteration, {"at": now})
            elif wait["wait"] == "run":
                ex.answer(node, iteration, {"run": wait["data"]["run"], "state": "too late"})
            elif wait["wait"] == "event":
                self.engine.spawn(self._expire_event(ex.order.tenant, ex.id, node, iteration, wait["data"]["wait"]))
            elif "approval" in wait["data"]:
                self.engine.spawn(self._expire_question(ex, node, iteration, str(wait["data"]["approval"])))

    async def _expire_question(self, ex: Execution, node: str, iteration: str, id_: str) -> None:
        tenant, now = ex.order.tenant, self.engine.clock()

        def write(session: TenantSession) -> bool:
            pending, expired = ApprovalState.PENDING.value, ApprovalState.EXPIRED.value
            return approval.move(session, id_, expected=pending, to=expired, decided_at=now)

        if await self.db.write(tenant, write):
            self.engine.bus.publish(tenant, ("approvals",), {"id": id_, "state": ApprovalState.EXPIRED.value})
        # Also when it was decided before: whoever did that may not have come to tell the run.
        await self._look_at_question(ex, node, iteration, id_)

    async def cancel(self, tenant: str, run_id: str) -> None:
        """Nobody has to answer a run any more that was cancelled."""
        now = self.engine.clock()

        def write(session: TenantSession) -> int:
            event_wait.cancel_of_run(session, run_id)
            return approval.cancel_of_run(session, run_id, now)

        if await self.db.write(tenant, write):
            message = {"run": run_id, "state": ApprovalState.CANCELLED.value}
            self.engine.bus.publish(tenant, ("approvals",), message)

    async def recover(self) -> None:
        """Tell runs what was decided, what came, and which of the runs they wait for ended, while nobody was there to."""
        engine = self.engine
        for question in await self.db.read_all(approval.undelivered):
            place = question.tenant_id, question.run_id, question.node, question.iteration
            engine.spawn(self.tell(*place, decision(question)))
        for event in await self.db.read_all(event_wait.undelivered):
            place = event.tenant_id, event.run_id, event.node, event.iteration
            engine.spawn(self.tell(*place, {"arrived": True, "value": event.value}))
        for child in await self.db.read_all(run.unreported):
            engine.spawn(self.report_row(child.tenant_id, child.id))

    async def tell(self, tenant: str, run_id: str, node: str, iteration: str, answer: Any) -> None:
        """Give a step its answer, however long the database is away: nobody would look for it again in this life."""
        place = tenant, run_id, node, iteration
        await patiently(lambda: self.engine.answer(*place, answer), "an answer waits for the database", run=run_id)

    async def mend(self, ex: Execution) -> None:
        """Start what a run that was taken up had called, where a crash came in between."""
        for (node, iteration), wait in list(ex.progress.waiting.items()):
            if wait["wait"] == "run":
                await self._look_at_run(ex, wait["data"]["run"])
            if wait["wait"] not in ("call", "start"):
                continue
            child = wait["data"]["run"]
            try:
                if await self._row(ex.order.tenant, child) is None:
                    await self._call(ex, ex.plan.steps[node], iteration, wait["wait"], wait["data"])
                elif wait["wait"] == "start":
                    ex.answer(node, iteration, {"run": child})
            except StorageError:
                raise
            except FactoryError as error:  # the other agent is not there any more
                ex.answer(node, iteration, {"run": child, "state": "failed", "output": None, "error": error.as_dict()})

    # --- other runs ----------------------------------------------------------------------------------------------------------

    async def _call(self, ex: Execution, step: Step, iteration: str, kind: str, data: dict[str, Any]) -> None:
        order = ex.order
        plan, blueprint_id, version = await self.engine.find_blueprint(
            order.tenant, str(data["blueprint"]), order.environment
        )
        taken = await self._taken_over(ex, step, iteration, plan, data.get("input"))
        child = Order(
            run_id=data["run"],
            tenant=order.tenant,
            plan=plan,
            trigger=taken.trigger if taken else _entry(plan),
            input=data.get("input"),
            fork=taken.told if taken else None,
            seed=taken.facts if taken else (),
            blueprint_id=blueprint_id,
            version=version,
            parent=(ex.id, step.id, iteration),
            awaited=kind == "call",
            by=by_run(order, awaited=kind == "call"),
            depth=order.depth + 1,
            environment=order.environment,
        )
        try:
            await self.engine.accept(child)
        except Clash:  # an attempt of which nobody knew what became of it
            if await self._row(order.tenant, child.run_id) is None:
                raise
        if kind == "start":
            await self.engine.answer(order.tenant, ex.id, step.id, iteration, {"run": data["run"]})

    async def _taken_over(self, ex: Execution, step: Step, iteration: str, plan: Plan, given: Any) -> Reuse | None:
        """What a called run goes on with, when this run goes on from one that had called the same and was left with a failure."""
        fork, tenant = ex.order.fork, ex.order.tenant
        if fork is None or step.id not in fork["keys"]:
            return None
        place = f"{step.id}\n{iteration}"
        rows = await self.db.read(tenant, lambda session: run.children(session, fork["run"]))
        former = next((row for row in reversed(rows) if row.parent_step == place), None)
        if former is None or former.state not in ("failed", "cancelled"):
            return None
        _, old, facts = await self.engine.journal.load(tenant, former.id)
        past = Past(former.id, old, facts)
        try:
            return await asyncio.to_thread(reuse, past, plan) if past.input == given else None
        except FactoryError:
            return None

    async def report(
        self, tenant: str, parent: tuple[str, str, str], child: str, state: str, output: Any, error: Any
    ) -> None:
        """Tell the run that called or started another what came of it."""
        await self.tell(tenant, *parent, {"run": child, "state": state, "output": output, "error": error})

    async def report_row(self, tenant: str, child: str) -> None:
        """The same, as the rows of a run that has ended say it."""

        async def report() -> None:
            row = await self._row(tenant, child)
            if row is not None and row.parent_run and row.state in run.FINISHED:
                await self._report_row(row)

        await patiently(report, "an answer waits for the database", run=child)

    async def _report_row(self, child: run.Run, *, to: str = "") -> None:
        _, _, facts = await self.engine.journal.load(child.tenant_id, child.id)
        end = next((fact for fact in reversed(facts) if fact["kind"] == "run.finished"), {})
        node, _, iteration = (child.parent_step or "").partition("\n")
        place = (to or child.parent_run or "", node, iteration)
        await self.report(child.tenant_id, place, child.id, child.state, end.get("output"), child.error)

    async def _look_at_run(self, ex: Execution, child: str) -> None:
        row = await self._row(ex.order.tenant, child)
        if row is not None and row.state in run.FINISHED:
            await self._report_row(row, to=ex.id)

    async def _row(self, tenant: str, run_id: str) -> run.Run | None:
        return await self.db.read(tenant, lambda session: run.get(session, run_id))

    def _not_too_deep(self, ex: Execution) -> None:
        self.engine.limits.check_step(ex.order.tenant, "call_depth", ex.order.depth + 1, "Agents call each other")

    # --- events and addresses ------------------------------------------------------------------------------------------------

    async def _prepare_event(
        self, ex: Execution, step: Step, iteration: str, until: float, data: dict[str, Any]
    ) -> None:
        tenant = ex.order.tenant
        if (address := data.pop("address", None)) is not None:
            token = str(address).rstrip("/").rpartition("/")[2].partition("?")[0]
            taken = await self.db.write(
                tenant,
                lambda session: event_wait.take_address(
                    session, token, run_id=ex.id, node=step.id, iteration=iteration, expires_at=until
                ),
            )
            if taken is None:
                raise NodeError(
                    "This is no reply address, or another step has waited at it already.",
                    category="configuration",
                    fix="Wait once at each address that “Make a reply address” gave.",
                )
            data["wait"] = taken.id
            return
        data["wait"] = id_ = _row_id(step_key(ex.id, step.id, iteration))
        subject, before = (
            event_wait.subject(data["name"], data["key"], ex.order.environment),
            float(data.get("before", 0)),
        )
        now = self.engine.clock()
        values = {
            "subject": subject,
            "run_id": ex.id,
            "node": step.id,
            "iteration": iteration,
            "created_at": now,
            "expires_at": until,
        }

        def write(session: TenantSession) -> None:
            if before:
                session.hold("event", subject)  # so that an event is either seen here, or sees this wait
            if event_wait.put(session, id_, values) and before:
                event_wait.catch_up(session, id_, now - before, now)

        await self.db.write(tenant, write)

    async def _look_at_event(self, tenant: str, run_id: str, node: str, iteration: str, id_: str) -> None:
        row = await self.db.read(tenant, lambda session: event_wait.get(session, id_))
        if row is not None and row.state == "arrived":
            await self.engine.answer(tenant, run_id, node, iteration, {"arrived": True, "value": row.value})

    async def _expire_event(self, tenant: str, run_id: str, node: str, iteration: str, id_: str) -> None:
        if await self.db.write(tenant, lambda session: event_wait.move(session, id_, to="expired")):
            await self.engine.answer(tenant, run_id, node, iteration, TOO_LATE)
            return
        row = await self.db.read(tenant, lambda session: event_wait.get(session, id_))
        if row is not None and row.state == "expired":
            await self.engine.answer(tenant, run_id, node, iteration, TOO_LATE)
        else:
            await self._look_at_event(tenant, run_id, node, iteration, id_)

    def door(self, ex: Execution, key: str) -> Events:
        """Events and addresses as a step has them."""
        return SandboxEvents(self) if ex.sandbox else LiveEvents(self, ex.order.tenant, ex.order.environment, key)

    async def new_address(self, tenant: str, seconds: float) -> str:
        """An address for one run; after a crash the step makes another one, for nobody can know the first."""
        now, token = self.engine.clock(), new_token()
        values = {"token_hash": event_wait.hashed(token), "created_at": now, "expires_at": now + seconds}
        await self.db.write(tenant, lambda session: event_wait.put(session, new_id("evt"), values))
        return f"{self.engine.public_url}/hooks/{PREFIX}{token}"

    async def publish(self, tenant: str, environment: str, name: str, key: str, value: Any, once: str) -> int:
        """An event happened: every run of the environment goes on that waits for it now, or soon and takes earlier ones.

        Returns how many; for the same `once` only the first counts.
        """
        subject, now = event_wait.subject(name, key, environment), self.engine.clock()

        def write(session: TenantSession) -> list[event_wait.EventWait]:
            return list(event_wait.send(session, _row_id(once), subject, value, now, until=now + KEPT_FOR))

        heard = await self.db.write(tenant, write)
        # By itself, so that it does not end with the step that sent it.
        self.engine.spawn(self._tell(tenant, heard, value))
        return len(heard)

    async def _tell(self, tenant: str, rows: list[event_wait.EventWait], value: Any) -> None:
        for row in rows:
            await self.tell(tenant, row.run_id, row.node, row.iteration, {"arrived": True, "value": value})

    async def find(self, token: str) -> event_wait.EventWait | None:
        """What an address belongs to."""
        return await self.db.read_all(lambda session: event_wait.at(session, token))

    async def arrive(self, row: event_wait.EventWait, value: Any) -> bool:
        """Somebody called an address. False: somebody had before, or it is too late."""
        tenant, id_, now = row.tenant_id, row.id, self.engine.clock()
        if not await self.db.write(tenant, lambda session: event_wait.deliver(session, id_, value, now)):
            return False
        fresh = await self.db.read(tenant, lambda session: event_wait.get(session, id_))
        if fresh is not None and fresh.run_id:
            self.engine.spawn(self._tell(tenant, [fresh], value))
        return True

    # --- the sandbox ---------------------------------------------------------------------------------------------------------

    async def pretend(self, ex: Execution, step: Step, pause: Pause) -> tuple[Any, str]:
        """What the sandbox answers at once to a step that would wait, and the sentence that says so."""
        said = ex.order.pretend.get(step.id, {})
        if pause.kind == "until":
            return {"at": self.engine.clock()}, "would wait here; the sandbox goes on at once"
        if pause.kind == "approval":
            yes = bool(said.get("approved", True))
            answer = {"approved": yes, "expired": False, "by": "you, in the sandbox", "note": "", "choice": ""} | said
            title = str(pause.data.get("title") or step.name)
            return answer, f"would ask a person: “{title}”; the sandbox says {'yes' if yes else 'no'}"
        if pause.kind == "event":
            what = f"the event “{pause.data['name']}”" if "name" in pause.data else "a call of the address"
            if not said.get("arrived", True):
                return TOO_LATE, f"would wait for {what}; the sandbox says it does not come in time"
            answer = {"arrived": True, "value": said.get("value", pause.data.get("sample"))}
            return answer, f"would wait for {what}; the sandbox goes on as if it had come"
        if pause.kind == "run":
            other = self.engine.sandboxes.get(str(pause.data["run"]))
            if other is None or other.order.tenant != ex.order.tenant:
                raise _unknown_run()
            return _end_of(other), ""
        child = await self._try_out(ex, pause)
        return ({"run": child.id} if pause.kind == "start" else _end_of(child)), ""

    async def _try_out(self, ex: Execution, pause: Pause) -> Execution:
        self._not_too_deep(ex)
        plan, blueprint_id, version = await self.engine.find_blueprint(
            ex.order.tenant, str(pause.data["blueprint"]), ex.order.environment
        )
        child = self.engine.begin(
            Order(
                run_id=new_id("run"),
                tenant=ex.order.tenant,
                plan=plan,
                trigger=_entry(plan),
                input=pause.data.get("input"),
                blueprint_id=blueprint_id,
                version=version,
                depth=ex.order.depth + 1,
                sandbox=True,
                environment=ex.order.environment,
            )
        )
        await child.drive()
        return child


class LiveEvents:
    """Events and addresses as the steps of a live run have them."""

    def __init__(self, waits: Waits, tenant: str, environment: str, key: str) -> None:
        self._waits, self._tenant, self._environment, self._key = waits, tenant, environment, key

    async def address(self, *, seconds: float) -> str:
        return await self._waits.new_address(self._tenant, seconds)

    async def send(self, name: str, key: str, value: Any) -> int:
        return await self._waits.publish(self._tenant, self._environment, name, key, value, self._key)


class SandboxEvents:
    """The same in the sandbox: nobody hears anything, and nothing answers at the addresses."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits

    async def address(self, *, seconds: float) -> str:
        return f"{self._waits.engine.public_url}/hooks/{PREFIX}sandbox"

    async def send(self, name: str, key: str, value: Any) -> int:
        return 0


def decision(row: approval.Approval) -> dict[str, Any]:
    """What a step that asked is told of the decision."""
    return {
        "approval": row.id,
        "approved": row.state == ApprovalState.APPROVED.value,
        "expired": row.state == ApprovalState.EXPIRED.value,
        "by": row.decided_by or "",
        "note": row.note or "",
        "choice": row.choice or "",
    }


def _entry(plan: Plan) -> str | None:
    """The trigger by which other agents come in: the one made for it, else the first."""
    triggers = plan.triggers()
    made = [step for step in triggers if isinstance(step.node.listens(), Called)]
    return (made or triggers)[0].id if triggers else None


def _end_of(ex: Execution) -> dict[str, Any]:
    return {"run": ex.id, "state": ex.state.value, "output": ex.output, "error": ex.error}


def _row_id(key: str) -> str:
    return f"evt_{key[:26]}"


def _unknown_run() -> NodeError:
    return NodeError(
        "This is not a run that this run has started.",
        fix="Give the `run` that “Start an agent” gave, in the same run.",
    )
