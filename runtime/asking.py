"""“Ask a person first”: what people are shown before a step has its effect, and what follows from what they say.

A yes counts for all attempts of the step in this run, also after a crash; a new run of the same agent asks anew.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from nodes.base import Effect, NodeError
from nodes.check.written import Written, written
from nodes.consent import NO, YES, question, refusal
from nodes.filling import fill
from nodes.texts import as_text
from runtime.context import StepContext
from runtime.outcomes import shown_input
from runtime.plan import Step
from runtime.progress import CONSENT, Answer, Frame

if TYPE_CHECKING:
    from runtime.execution import Execution

_LONGEST: Final = 20_000  # characters of one setting that people are shown
_PATIENCE: Final = 5.0  # seconds that a step may take to say what it would do


class Question(NamedTuple):
    """What a person is asked, and until when."""

    until: float | None
    data: dict[str, Any]


async def ask(
    ex: "Execution", frame: Frame, step: Step, inputs: dict[str, Any], answer: Answer | None
) -> Question | NodeError | None:
    """What a person has to be asked before the step may begin; None: nothing more. An error: they said no, or nothing."""
    place = step.id, frame.path
    if place in ex.progress.allowed:
        return None
    if answer is not None and answer.wait == CONSENT:
        if answer.value.get("approved") is True:
            ex.progress.allowed.add(place)
            return None
        return _refusal(frame, step, answer.value)
    title = _title(frame, step)
    if ex.sandbox:
        said = ex.order.pretend.get(step.id, {})
        yes = bool(said.get("approved", True))
        sentence = f"would ask a person first: “{title}”; the sandbox says {'yes' if yes else 'no'}"
        ex.emit("step.simulated", step.id, frame.path, sentence=sentence)
        if not yes:
            return _refusal(frame, step, {"by": "you, in the sandbox"} | said)
        ex.progress.allowed.add(place)
        return None
    hours = step.policy.ask_hours
    until = ex.engine.clock() + hours * 3600 if hours else None
    return Question(until, {"title": title, "details": await _details(ex, frame, step, inputs), "choices": [YES, NO]})


def _title(frame: Frame, step: Step) -> str:
    call = frame.call
    return question(step.name, call.talk.step.name if call is not None and call.tool.head is step else "")


def _refusal(frame: Frame, step: Step, said: dict[str, Any]) -> NodeError:
    return refusal(step.name, said, frame.inside(lambda other: other.call is not None))


async def _details(ex: "Execution", frame: Frame, step: Step, inputs: dict[str, Any]) -> dict[str, Any]:
    """All that a person needs to decide: what would happen, the settings as they are filled in, and what came in."""
    found: dict[str, Any] = {}
    context = _Quiet(ex, frame, step, inputs, 1)
    if step.effect >= Effect.E3:
        try:
            async with asyncio.timeout(_PATIENCE):
                sentence = (await step.node.simulate(context, **inputs)).sentence
            found["What it would do"] = sentence[:1].upper() + sentence[1:]
        except Exception:  # noqa: S110 - what is wrong with it is said when it runs; the rest can be shown all the same
            pass
    if settings := {text.label: _filled(context, text) for text in written(step.node)}:
        found["Settings"] = settings
    around: Frame | None = frame
    while around is not None and around.call is None:
        around = around.parent
    if around is not None and around.call is not None:
        found["What the agent asks for"] = around.call.args
    found["What came in"] = shown_input(step, inputs)
    return found


def _filled(context: StepContext, text: Written) -> Any:
    """A setting as it is with what came in; one that cannot be filled in as it was written."""
    if text.format == "secret":
        return f"the secret “{text.text}”"
    value: Any = text.text
    try:
        if text.format == "template":
            value = as_text(context.render(text.text))
        elif text.format == "json":
            value = fill(context, text.text)
    except Exception:
        value = text.text
    return value[:_LONGEST] if isinstance(value, str) else value


class _Quiet(StepContext):
    """The world of a step that is only asked what it would do: it says nothing and answers nobody."""

    __slots__ = ()

    def log(self, message: str, **data: Any) -> None:
        return

    def respond(self, **answer: Any) -> None:
        return
