"""One run being executed: takes ready steps, runs them, and says what happened as facts.

Steps that only compute (E0) run one after the other where they stand; every other step is a task. Facts that must be safe
before the run goes on (the start and the result of a step with effect E2 or more, a wait, the answer to the caller, the end)
are flushed; all others ride along with the next flush and may be repeated after a crash.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog

from nodes.base import SKIP, Effect, Loop, NodeError, Pause
from runtime import agents
from runtime.context import Doors, StepContext, step_key
from runtime.debugger import Debugger
from runtime.events import Fact
from runtime.limits import LIMITS, in_words
from runtime.outcomes import explain, fired, is_big, retry_in, run_to_end, shown_input
from runtime.pace import SHORT
from runtime.plan import Plan, Step
from runtime.progress import DONE, READY, RUNNING, Answer, Frame, LoopRun, Progress
from runtime.states import RunState
from runtime.worktime import WorkTime

if TYPE_CHECKING:
    from runtime.engine import Engine

log = structlog.get_logger()

TURN = 0.01  # seconds of computing steps before other runs get their turn

DOUBT_AGAIN, DOUBT_DONE, DOUBT_STOP = "Do it again", "It happened: go on", "Stop the run"


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


ALARM: Final = "failure of "
"""Who started the run of an error agent: this, and the run that failed."""


def owes_alarm(order: Order) -> bool:
    """Whether another agent has to be told when this run fails: not for runs that are told of failures themselves."""
    return bool(order.plan.blueprint.on_failure) and order.parent is None and not order.by.startswith(ALARM)


@dataclass(slots=True)
class Response:
    """What the caller of a run is answered."""

    status: int
    body: Any
    headers: dict[str, str]


class Execution:
    """A run in memory. `drive()` takes it as far as it can go: to its end, or to where only rows wait."""

    def __init__(self, engine: "Engine", order: Order) -> None:
        self.engine = engine
        self.order = order
        self.plan = order.plan
        self.id = order.run_id
        self.sandbox = order.sandbox
        self.state = RunState.ACCEPTED
        self.saved_state: RunState | None = None
        self.started_at = engine.clock()
        self.output: Any = None
        self.error: dict[str, Any] | None = None
        self.response: Response | None = None
        self.history: list[Fact] = []
        self.unsaved: list[Fact] = []
        self.seq = 0
        self.saved = 0
        self.saving: list[asyncio.Future[None]] | None = None
        """While a record is on its way to the disk: who waits for it."""
        self.answers: deque[tuple[str, str, Any]] = deque()
        self.answered: asyncio.Future[Response] | None = None
        self.ended = asyncio.Event()
        self.work = WorkTime()
        self.reserved = False
        """Whether a place in the queue was promised to it."""
        self.cancelled = False
        self.progress = Progress(self.plan)
        self.progress.on_skip = self._skipped
        self.progress.on_loop_end = self._loop_ended
        self.progress.on_round = self._round_ended
        self.progress.on_abandon = self._abandoned
        self._doors: Doors | None = None
        self._tasks: dict[asyncio.Task[None], tuple[Frame, Step]] = {}
        self._wake = asyncio.Event()
        self._topic = (order.tenant, ("run", self.id))
        self._listeners = engine.bus.listeners
        self._replaying = False
        self._unsaid: dict[tuple[str, str], tuple[LoopRun, dict[str, Any] | None, dict[str, Any] | None]] = {}
        self.known_to_formulas: dict[str, Any] = {
            "id": self.id,
            "started_at": self.started_at,
            "sandbox": self.sandbox,
            "agent": self.plan.blueprint.name,
            "environment": order.environment,
        }

    # --- facts -----------------------------------------------------------------------------------------------------------

    def emit(self, kind: str, node: str = "", iteration: str = "", /, **data: Any) -> None:
        """Make a fact: it is saved with the next flush and told to whoever watches."""
        self.seq += 1
        fact: Fact = {"seq": self.seq, "at": self.engine.clock(), "kind": kind}
        if node:
            fact["node"] = node
            fact["iteration"] = iteration
        fact.update(data)
        (self.history if self.sandbox else self.unsaved).append(fact)
        if self._topic in self._listeners and kind != "run.finished":
            self._tell(fact)

    def _tell(self, fact: Fact) -> None:
        self.engine.bus.publish(*self._topic, fact)

    async def flush(self) -> None:
        """Return when every fact so far is on the disk."""
        if not self.sandbox and self.saved < self.seq:
            await self.engine.save(self)

    @property
    def doors(self) -> Doors:
        """The ways out, opened when a step first needs one."""
        if self._doors is None:
            self._doors = self.engine.open_doors(self)
        return self._doors

    # --- beginning, replaying ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Accept: the first fact, and the first steps are ready."""
        order = self.order
        more: dict[str, Any] = {} if order.fork is None else {"fork": order.fork}
        if variables := self.engine.variables_of(order.tenant, order.environment, self.plan):
            # They are a fact: after a crash, and years later, the run still has those that it began with.
            self.progress.variables = {**self.plan.variables, **variables}
            more["vars"] = variables
        self.emit("run.accepted", trigger=order.trigger, input=order.input, **more)
        self.progress.open(order.trigger, order.input)
        if order.seed:
            self._take_over(order.seed)

    def _take_over(self, seed: tuple[Fact, ...]) -> None:
        """Begin with what a former run had come to."""
        self._replaying = True
        for fact in seed:
            data = {name: value for name, value in fact.items() if name not in ("kind", "node", "iteration")}
            if fact["kind"] == "run.responded":
                self.response = Response(fact["status"], fact["body"], fact["headers"])
            self.emit(fact["kind"], fact.get("node", ""), fact.get("iteration", ""), **data)
            self.progress.apply({"at": self.started_at, **fact})
        self._replayed()

    def _replayed(self) -> None:
        self._replaying = False
        for loop, outputs, error in self._unsaid.values():
            self._loop_ended(loop, outputs, error)
        self._unsaid.clear()
        self.progress.decide_rounds()

    def replay(self, facts: list[Fact]) -> None:
        """Bring a run back to where its facts left it; what had begun without an end is ready again."""
        self._replaying = True
        for fact in facts:
            kind = fact["kind"]
            if kind == "run.accepted":
                self.order.trigger, self.order.input = fact["trigger"], fact["input"]
                self.order.fork = fact.get("fork")
                self.started_at = self.known_to_formulas["started_at"] = fact["at"]
                if "vars" in fact:
                    self.progress.variables = {**self.plan.variables, **fact["vars"]}
            elif kind == "step.waiting":
                self.work.spent = fact.get("worked", 0.0)
            elif kind == "run.responded":
                self.response = Response(fact["status"], fact["body"], fact["headers"])
            elif kind in ("step.succeeded", "step.failed", "step.reused"):
                self._unsaid.pop((fact["node"], fact["iteration"]), None)
            self.progress.apply(fact)
            self.seq = self.saved = fact["seq"]
        self._replayed()
        self.error = self.progress.error
        self._raise_doubts()

    def _raise_doubts(self) -> None:
        """An effect that began, has no result, and cannot be told apart by a key asks a person."""
        for frame, step in list(self.progress.ready):
            begun = frame.status[step.index] == READY and step.index in frame.begun
            unsure = begun and step.effect >= Effect.E4 and not step.node.keyed
            if unsure and (step.id, frame.path) not in self.progress.resumed:
                title = f"Did “{step.name}” happen? The server stopped while it was at it."
                data = {"title": title, "details": None, "choices": [DOUBT_AGAIN, DOUBT_DONE, DOUBT_STOP]}
                frame.status[step.index] = RUNNING
                self._start_task(frame, step, self._wait(frame, step, "doubt", None, data))

    # --- driving ---------------------------------------------------------------------------------------------------------

    async def drive(self) -> None:
        """Run until the end, or until only a person, a clock or another run can move it on."""
        self.state = RunState.RUNNING
        self.work.go()
        progress, debug = self.progress, self.order.debug
        turn = time.perf_counter() + TURN
        while True:
            while progress.ready and progress.error is None and not self.cancelled:
                frame, step = progress.ready.popleft()
                if frame.status[step.index] != READY or frame.gone:
                    continue
                frame.status[step.index] = RUNNING
                if debug is not None and not await debug.lets(self, frame, step):
                    continue
                if step.inline:
                    await self._compute(frame, step)
                    if time.perf_counter() > turn:
                        await asyncio.sleep(0)
                        self._look_at_time()
                        turn = time.perf_counter() + TURN
                else:
                    answer = progress.resumed.pop((step.id, frame.path), None) if progress.resumed else None
                    self._start_task(frame, step, self._work(frame, step, answer=answer))
            if self.cancelled or progress.error is not None:
                await self._stop_tasks()
                break
            if self.answers:
                self._take_answers()
            elif self._tasks:
                self._wake.clear()
                if self.response is not None:
                    await self._deliver_response()
                if self._tasks and not self.answers and not progress.ready and not self.cancelled:
                    if debug is None:
                        self.work.ring(self._may_work(), self._look_at_time)
                    await self._wake.wait()
                turn = time.perf_counter() + TURN
            elif not progress.waiting:
                break
            elif await self._suspend():
                return
        await self._finish()

    def _may_work(self) -> float:
        return float(self.engine.limits.of(self.order.tenant, "run_seconds"))

    def _look_at_time(self) -> None:
        """End a run that has worked for too long: its error is noticed at the next turn."""
        most = self._may_work()
        if self.work.so_far() >= most and self.progress.error is None and self.order.debug is None:
            limit = LIMITS["run_seconds"]
            sentence = f"The run has worked for {in_words(int(most), 'seconds')}, and that is as long as one may."
            error = NodeError(sentence, category="limit", code="limit.run_seconds", fix=limit.fix)
            self.progress.error = explain(error, None)
            self._wake.set()

    def _start_task(self, frame: Frame, step: Step, work: Any) -> None:
        task = self.engine.spawn(work)
        self._tasks[task] = (frame, step)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        _, step = self._tasks.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the engine failed in a step", run=self.id, node=step.id, exc_info=error)
            self.progress.error = self.progress.error or explain(error, step)
        self._wake.set()

    async def _stop_tasks(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    def _abandoned(self) -> None:
        for task, (frame, _) in self._tasks.items():
            if frame.gone and task is not asyncio.current_task():
                task.cancel()

    async def woken(self) -> None:
        """Return when something happened that may change what is next."""
        self._wake.clear()
        await self._wake.wait()

    def wake(self) -> None:
        """Look again at what is next."""
        self._wake.set()

    def give(self, frame: Frame, step: Step, outputs: dict[str, Any], started: float, note: str) -> None:
        """Settle a step with outputs that it did not make itself."""
        self._succeed(frame, step, outputs, 1, started, note)

    def cancel(self) -> None:
        """Stop as soon as the steps let go; the run ends as cancelled."""
        self.cancelled = True
        self._wake.set()

    def answer(self, node: str, iteration: str, answer: Any) -> None:
        """Something that a step waited for has come. A second answer changes nothing."""
        waiting = self.progress.waiting
        places = [(node, iteration)] if (node, iteration) in waiting else []
        if not places and isinstance(answer, dict) and "run" in answer:
            # It comes for the step that started the run; another one may wait for its end.
            ended = answer["run"]
            places = [place for place, wait in waiting.items() if wait["wait"] == "run" and wait["data"]["run"] == ended]
        for place in places:
            self.answers.append((*place, answer))
            self._wake.set()

    def _take_answers(self) -> None:
        while self.answers:
            node, iteration, value = self.answers.popleft()
            waited = self.progress.waiting.pop((node, iteration), None)
            place = self.progress.place(node, iteration)
            if waited is None or place is None:
                continue
            frame, step = place
            self.emit("step.resumed", node, iteration, answer=value)
            frame.status[step.index] = RUNNING
            self._start_task(frame, step, self._work(frame, step, answer=Answer(waited["wait"], value)))

    async def _suspend(self) -> bool:
        """Leave only rows behind. False if an answer came while they were written."""
        self.state = RunState.WAITING
        self.work.stop()
        if self.sandbox:
            self._wake.clear()
            if not self.answers and not self.cancelled:
                await self._wake.wait()
        else:
            await self.engine.save(self)
            await self._deliver_response()
            self.engine.tell_runs(self)
        if self.sandbox or self.answers or self.cancelled:
            self.state = RunState.RUNNING
            self.work.go()
            if not self.sandbox:
                await self.engine.keep_hold(self)
            return False
        self.engine.let_go(self)
        self._part()
        return True

    def wake_at(self) -> float | None:
        """When the clock has to move this run on, if it waits for one; a failed one is woken to start its error agent."""
        if self.state is RunState.FAILED and owes_alarm(self.order):
            return self.engine.clock()
        if self.state is not RunState.WAITING:
            return None
        return min((w["until"] for w in self.progress.waiting.values() if w["until"] is not None), default=None)

    async def _finish(self) -> None:
        self.work.stop()
        if self.cancelled:
            self.state = RunState.CANCELLED
            self.error = {"code": "run.cancelled", "message": "The run was cancelled.", "fix": None, "where": {}}
        elif self.progress.error is not None:
            self.state, self.error = RunState.FAILED, self.progress.error
        else:
            self.state, self.output = RunState.SUCCEEDED, self._result()
        self.emit("run.finished", state=self.state.value, output=self.output, error=self.error)
        end = (self.history or self.unsaved)[-1]
        await self.flush()
        await self._deliver_response()
        self.engine.let_go(self)
        self._part()
        self.ended.set()
        # Nobody is told of an end that a crash could still take back.
        self._tell(end)

    def _part(self) -> None:
        """Let go of what refers back to this run, so that its memory is free at once and not when the collector comes by."""
        self.progress.on_skip = self.progress.on_loop_end = self.progress.on_abandon = self.progress.on_round = None
        self._doors = None

    def _result(self) -> Any:
        if self.response is not None:
            return self.response.body
        root = self.progress.root
        ends = {}
        for step in self.plan.root.steps:
            given = root.outputs[step.index]
            if given and not any(port in step.out for port in given):
                ends[step.key] = next(iter(given.values()))
        return next(iter(ends.values())) if len(ends) == 1 else ends or None

    def key(self, node: str, iteration: str) -> str:
        """The idempotency key of a step: of this run, or of the former run that the step goes on from."""
        origin = self.order.fork["keys"].get(node, self.id) if self.order.fork else self.id
        return step_key(origin, node, iteration)

    def respond(self, status: int, body: Any, headers: dict[str, str], by: str = "") -> None:
        """Note the answer to the caller; it leaves when the facts so far are safe. Only the first one counts."""
        if self.response is None:
            self.response = Response(status, body, headers)
            self.emit("run.responded", status=status, body=body, headers=headers, by=by)

    async def _deliver_response(self) -> None:
        if self.answered is not None and self.response is not None and not self.answered.done():
            await self.flush()
            if not self.answered.done():
                self.answered.set_result(self.response)

    # --- one step ----------------------------------------------------------------------------------------------------------

    async def _compute(self, frame: Frame, step: Step) -> None:
        """A step that only computes: no task, and live no fact but its result."""
        started = self.engine.clock()
        inputs = self.progress.inputs(frame, step)
        if self.sandbox:
            self.emit("step.started", step.id, frame.path, attempt=1, input=shown_input(step, inputs))
        if (known := self._known(step, inputs)) is not None:
            self._succeed(frame, step, known[0], 1, started, known[1])
            return
        context = StepContext(self, frame, step, inputs, 1)
        try:
            if is_big(inputs):
                outcome = await asyncio.to_thread(run_to_end, step.node.run(context, **inputs))
            else:
                outcome = await step.node.run(context, **inputs)
            outputs = fired(outcome)
        except Exception as error:
            pause = self._retry_in(step, error, 1)
            if pause is None:
                self._fail(frame, step, error, 1, started)
            else:
                self.emit("step.retrying", step.id, frame.path, attempt=2, after=pause, error=explain(error, step))
                self._start_task(frame, step, self._work(frame, step, attempt=2, pause=pause))
            return
        self._succeed(frame, step, outputs, 1, started)

    def _known(self, step: Step, inputs: dict[str, Any]) -> tuple[dict[str, Any], str] | None:
        """Outputs that need no execution: a step switched off passes its input on, a pinned one gives what was pinned."""
        if step.placed.disabled and not step.is_trigger:
            outputs = {step.out_ports[0]: inputs.get(step.first_input)} if step.out_ports else {}
            return outputs, "is switched off and passed its input on"
        if self.sandbox and step.placed.pinned is not None:
            return dict(step.placed.pinned), "used the pinned data"
        return None

    async def _work(
        self, frame: Frame, step: Step, *, attempt: int = 1, pause: float = 0.0, answer: Answer | None = None
    ) -> None:
        """All attempts of one step that reaches outside, waits, or loops."""
        started = self.engine.clock()
        inputs = self.progress.inputs(frame, step)
        if answer is None and (known := self._known(step, inputs)) is not None:
            self._succeed(frame, step, known[0], attempt, started, known[1])
            return
        if answer is not None and answer.wait == "doubt":
            if (choice := answer.value["choice"]) != DOUBT_AGAIN:
                self._end_doubt(frame, step, choice, started)
                return
            answer = None
        paced = step.policy.at_most > 0 and answer is None
        if answer is not None and answer.wait == "turn":
            answer = None
        attempt = max(attempt, frame.begun.get(step.index, 0))
        while True:
            if pause:
                await asyncio.sleep(pause)
            if paced and not await self._turn(frame, step, attempt):
                return
            paced = step.policy.at_most > 0
            started = self.engine.clock()
            if answer is None and (step.toolbox is None or (step.id, frame.path) not in self.progress.talks):
                self.emit("step.started", step.id, frame.path, attempt=attempt, input=shown_input(step, inputs))
                frame.begun[step.index] = attempt
            try:
                if step.effect >= Effect.E2:
                    await self.flush()
                    if not (self.sandbox or self.engine.lease.held):
                        await self.engine.lease.confirm()
                outcome = await self._attempt(frame, step, inputs, attempt, answer)
                if frame.gone:
                    return
                if isinstance(outcome, Pause):
                    outcome = await self._pause(frame, step, outcome)
                    if outcome is SKIP:
                        return
                if isinstance(outcome, _Items):
                    self.emit("loop.started", step.id, frame.path, items=outcome.items)
                    self.progress.open_loop(frame, step, outcome.items, started)
                    return
                if isinstance(outcome, agents.Turned):
                    self.emit("agent.turn", step.id, frame.path, **outcome.data)
                    await self.flush()
                    if not frame.gone:
                        self.progress.take_turn(frame, step, outcome.data)
                    return
                outputs = fired(outcome)
            except Exception as error:
                if (wait := self._retry_in(step, error, attempt)) is None:
                    self._fail(frame, step, error, attempt, started)
                    return
                attempt += 1
                self.emit("step.retrying", step.id, frame.path, attempt=attempt, after=wait, error=explain(error, step))
                pause = wait
                continue
            if step.effect >= Effect.E2:
                self._say_success(frame, step, outputs, attempt, started)
                await self.flush()
                self.progress.resolve(frame, step, outputs)
            else:
                self._succeed(frame, step, outputs, attempt, started)
            return

    async def _turn(self, frame: Frame, step: Step, attempt: int) -> bool:
        """Wait for the moment at which the step may start; False: that is so far away that the wait is rows only."""
        policy, order, now = step.policy, self.order, self.engine.clock()
        lane = (order.tenant, self.id if self.sandbox else order.blueprint_id, step.id)
        if (delay := self.engine.pace.reserve(lane, policy.at_most, policy.per, now)) <= 0:
            return True
        if self.sandbox:
            sentence = f"would wait {delay:,.0f} seconds for its turn; the sandbox goes on at once"
            self.emit("step.simulated", step.id, frame.path, sentence=sentence)
            return True
        if delay <= SHORT:
            await asyncio.sleep(delay)
            return not frame.gone
        if attempt > 1:
            frame.begun[step.index] = attempt
        await self._wait(frame, step, "turn", now + delay, {})
        return False

    async def _attempt(
        self, frame: Frame, step: Step, inputs: dict[str, Any], attempt: int, answer: Answer | None
    ) -> Any:
        context = StepContext(self, frame, step, inputs, attempt)
        node = step.node
        if isinstance(node, Loop):
            items = node.items_of(context, inputs.get(step.first_input))
            self.engine.limits.check_step(self.order.tenant, "loop_items", len(items), f"“{step.name}” was given")
            return _Items(items)
        if self.sandbox and step.effect >= Effect.E3 and step.id not in self.order.allow:
            simulated = await node.simulate(context, **inputs)
            self.emit("step.simulated", step.id, frame.path, sentence=simulated.sentence)
            return simulated.out
        patience = self._patience(step)
        try:
            async with asyncio.timeout(patience):
                if step.toolbox is not None:
                    return await agents.advance(self, frame, step, context)
                if answer is not None:
                    return await node.resume(context, answer.value, **inputs)
                return await node.run(context, **inputs)
        except TimeoutError:
            raise NodeError(
                f"“{step.name}” took longer than {patience:g} seconds.",
                retry=True,
                category="timeout",
                fix="Raise the step's time limit, or ask for less at once.",
            ) from None

    def _patience(self, step: Step) -> float:
        lowered = self.engine.limits.lowered(self.order.tenant, "step_seconds")
        return step.policy.timeout if lowered is None else min(step.policy.timeout, lowered)

    def _retry_in(self, step: Step, error: Exception, attempt: int) -> float | None:
        most = self.engine.limits.lowered(self.order.tenant, "retries")
        return None if most is not None and attempt > most else retry_in(step, error, attempt)

    async def _pause(self, frame: Frame, step: Step, pause: Pause) -> Any:
        """Wait as rows; in the sandbox pretend at once what would come of it, and go on with that."""
        if not self.sandbox:
            await self._wait(frame, step, pause.kind, pause.until, dict(pause.data))
            return SKIP
        answer, sentence = await self.engine.waits.pretend(self, step, pause)
        if sentence:
            self.emit("step.simulated", step.id, frame.path, sentence=sentence)
        inputs = self.progress.inputs(frame, step)
        return await step.node.resume(StepContext(self, frame, step, inputs, 1), answer, **inputs)

    async def _wait(self, frame: Frame, step: Step, kind: str, until: float | None, data: dict[str, Any]) -> None:
        await self.engine.waits.prepare(self, step, frame.path, kind, until, data)
        self.emit("step.waiting", step.id, frame.path, wait=kind, until=until, data=data, worked=self.work.so_far())
        self.progress.wait(frame, step, {"wait": kind, "until": until, "data": data})
        await self.flush()
        await self.engine.waits.begin(self, step, frame.path, kind, until, data)

    def _end_doubt(self, frame: Frame, step: Step, choice: str, started: float) -> None:
        if choice == DOUBT_DONE:
            outputs = {step.out_ports[0]: None} if step.out_ports else {}
            self._succeed(frame, step, outputs, 1, started, "was taken as done by a person")
        else:
            error = NodeError(f"“{step.name}” may have happened, and a person stopped the run.", category="remote")
            self._fail(frame, step, error, 1, started)

    def _say_success(
        self, frame: Frame, step: Step, outputs: dict[str, Any], attempt: int, started: float, note: str = ""
    ) -> None:
        extra = {"note": note} if note else {}
        self.emit("step.succeeded", step.id, frame.path, attempt=attempt, started=started, output=outputs, **extra)

    def _succeed(
        self, frame: Frame, step: Step, outputs: dict[str, Any], attempt: int, started: float, note: str = ""
    ) -> None:
        if frame.gone or frame.status[step.index] == DONE:
            return
        self._say_success(frame, step, outputs, attempt, started, note)
        self.progress.resolve(frame, step, outputs)

    def _fail(self, frame: Frame, step: Step, error: BaseException, attempt: int, started: float) -> None:
        if frame.gone:
            return
        explained = explain(error, step)
        if explained["code"] == "step.bug":
            log.error("a step failed in an unforeseen way", run=self.id, node=step.id, exc_info=error)
        self._say_failure(frame, step, explained, attempt, started)
        self.progress.fall(frame, step, explained)

    def _say_failure(self, frame: Frame, step: Step, error: dict[str, Any], attempt: int, started: float) -> None:
        handled = step.policy.on_error != "stop"
        self.emit("step.failed", step.id, frame.path, attempt=attempt, started=started, error=error, handled=handled)

    # --- what follows from the rules -----------------------------------------------------------------------------------------

    def _skipped(self, frame: Frame, step: Step) -> None:
        if self._topic in self._listeners and not self._replaying:
            fact = {"seq": self.seq, "at": self.engine.clock(), "kind": "step.skipped"}
            self._tell(fact | {"node": step.id, "iteration": frame.path})

    def _round_ended(self, loop: LoopRun, index: int) -> bool | dict[str, Any] | None:
        """Whether another round follows: decided once, for the clock and variables may say otherwise after a crash."""
        if self._replaying:
            return None
        frame, step = loop.frame, loop.step
        context = StepContext(self, frame, step, self.progress.inputs(frame, step), 1)
        try:
            again = loop.node.again(context, loop.value, index)
        except Exception as error:
            return explain(error, step)
        if again:
            self.emit("loop.again", step.id, frame.path, round=index + 1)
        return again

    def _loop_ended(self, loop: LoopRun, outputs: dict[str, Any] | None, error: dict[str, Any] | None) -> None:
        frame, step = loop.frame, loop.step
        if self._replaying:
            self._unsaid[step.id, frame.path] = (loop, outputs, error)
        elif outputs is not None:
            self._say_success(frame, step, outputs, 1, loop.started)
        else:
            self._say_failure(frame, step, error or {}, 1, loop.started)


@dataclass(slots=True)
class _Items:
    items: list[Any]
