"""An agent's turns: asks the model, reads which tools it calls, and ends with what it said last.

Between two turns the step rests while the engine runs the tools. What the model said is a fact before a tool begins, so
after a crash the conversation goes on where it was, and no answer is paid for twice.
"""

from typing import TYPE_CHECKING, Any, Final

from nodes.agents import AgentNode, Ending, ModelChoice
from nodes.base import LlmReply, NodeError
from nodes.check.arguments import MOST_BYTES
from runtime.llm import LlmDoor, fit
from runtime.llm_errors import cut_off, misfit
from runtime.outcomes import fired
from runtime.talks import LAST_TURN, Talk

if TYPE_CHECKING:
    from runtime.context import StepContext
    from runtime.execution import Execution
    from runtime.plan import Step, Toolbox
    from runtime.progress import Frame

MOST_AT_ONCE: Final = 20
"""Tools that the model may call in one turn."""
_LIMIT_FIX: Final = (
    "Raise the limit in the agent's settings, give it less to do, or let it answer with what it knows by then."
)


class Turned:
    """The model has said something that is to become a fact."""

    __slots__ = ("data",)

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data


async def advance(ex: "Execution", frame: "Frame", step: "Step", context: "StepContext") -> dict[str, Any] | Turned:
    """The next turn of an agent, or its outputs when the model has said its last word. Raises NodeError."""
    node, toolbox = step.node, step.toolbox
    assert isinstance(node, AgentNode)
    assert toolbox is not None
    talk = ex.progress.talks.get((step.id, frame.path))
    if talk is None:
        opening = await node.opening(context, toolbox.memory)
        ex.emit("agent.started", step.id, frame.path, messages=opening.messages, memory=opening.memory_key)
        fact = {"at": ex.engine.clock(), "messages": opening.messages, "memory": opening.memory_key}
        talk = ex.progress.open_talk(frame, step, fact)
    if (said := talk.said) is not None:
        return await _close(context, node, toolbox, talk, said["text"])
    how, schema = node.choice(toolbox.model), node.answer_schema()
    limit = _limit(node, talk)
    if limit is not None and node.at_limit == "stop" and talk.turns:
        raise limit
    # The last turn that is allowed is for the answer.
    last = limit is not None or (node.at_limit == "answer" and len(talk.turns) + 1 >= node.max_turns)
    last = last and bool(toolbox.tools)
    reply = await _ask(ex, context, talk, how, [] if last else _told(toolbox), schema, last=last)
    return Turned(_turn(talk, toolbox, node, reply, schema, how, last=last))


def _limit(node: AgentNode, talk: Talk) -> NodeError | None:
    """The limit that the conversation has reached."""
    for code, reached, most, what in (
        ("limit.turns", len(talk.turns), node.max_turns, "turns"),
        ("limit.calls", talk.calls, node.max_calls, "uses of tools"),
        ("limit.tokens", talk.tokens, node.max_total, "tokens"),
    ):
        if reached >= most:
            return NodeError(
                f"The agent had no answer after {reached:,} {what}; {most:,} are allowed.",
                category="limit",
                code=code,
                fix=_LIMIT_FIX,
            )
    return None


def _told(toolbox: "Toolbox") -> list[dict[str, Any]]:
    return [tool.arguments.told(tool.name, tool.description) for tool in toolbox.tools.values()]


async def _ask(
    ex: "Execution",
    context: "StepContext",
    talk: Talk,
    how: ModelChoice,
    tools: list[dict[str, Any]],
    schema: Any,
    *,
    last: bool,
) -> LlmReply:
    if isinstance(context.llm, LlmDoor):
        # What was spent before a wait or a crash counts too.
        context.llm.spent = max(context.llm.spent, ex.progress.tokens)
    messages = talk.messages()
    if last:
        messages.append({"role": "user", "content": LAST_TURN})
    return await context.llm.ask(
        messages,
        model=how.model,
        temperature=how.temperature,
        max_tokens=how.max_tokens,
        schema=schema,
        tools=tools,
        timeout=how.timeout,
    )


def _turn(
    talk: Talk, toolbox: "Toolbox", node: AgentNode, reply: LlmReply, schema: Any, how: ModelChoice, *, last: bool
) -> dict[str, Any]:
    """What is to be kept of a turn."""
    data: dict[str, Any] = {
        "turn": len(talk.turns) + 1,
        "text": reply.text,
        "calls": [] if last else _calls(talk, toolbox, node, reply),
        "model": reply.model,
        "tokens_in": reply.tokens_in,
        "tokens_out": reply.tokens_out,
        "cost": reply.cost,
    }
    if reply.canned:
        data["sample"] = True
    if last:
        data["last"] = True
    if data["calls"]:
        return data
    if schema is not None:
        _, wrong = fit(reply.text, schema)
        if wrong and reply.finish_reason == "length":
            raise cut_off(how.max_tokens)
        if wrong and talk.repaired:
            raise misfit(wrong)
        if wrong:
            data["wrong"] = wrong
    elif not reply.text.strip():
        raise NodeError("The model gave no answer.", category="model", retry=True, fix="Try again.")
    return data


def _calls(talk: Talk, toolbox: "Toolbox", node: AgentNode, reply: LlmReply) -> list[dict[str, Any]]:
    """The calls with their arguments read; what is wrong with one is said to the model in its place."""
    found = []
    for number, call in enumerate(reply.calls[: 2 * MOST_AT_ONCE]):
        n = talk.calls + number
        tool = toolbox.tools.get(call.name)
        name = tool.head.name if tool is not None else call.name[:120]
        # What is said again to the model in the next turn must be as providers take it.
        fits = call.arguments is not None and 0 < len(call.raw) <= MOST_BYTES
        entry: dict[str, Any] = {"n": n, "tool": tool.name if tool is not None else _as_name(call.name), "name": name}
        entry |= {"args": dict(call.arguments or {}) if fits else {}, "raw": call.raw if fits else "{}"}
        if len(call.raw) > MOST_BYTES:
            entry["error"] = f"The arguments are longer than {MOST_BYTES:,} characters."
        elif tool is None:
            known = ", ".join(f"`{name}`" for name in toolbox.tools) or "none"
            entry["error"] = f"There is no tool `{call.name[:60]}`; there are: {known}."
        elif call.arguments is None:
            entry["error"] = "The arguments are not a JSON object."
        elif n >= node.max_calls or number >= MOST_AT_ONCE:
            entry["error"] = "This was not done: no more tools may be used at once."
        else:
            entry["args"], wrong = tool.arguments.read(call.arguments)
            if wrong:
                entry |= {"args": dict(call.arguments), "error": wrong}
        found.append(entry)
    return found


def _as_name(said: str) -> str:
    return (
        "".join(sign if sign.isascii() and (sign.isalnum() or sign in "_-") else "_" for sign in said[:64]) or "unknown"
    )


async def _close(context: "StepContext", node: AgentNode, toolbox: "Toolbox", talk: Talk, text: str) -> dict[str, Any]:
    schema = node.answer_schema()
    data = fit(text, schema)[0] if schema is not None else None
    if toolbox.memory is not None and talk.key:
        await toolbox.memory.keep(context, talk.key, str(talk.opening[-1]["content"]), text)
    if talk.turns[-1].get("sample"):
        context.log("No model is set up, so these are sample answers.")
    return fired(node.close(Ending(text, data, talk.steps(), talk.spent())))
