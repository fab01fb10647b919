"""An agent's conversation in a compiled module: the turns, limits and words of a run. Copied into modules that have agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from nodes.answers import read_number
from nodes.base import LlmReply, NodeError
from nodes.check.arguments import MOST_BYTES
from nodes.compiling.kit import explained
from nodes.formula.values import a_kind
from runtime.agents import MOST_AT_ONCE, _as_name
from runtime.llm import fit
from runtime.llm_errors import cut_off, misfit
from runtime.talks import LAST_TURN, as_words


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the model is told of it, and what it does; `title` is what people call it."""

    name: str
    title: str
    description: str
    parameters: Mapping[str, Any]
    use: Callable[[dict[str, Any]], Awaitable[Any]]


class Talk:
    """A conversation that goes on in turns until `text` is the model's last word."""

    def __init__(
        self,
        messages: list[dict[str, Any]],
        tools: Sequence[Tool],
        *,
        max_turns: int,
        max_calls: int,
        max_total: int,
        at_limit: str,
        **how: Any,
    ) -> None:
        self.messages = messages
        self.tools = {tool.name: tool for tool in tools}
        self.max_turns, self.max_calls, self.max_total, self.at_limit = max_turns, max_calls, max_total, at_limit
        self.how = how
        self.text: str | None = None
        self.used: list[dict[str, Any]] = []
        """Each use of a tool."""
        self.usage: dict[str, Any] = {"model": "", "turns": 0, "calls": 0, "tokens_in": 0, "tokens_out": 0, "cost": 0}
        self.usage["sample"] = False
        self.repaired = False

    async def turn(self, llm: Any) -> None:
        """Ask the model once: it answers, or says which tools are to be used."""
        usage = self.usage
        limit = self._limit()
        if limit is not None and self.at_limit == "stop" and usage["turns"]:
            raise limit
        # The last turn that is allowed is for the answer.
        last = limit is not None or (self.at_limit == "answer" and usage["turns"] + 1 >= self.max_turns)
        last = last and bool(self.tools)
        told = [{"role": "user", "content": LAST_TURN}] if last else []
        known = [] if last else list(self.tools.values())
        tools = [{"name": one.name, "description": one.description, "parameters": one.parameters} for one in known]
        reply = await llm.ask([*self.messages, *told], tools=tools, **self.how)
        wanted = [] if last else self._wanted(reply)
        wrong = "" if wanted else self._wrong(reply)
        usage["turns"] += 1
        usage["calls"] += len(wanted)
        for name, amount in (("tokens_in", reply.tokens_in), ("tokens_out", reply.tokens_out), ("cost", reply.cost)):
            usage[name] += amount
        usage |= {"model": reply.model, "sample": usage["sample"] or reply.canned}
        self.messages += [*told, {"role": "assistant", "content": reply.text}]
        if wrong:
            self.repaired = True
            said = f"That does not fit: {wrong} Answer again, with JSON only."
            self.messages.append({"role": "user", "content": said})
        elif not wanted:
            self.text = reply.text
        else:
            await self._use(reply, wanted)

    def _limit(self) -> NodeError | None:
        usage = self.usage
        for code, reached, most, what in (
            ("limit.turns", usage["turns"], self.max_turns, "turns"),
            ("limit.calls", usage["calls"], self.max_calls, "uses of tools"),
            ("limit.tokens", usage["tokens_in"] + usage["tokens_out"], self.max_total, "tokens"),
        ):
            if reached >= most:
                return NodeError(
                    f"The agent had no answer after {reached:,} {what}; {most:,} are allowed.",
                    category="limit",
                    code=code,
                    fix="Raise the limit in the agent's settings, give it less to do, or let it answer with what it knows by then.",
                )
        return None

    def _wrong(self, reply: LlmReply) -> str:
        """What is wrong with an answer, which may be given a second time."""
        if not reply.text.strip():
            raise NodeError("The model gave no answer.", category="model", retry=True, fix="Try again.")
        return ""

    def _wanted(self, reply: LlmReply) -> list[dict[str, Any]]:
        """The uses of tools that the model asks for, with their arguments read."""
        found = []
        for number, call in enumerate(reply.calls[: 2 * MOST_AT_ONCE]):
            n = self.usage["calls"] + number
            tool = self.tools.get(call.name)
            fits = call.arguments is not None and 0 < len(call.raw) <= MOST_BYTES
            entry = {"n": n, "tool": tool, "name": tool.name if tool is not None else _as_name(call.name), "error": ""}
            entry |= {"title": tool.title if tool is not None else call.name[:120], "raw": call.raw if fits else "{}"}
            entry["args"] = dict(call.arguments or {}) if fits else {}
            if len(call.raw) > MOST_BYTES:
                entry["error"] = f"The arguments are longer than {MOST_BYTES:,} characters."
            elif tool is None:
                known = ", ".join(f"`{name}`" for name in self.tools) or "none"
                entry["error"] = f"There is no tool `{call.name[:60]}`; there are: {known}."
            elif call.arguments is None:
                entry["error"] = "The arguments are not a JSON object."
            elif n >= self.max_calls or number >= MOST_AT_ONCE:
                entry["error"] = "This was not done: no more tools may be used at once."
            else:
                args, entry["error"] = read_arguments(tool.parameters, call.arguments)
                entry["args"] = dict(call.arguments) if entry["error"] else args
            found.append(entry)
        return found

    async def _use(self, reply: LlmReply, wanted: list[dict[str, Any]]) -> None:
        """Use the tools, and tell the model what they gave, or why not."""
        spoken = self.messages[-1]
        spoken["content"] = reply.text or None
        spoken["tool_calls"] = [
            {"id": f"call_{one['n']}", "type": "function", "function": {"name": one["name"], "arguments": one["raw"]}}
            for one in wanted
        ]
        for one in wanted:
            result, failed = {"error": one["error"]}, bool(one["error"])
            if not failed:
                try:
                    result = await one["tool"].use(one["args"])
                except Exception as error:
                    told = explained(error, "", one["title"])
                    fix = told["fix"]
                    result, failed = {"error": f"{told['message']} {fix}" if fix else str(told["message"])}, True
            entry = {"turn": self.usage["turns"], "tool": one["title"], "args": one["args"], "result": result}
            self.used.append(entry | {"failed": failed})
            content = as_words(result)
            self.messages.append({"role": "tool", "tool_call_id": f"call_{one['n']}", "content": content})


class FieldsTalk(Talk):
    """A conversation whose last word is a record with the fields asked for, in `data`."""

    data: Any = None

    def _wrong(self, reply: LlmReply) -> str:
        self.data, wrong = fit(reply.text, self.how["schema"])
        if wrong and reply.finish_reason == "length":
            raise cut_off(self.how["max_tokens"])
        if wrong and self.repaired:
            raise misfit(wrong)
        return wrong


def read_arguments(parameters: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A tool's arguments as values, and what is wrong with them as a sentence for the model."""
    known = parameters["properties"]
    listed = ", ".join(f"`{name}`" for name in known) or "none"
    for name in given:
        if name not in known:
            return {}, f"There is no argument `{str(name)[:60]}`; there are: {listed}."
    found: dict[str, Any] = {}
    for name, about in known.items():
        value = given.get(name)
        if value is None:
            if name in parameters["required"]:
                return {}, f"The argument `{name}` is missing."
            continue
        if wrong := _wrong_kind(about["type"], value):
            return {}, f"The argument `{name}` {wrong}."
        found[name] = read_number(value) if about["type"] == "number" else value
    try:
        size = len(orjson.dumps(found))
    except orjson.JSONEncodeError as error:
        return {}, f"The arguments cannot be kept: {error}."
    if size > MOST_BYTES:
        return {}, f"The arguments are longer than {MOST_BYTES:,} characters."
    return found, ""


def _wrong_kind(kind: str, value: Any) -> str:
    if kind == "number":
        return "" if read_number(value) is not None else "must be a number"
    wanted: dict[str, Any] = {"boolean": False, "array": [], "object": {}}
    if kind in wanted:
        empty = wanted[kind]
        return "" if isinstance(value, type(empty)) else f"must be {a_kind(empty)}, not {a_kind(value)}"
    return f"must be a text, not {a_kind(value)}" if isinstance(value, list | dict) else ""
