"""One run being executed: takes ready steps, runs them, and says what happened as facts.

Steps that only compute (E0) run one after the other where they stand; every other step is a task. Facts that must be safe
before the run goes on (the start and the result of a step with effect E2 or more, a wait, the answer to the caller, the end)
are flushed; all others ride along with the next flush and may be repeated after a crash.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from nodes.base import Effect, NodeError
from nodes.called import keep_promise
from nodes.errors import FactoryError
from nodes.listen import CalledField
from runtime import steps
from runtime.context import Doors, StepContext, step_key
from runtime.events import Fact
from runtime.limits import LIMITS, in_words
from runtime.orders import ALARM as ALARM
from runtime.orders import Order as Order
from runtime.orders import Response as Response
from runtime.orders import owes_alarm as owes_alarm
from runtime.outcomes import explain
from runtime.plan import Step
from runtime.progress import READY, RUNNING, Answer, Frame, LoopRun, Progress
from runtime.states import RunState
from runtime.steps import DOUBT_AGAIN, DOUBT_DONE, DOUBT_STOP
from runtime.worktime import WorkTime
from storage.errors import StorageError

if TYPE_CHECKING:
    from runtime.engine import Engine

log = structlog.get_logger()

TURN = 0.01  # seconds of computing steps before other runs get their turn


class Execution:
    """A run in memory. `drive()` takes it as far as it can go: to its end, or to where only rows wait."""

    def __init__(self, engine: "Engine", order: Order) -> None:
        self.engine = engine
        self.order = order
        self.plan = order.plan
        self.id = order.run_id
        self.life = engine.lease.id
        """The life of this server that it belongs to: in the next one another server may have the run."""
        self.sandbox = order.sandbox
        self.state = RunState.ACCEPTED
        self.saved_state: RunState | None = None
        self.started_at = engine.clock()
        self.output: Any = None
        self.error: dict[str, Any] | None = None
        self.response: Response | None = None
        self.history: list[Fact] = []
        self.unsaved: list[Fact] = []
        self.unsent = b""
        """Facts that are on their way to the disk, as a JSON array. Only their text is kept: it is far less than the facts."""
        self.seq = 0
        self.saved = 0
        self.saving: list[asyncio.Future[None]] | None = None
        """While a record is on its way to the disk: who waits for it."""
        self.answers: deque[tuple[str, str, Any]] = deque()
        self.answered: asyncio.Future[Response] | None = None
        self.ended = asyncio.Event()
        self.dropped: FactoryError | None = None
        """Why this process let go of it before its end was safe."""
        self.work = WorkTime()
        self.reserved = False
        """Whether a place in the queue was promised to it."""
        self.placed = False
        """Whether it has a place among those that are worked on."""
        self.cancelled = False
        self.progress = Progress(self.plan)
        self.progress.on_skip = self._skipped
        self.progress.on_loop_end = self._loop_ended
        self.progress.on_round = self._round_ended
        self.progress.on_abandon = self._abandoned
        self._doors: Doors | None = None
        self._ahead: Callable[[], None] | None = None
        """Takes back that workers will be wanted."""
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
        fact: Fact = {"seq": self.seq + 1, "at": self.engine.clock(), "kind": kind}
        if node:
            fact["node"] = node
            fact["iteration"] = iteration
        fact.update(data)
        self.note(fact)

    def note(self, fact: Fact) -> None:
        """The same with a fact that was made as a whole, as the most frequent kind is; its `seq` must be the next."""
        self.seq = fact["seq"]
        (self.history if self.sandbox else self.unsaved).append(fact)
        if self._topic in self._listeners and fact["kind"] != "run.finished":
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
                self.start_task(frame, step, steps.begin_wait(self, frame, step, "doubt", None, data))

    # --- driving ---------------------------------------------------------------------------------------------------------

    async def drive(self) -> None:
        """Run until the end, or until only a person, a clock or another run can move it on."""
        self.state = RunState.RUNNING
        self.work.go()
        if self.plan.workers:
            self._ahead = self.engine.ahead(self)
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
                    await steps.compute(self, frame, step)
                    if time.perf_counter() > turn:
                        await asyncio.sleep(0)
                        self._look_at_time()
                        turn = time.perf_counter() + TURN
                else:
                    answer = progress.resumed.pop((step.id, frame.path), None) if progress.resumed else None
                    self.start_task(frame, step, steps.work(self, frame, step, answer=answer))
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

    def start_task(self, frame: Frame, step: Step, work: Any) -> None:
        task = self.engine.spawn(work)
        self._tasks[task] = (frame, step)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: "asyncio.Task[None]") -> None:
        _, step = self._tasks.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            if isinstance(error, StorageError):  # telling where it came from would hold the others up for nothing
                log.error("a step could not be kept", run=self.id, node=step.id, reason=error.message)
            else:
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
        steps.succeed(self, frame, step, outputs, 1, started, note)

    def cancel(self) -> None:
        """Stop as soon as the steps let go; the run ends as cancelled."""
        self.cancelled = True
        self._wake.set()

    def answer(self, node: str, iteration: str, answer: Any) -> None:
        """Something that a step waited for has come. A second answer changes nothing."""
        waiting = self.progress.waiting
        places = [(node, iteration)] if (node, iteration) in waiting else []
        asked = answer.get("approval") if isinstance(answer, dict) else None
        if places and asked is not None and waiting[places[0]]["data"].get("approval") != asked:
            return  # a question of before: the step waits for something else by now
        if not places and isinstance(answer, dict) and "run" in answer:
            # It comes for the step that started the run; another one may wait for its end.
            ended = answer["run"]
            places = [
                place for place, wait in waiting.items() if wait["wait"] == "run" and wait["data"]["run"] == ended
            ]
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
            self.start_task(frame, step, steps.work(self, frame, step, answer=Answer(waited["wait"], value)))

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
                await self.engine.taking_up.keep_hold(self)
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
            if (promised := self.plan.returns.get(self.order.trigger or "")) is not None:
                self._keep_promise(promised)
        self.emit("run.finished", state=self.state.value, output=self.output, error=self.error)
        end = (self.history or self.unsaved)[-1]
        await self.flush()
        await self._deliver_response()
        if self.progress.waiting and not self.sandbox:
            # Nobody has to decide or send anything for a run that has ended.
            self.engine.spawn(self.engine.waits.cancel(self.order.tenant, self.id))
        self.engine.let_go(self)
        self._part()
        self.ended.set()
        # Nobody is told of an end that a crash could still take back.
        self._tell(end)

    def _keep_promise(self, promised: tuple[CalledField, ...]) -> None:
        """A run that gives its caller something else than its agent says has failed."""
        try:
            keep_promise(promised, self.output)
        except NodeError as error:
            self.state, self.error = RunState.FAILED, explain(error, None)

    def _part(self) -> None:
        """Let go of what refers back to this run, so that its memory is free at once and not when the collector comes by."""
        self.progress.on_skip = self.progress.on_loop_end = self.progress.on_abandon = self.progress.on_round = None
        self._doors = None
        if self._ahead is not None:
            self._ahead()

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
            if again:
                limits = self.engine.limits
                limits.check_step(self.order.tenant, "loop_items", index + 2, f"“{step.name}” would come to")
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
            steps.say_success(self, frame, step, outputs, 1, loop.started)
        else:
            steps.say_failure(self, frame, step, error or {}, 1, loop.started)
