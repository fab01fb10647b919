"""“Ask a person first”: what people may answer, and what a step fails with when the answer is not yes."""

from collections.abc import Mapping
from typing import Any, Final

from nodes.base import NodeError

YES: Final = "Yes, do it"
NO: Final = "No"


def question(step: str, agent: str = "") -> str:
    """What people are asked about a step, or about a tool that an agent wants to use."""
    return f"May “{agent}” use “{step}”?" if agent else f"May “{step}” go ahead?"


def refusal(step: str, said: Mapping[str, Any], to_model: bool) -> NodeError:
    """The error of a step that was not allowed. A model reads it too: it is told what it may do now."""
    note = " ".join(str(said.get("note") or "").split())
    if said.get("expired"):
        code, message = "step.not_allowed_in_time", f"Nobody said yes to “{step}” in time, so it was not done."
    else:
        code, message = "step.rejected", f"{said.get('by') or 'A person'} said no to “{step}”"
        message += f": {note if note.endswith(('.', '!', '?', '…')) else f'{note}.'}" if note else "."
    if to_model:
        fix = "Do not try the same again. Find another way, or say what was not done."
    else:
        fix = "Ask them why, change what the step is given, and run the agent again."
    details = {"by": str(said.get("by") or ""), "note": note}
    return NodeError(message, code=code, fix=fix, category="input", details=details)


def must_be_yes(said: Mapping[str, Any], step: str, to_model: bool) -> None:
    """Raises NodeError unless a person said yes."""
    if said.get("approved") is not True:
        raise refusal(step, said, to_model)
