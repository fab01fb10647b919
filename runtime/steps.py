"""One step of a run: its attempts, its turn, its pauses, and what is said of its end."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from nodes.base import SKIP, Effect, Loop, NodeError, Pause
from runtime import agents, asking
from runtime.context import StepContext
from runtime.outcomes import explain, fired, is_big, retry_in, run_to_end, shown_input
from runtime.pace import SHORT
from runtime.patience import patiently
from runtime.plan import Step
from runtime.progress import CONSENT, DONE, Answer, Frame

if TYPE_CHECKING:
    from runtime.execution import Execution

log = structlog.get_logger()

DOUBT_AGAIN, DOUBT_DONE, DOUBT_STOP = "Do it again", "It happened: go on", "Stop the run"


async def compute(ex: "Execution", frame: Frame, step: Step) -> None:
    """A step that only computes: no task, and live no fact but its result."""
    started = ex.engine.clock()
    inputs = ex.progress.inputs(frame, step)
    if ex.sandbox:
        ex.emit("step.started", step.id, frame.path, attempt=1, input=shown_input(step, inputs))
    if step.stands_in and (known := _known(ex, step, inputs)) is not None:
        succeed(ex, frame, step, known[0], 1, started, known[1])
        return
    context = StepContext(ex, frame, step, inputs, 1)
    try:
        if is_big(inputs):
            outcome = await asyncio.to_thread(run_to_end, step.node.run(context, **inputs))
        else:
            outcome = await step.node.run(context, **inputs)
        outputs = fired(outcome)
    except Exception as error:
        pause = _retry_in(ex, step, error, 1)
        if pause is None:
            _fail(ex, frame, step, error, 1, started)
        else:
            ex.emit("step.retrying", step.id, frame.path, attempt=2, after=pause, error=explain(error, step))
            ex.start_task(frame, step, work(ex, frame, step, attempt=2, pause=pause))
        return
    succeed(ex, frame, step, outputs, 1, started)


def _known(ex: "Execution", step: Step, inputs: dict[str, Any]) -> tuple[dict[str, Any], str] | None:
    """Outputs that need no execution: a step switched off passes its input on, a pinned one gives what was pinned."""
    if step.placed.disabled and not step.is_trigger:
        outputs = {step.out_ports[0]: inputs.get(step.first_input)} if step.out_ports else {}
        return outputs, "is switched off and passed its input on"
    if ex.sandbox and step.placed.pinned is not None:
        return dict(step.placed.pinned), "used the pinned data"
    return None


async def work(
    ex: "Execution", frame: Frame, step: Step, *, attempt: int = 1, pause: float = 0.0, answer: Answer | None = None
) -> None:
    """All attempts of one step that reaches outside, waits, or loops."""
    started = ex.engine.clock()
    inputs = ex.progress.inputs(frame, step)
    if answer is None and step.stands_in and (known := _known(ex, step, inputs)) is not None:
        succeed(ex, frame, step, known[0], attempt, started, known[1])
        return
    if answer is not None and answer.wait == "doubt":
        if (choice := answer.value["choice"]) != DOUBT_AGAIN:
            _end_doubt(ex, frame, step, choice, started)
            return
        answer = None
    if step.policy.ask_first:
        question = await asking.ask(ex, frame, step, inputs, answer)
        if isinstance(question, NodeError):
            _fail(ex, frame, step, question, attempt, started)
            return
        if question is not None:
            await begin_wait(ex, frame, step, CONSENT, *question)
            return
        if answer is not None and answer.wait == CONSENT:
            answer = None
    paced = step.policy.at_most > 0 and answer is None
    if answer is not None and answer.wait == "turn":
        answer = None
    attempt = max(attempt, frame.begun.get(step.index, 0))
    while True:
        if pause:
            await asyncio.sleep(pause)
        if paced and not await _turn(ex, frame, step, attempt):
            return
        paced = step.policy.at_most > 0
        started = ex.engine.clock()
        if answer is None and (step.toolbox is None or (step.id, frame.path) not in ex.progress.talks):
            ex.emit("step.started", step.id, frame.path, attempt=attempt, input=shown_input(step, inputs))
            frame.begun[step.index] = attempt
        try:
            if step.effect >= Effect.E2:
                await ex.flush()
                if not (ex.sandbox or ex.engine.lease.held):
                    await ex.engine.lease.confirm()
            outcome = await _attempt_with_patience(ex, frame, step, inputs, attempt, answer)
            if frame.gone:
                return
            if isinstance(outcome, Pause):
                outcome = await _pause(ex, frame, step, outcome)
                if outcome is SKIP:
                    return
            if isinstance(outcome, _Items):
                ex.emit("loop.started", step.id, frame.path, items=outcome.items)
                ex.progress.open_loop(frame, step, outcome.items, started)
                return
            if isinstance(outcome, agents.Turned):
                ex.emit("agent.turn", step.id, frame.path, **outcome.data)
                await ex.flush()
                if not frame.gone:
                    ex.progress.take_turn(frame, step, outcome.data)
                return
            outputs = fired(outcome)
        except Exception as error:
            if (wait := _retry_in(ex, step, error, attempt)) is None:
                _fail(ex, frame, step, error, attempt, started)
                return
            attempt += 1
            ex.emit("step.retrying", step.id, frame.path, attempt=attempt, after=wait, error=explain(error, step))
            pause = wait
            continue
        if step.effect >= Effect.E2:
            say_success(ex, frame, step, outputs, attempt, started)
            await ex.flush()
            ex.progress.resolve(frame, step, outputs)
        else:
            succeed(ex, frame, step, outputs, attempt, started)
        return


async def _turn(ex: "Execution", frame: Frame, step: Step, attempt: int) -> bool:
    """Wait for the moment at which the step may start; False: that is so far away that the wait is rows only."""
    policy, order, now, pace = step.policy, ex.order, ex.engine.clock(), ex.engine.pace
    if ex.sandbox:
        if (delay := pace.pretend((ex.id, step.id), policy.at_most, policy.per, now)) > 0:
            sentence = f"would wait {delay:,.0f} seconds for its turn; the sandbox goes on at once"
            ex.emit("step.simulated", step.id, frame.path, sentence=sentence)
        return True
    start = f"{ex.id} {frame.path} {attempt}"
    moment = await pace.turn(
        order.tenant, order.blueprint_id, step.id, start, at_most=policy.at_most, per=policy.per, now=now
    )
    if frame.gone:
        return False
    if (delay := moment - ex.engine.clock()) <= 0:
        return True
    if delay <= SHORT:
        await asyncio.sleep(delay)
        return not frame.gone
    if attempt > 1:
        frame.begun[step.index] = attempt
    await begin_wait(ex, frame, step, "turn", moment, {})
    return False


async def _attempt_with_patience(
    ex: "Execution", frame: Frame, step: Step, inputs: dict[str, Any], attempt: int, answer: Answer | None
) -> Any:
    """One attempt; when the database is away it waits for it, as the journal does: what a step keeps in the house counts once."""
    if ex.sandbox or step.effect > Effect.E2:
        return await _attempt(ex, frame, step, inputs, attempt, answer)
    attempted = partial(_attempt, ex, frame, step, inputs, attempt, answer)
    return await patiently(attempted, "a step waits for the database", run=ex.id, node=step.id)


async def _attempt(
    ex: "Execution", frame: Frame, step: Step, inputs: dict[str, Any], attempt: int, answer: Answer | None
) -> Any:
    context = StepContext(ex, frame, step, inputs, attempt)
    node = step.node
    if isinstance(node, Loop):
        items = node.items_of(context, inputs.get(step.first_input))
        ex.engine.limits.check_step(ex.order.tenant, "loop_items", len(items), f"“{step.name}” was given")
        return _Items(items)
    if ex.sandbox and step.effect >= Effect.E3 and step.id not in ex.order.allow:
        simulated = await node.simulate(context, **inputs)
        ex.emit("step.simulated", step.id, frame.path, sentence=simulated.sentence)
        return simulated.out
    patience = _patience(ex, step)
    try:
        async with asyncio.timeout(patience):
            if step.toolbox is not None:
                return await agents.advance(ex, frame, step, context)
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


def _patience(ex: "Execution", step: Step) -> float:
    lowered = ex.engine.limits.lowered(ex.order.tenant, "step_seconds")
    return step.policy.timeout if lowered is None else min(step.policy.timeout, lowered)


def _retry_in(ex: "Execution", step: Step, error: Exception, attempt: int) -> float | None:
    most = ex.engine.limits.lowered(ex.order.tenant, "retries")
    return None if most is not None and attempt > most else retry_in(step, error, attempt)


async def _pause(ex: "Execution", frame: Frame, step: Step, pause: Pause) -> Any:
    """Wait as rows; in the sandbox pretend at once what would come of it, and go on with that."""
    if not ex.sandbox:
        await begin_wait(ex, frame, step, pause.kind, pause.until, dict(pause.data))
        return SKIP
    answer, sentence = await ex.engine.waits.pretend(ex, step, pause)
    if sentence:
        ex.emit("step.simulated", step.id, frame.path, sentence=sentence)
    inputs = ex.progress.inputs(frame, step)
    return await step.node.resume(StepContext(ex, frame, step, inputs, 1), answer, **inputs)


async def begin_wait(
    ex: "Execution", frame: Frame, step: Step, kind: str, until: float | None, data: dict[str, Any]
) -> None:
    await _prepare(ex, frame, step, kind, until, data)
    ex.emit("step.waiting", step.id, frame.path, wait=kind, until=until, data=data, worked=ex.work.so_far())
    ex.progress.wait(frame, step, {"wait": kind, "until": until, "data": data})
    await ex.flush()
    begin = partial(ex.engine.waits.begin, ex, step, frame.path, kind, until, data)
    await patiently(begin, "a step waits for the database", run=ex.id, node=step.id)


async def _prepare(
    ex: "Execution", frame: Frame, step: Step, kind: str, until: float | None, data: dict[str, Any]
) -> None:
    """What has to be there before a wait; when the database is away it waits for it, where doing it twice counts once."""
    prepare = partial(ex.engine.waits.prepare, ex, step, frame.path, kind, until, data)
    if "address" in data:
        await prepare()
    else:
        await patiently(prepare, "a step waits for the database", run=ex.id, node=step.id)


def _end_doubt(ex: "Execution", frame: Frame, step: Step, choice: str, started: float) -> None:
    if choice == DOUBT_DONE:
        outputs = {step.out_ports[0]: None} if step.out_ports else {}
        succeed(ex, frame, step, outputs, 1, started, "was taken as done by a person")
    else:
        error = NodeError(f"“{step.name}” may have happened, and a person stopped the run.", category="remote")
        _fail(ex, frame, step, error, 1, started)


def say_success(
    ex: "Execution", frame: Frame, step: Step, outputs: dict[str, Any], attempt: int, started: float, note: str = ""
) -> None:
    fact = {
        "seq": ex.seq + 1,
        "at": ex.engine.clock(),
        "kind": "step.succeeded",
        "node": step.id,
        "iteration": frame.path,
        "attempt": attempt,
        "started": started,
        "output": outputs,
    }
    if note:
        fact["note"] = note
    ex.note(fact)


def succeed(
    ex: "Execution", frame: Frame, step: Step, outputs: dict[str, Any], attempt: int, started: float, note: str = ""
) -> None:
    if frame.gone or frame.status[step.index] == DONE:
        return
    say_success(ex, frame, step, outputs, attempt, started, note)
    ex.progress.resolve(frame, step, outputs)


def _fail(ex: "Execution", frame: Frame, step: Step, error: BaseException, attempt: int, started: float) -> None:
    if frame.gone:
        return
    explained = explain(error, step)
    if explained["code"] == "step.bug":
        log.error("a step failed in an unforeseen way", run=ex.id, node=step.id, exc_info=error)
    say_failure(ex, frame, step, explained, attempt, started)
    ex.progress.fall(frame, step, explained)


def say_failure(ex: "Execution", frame: Frame, step: Step, error: dict[str, Any], attempt: int, started: float) -> None:
    handled = step.policy.on_error != "stop" or frame.call is not None
    ex.emit("step.failed", step.id, frame.path, attempt=attempt, started=started, error=error, handled=handled)


@dataclass(slots=True)
class _Items:
    items: list[Any]
