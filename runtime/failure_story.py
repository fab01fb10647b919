"""What happened in a failed run, in sentences: what started it, what was done, what failed, and what was left undone."""

from collections.abc import Iterable

from nodes.base import Effect
from runtime.plan import Plan
from runtime.views import RunView, StepView

_MOST = 4


def told(view: RunView, plan: Plan | None) -> tuple[str, ...]:
    """The sentences, in the order in which it happened. Without a plan only the error is known."""
    if plan is None or not view.steps:
        return (_unknown(view),)
    said = [_began(view, plan), *_done(view, plan), *_went_on(view), _failed(view, plan), *_undone(view, plan)]
    return tuple(sentence for sentence in said if sentence)


def failed_view(view: RunView) -> StepView | None:
    """The step for which the run failed; of several the one that the run's error names."""
    node = ((view.info.error or {}).get("where") or {}).get("node")
    failed = [step for step in view.steps if step.state == "failed" and not _handled(step)]
    inner = [step for step in failed if step.node == node]
    found = inner or failed
    return found[-1] if found else None


def _began(view: RunView, plan: Plan) -> str:
    trigger = plan.steps.get(view.info.trigger)
    version = f"version {view.info.version}" if view.info.version is not None else "the draft"
    return f"“{trigger.name}” started a run of {version}." if trigger else f"A run of {version} was started."


def _done(view: RunView, plan: Plan) -> Iterable[str]:
    ended = [step for step in view.steps if step.state == "succeeded" and not step.iteration]
    worked = [step for step in ended if step.node != view.info.trigger]
    if worked:
        yield f"{_listed(step.name for step in worked)} did what {_they(len(worked), 'it was', 'they were')} set up to do."
    outside = [step for step in worked if step.node in plan.steps and plan.steps[step.node].effect >= Effect.E3]
    if outside:
        yield f"What {_listed(step.name for step in outside)} did outside is done, and was not taken back."


def _went_on(view: RunView) -> Iterable[str]:
    gone_on = [step for step in view.steps if step.state == "failed" and _handled(step)]
    if gone_on:
        names = dict.fromkeys(step.name for step in gone_on)
        yield f"{_listed(names)} failed on the way, and the run went on, as set up."


def _failed(view: RunView, plan: Plan) -> str:
    step, message = failed_view(view), str((view.info.error or {}).get("message") or "It failed.")
    if step is None:
        return f"Then it failed: {message}"
    tries = f" after {step.attempt} tries" if step.attempt > 1 else ""
    return f"Then “{step.name}” failed{tries}: {message}"


def _undone(view: RunView, plan: Plan) -> Iterable[str]:
    decided = {step.node for step in view.steps if step.state in ("succeeded", "failed", "skipped")}
    left = [step.name for step in plan.root.steps if step.id not in decided and not step.is_trigger]
    if left:
        yield f"So {_listed(left)} did not run."


def _unknown(view: RunView) -> str:
    return str((view.info.error or {}).get("message") or "It failed before its first step.")


def _handled(step: StepView) -> bool:
    return step.note == "failed, and the run went on"


def _they(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def _listed(names: Iterable[str]) -> str:
    quoted = [f"“{name}”" for name in names]
    if len(quoted) > _MOST + 1:
        quoted = [*quoted[:_MOST], f"{len(quoted) - _MOST} more steps"]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
