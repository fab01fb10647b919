"""Agents in a compiled module: the function of the step, and how what a model says reaches the steps of a tool."""

from typing import Any

from nodes.agents import AgentNode
from nodes.compiling import Code, Writer, call, led, listed, literal, quoted
from runtime.compiling import talk
from runtime.compiling.steps import Fired, tries
from runtime.plan import Step, Tool


def feeds_of(tool: Tool) -> dict[str, Fired]:
    """The ports of a tool's first step with what they get of the arguments."""
    return {
        port: Fired(f"{quoted(name)} in args", f"args[{quoted(name)}]") if name else Fired("", "args")
        for port, name in tool.arguments.feeds.items()
    }


def write_agent(step: Step, w: Writer) -> None:
    """The body of an agent's function: how the conversation begins, its turns, what is kept and returned."""
    node, toolbox = step.node, step.toolbox
    assert isinstance(node, AgentNode)
    assert toolbox is not None
    node.opening_as_python(w, toolbox.memory)
    tools = [_tool(w, tool) for tool in toolbox.tools.values()]
    known = w.let("known", listed(tools)) if tools else "[]"
    w.library.need("from collections.abc import Awaitable, Callable")
    how, schema = node.choice(toolbox.model), node.answer_schema()
    settings: dict[str, Any] = {
        "max_turns": node.max_turns,
        "max_calls": node.max_calls,
        "max_total": node.max_total,
        "at_limit": node.at_limit,
        "max_tokens": how.max_tokens,
        "timeout": how.timeout,
    }
    settings |= {"schema": dict(schema)} if schema is not None else {}
    settings |= {"model": how.model} if how.model else {}
    settings |= {"temperature": how.temperature} if how.temperature is not None else {}
    given: list[Code | str] = ["messages", known]
    given += [led(f"{name}=", literal(value)) for name, value in settings.items()]
    w.let("talk", w.use(talk.Talk if schema is None else talk.FieldsTalk, *given))
    w.model(tools=True)
    with w.block("while talk.text is None:"):
        w.line(_turn(step, w))
    if toolbox.memory is not None:
        w.line(toolbox.memory.keep_as_python(w, "key", "task", "talk.text"))
    node.close_as_python(w)


def _turn(step: Step, w: Writer) -> Code:
    """One turn; what is tried again is the question, and not the conversation."""
    policy, turn = step.policy, call("talk.turn", "world.llm")
    if not policy.retries:
        return led("await ", turn)
    return led("await ", tries(step, w.kit, turn))


def _tool(w: Writer, tool: Tool) -> Code:
    about = [literal(tool.name), literal(tool.head.name), literal(tool.description)]
    return w.use(talk.Tool, *about, literal(tool.arguments.json_schema()), f"tools[{quoted(tool.name)}]")
