"""What came of a step: which ports fire, whether to try again, and how a failure is told."""

import random
from typing import Any

from nodes.base import SKIP, NodeError, Out
from nodes.blueprint import Policy
from nodes.categories import Category
from nodes.errors import FactoryError
from runtime.plan import Step

BIG_LIST = 500  # members; longer ones are worked on in a thread


def fired(outcome: Any) -> dict[str, Any]:
    """The ports that fire, with their values."""
    if isinstance(outcome, Out):
        given = outcome.__dict__
    elif isinstance(outcome, dict):
        given = outcome
    else:
        raise NodeError(f"The step gave {type(outcome).__name__}, which is not its outputs.", category="bug")
    for value in given.values():
        if value is SKIP:
            return {port: value for port, value in given.items() if value is not SKIP}
    return given.copy()


def retry_in(step: Step, error: Exception, attempt: int) -> float | None:
    """Seconds to wait before the next attempt, or None to give up: exponential, with jitter of up to one half."""
    policy = step.policy
    if attempt > policy.retries or not helps_to_repeat(error, policy):
        return None
    after = error.after if isinstance(error, NodeError) else None
    if after is not None:
        return min(after, policy.max_delay)
    pause: float = min(policy.max_delay, policy.first_delay * 2 ** (attempt - 1))
    return pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards nothing


def helps_to_repeat(error: BaseException, policy: Policy) -> bool:
    """Whether this failure is one to try again after: of a chosen category, or, with none chosen, if the error says so."""
    if policy.retry_on:
        return category_of(error) in policy.retry_on
    return isinstance(error, NodeError) and error.retry


def category_of(error: BaseException) -> Category:
    """What kind of trouble a failure is."""
    if isinstance(error, FactoryError):
        return error.category
    return Category.WORKER if isinstance(error, MemoryError | OSError) else Category.BUG


def shown_input(step: Step, inputs: dict[str, Any]) -> Any:
    """What a screen shows as the input of a step: the value itself, or the ports by name when there are several."""
    if step.is_trigger:
        return inputs.get("event")
    return inputs.get(step.first_input) if len(inputs) <= 1 else inputs


def explain(error: BaseException, step: Step | None) -> dict[str, Any]:
    """Any failure as the record that people and error ports get; what we did not foresee comes without a traceback."""
    where: dict[str, Any] = {"node": step.id} if step else {}
    if isinstance(error, FactoryError):
        found = error.as_dict()
        found["where"] = where | found["where"]
        found["category"] = error.category.value
        if isinstance(error, NodeError) and error.details:
            found["details"] = error.details
        return found
    name = f"“{step.name}”" if step else "The run"
    return {
        "code": "step.bug",
        "message": f"{name} failed in a way that was not foreseen ({type(error).__name__}).",
        "fix": "Try it in the sandbox with the same input. If it fails again, the server's log has the details.",
        "where": where,
        "category": category_of(error).value,
    }


def is_big(inputs: dict[str, Any]) -> bool:
    """Whether lists that long came in that working on them would hold up other runs."""
    for value in inputs.values():
        kind = type(value)
        if kind is list:
            if len(value) > BIG_LIST:
                return True
        elif kind is dict:
            for part in value.values():
                if type(part) is list and len(part) > BIG_LIST:
                    return True
    return False


def run_to_end(coroutine: Any) -> Any:
    """Run a step that never waits for anything, in a thread, so that a long list does not hold up other runs."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise NodeError("A step that only computes must not wait for anything.", category="bug")
