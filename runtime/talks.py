"""An agent's conversation as the facts tell it: how it began, what the model said, what its tools gave. Pure, as `progress`."""

from typing import TYPE_CHECKING, Any, Final

import orjson

from nodes.agents import Message, Spent
from runtime.events import Fact

if TYPE_CHECKING:
    from runtime.plan import Step, Tool
    from runtime.progress import Frame

LONGEST_RESULT: Final = 20_000  # characters of what a tool gave that the model is shown
LAST_TURN: Final = "You can use no more tools. Answer now with what you know, and say what you could not find out."


class Call:
    """One use of a tool that is going on."""

    __slots__ = ("args", "number", "talk", "tool")

    def __init__(self, talk: "Talk", tool: "Tool", number: int, args: dict[str, Any]) -> None:
        self.talk, self.tool, self.number, self.args = talk, tool, number, args


class Talk:
    """The conversation of one agent step."""

    __slots__ = ("calls", "frame", "key", "open", "opening", "results", "started", "step", "tokens", "turns")

    def __init__(self, frame: "Frame", step: "Step", fact: Fact) -> None:
        self.frame, self.step, self.started = frame, step, float(fact["at"])
        self.opening: list[Message] = fact["messages"]
        self.key: str = fact["memory"]
        self.turns: list[Fact] = []
        self.results: dict[int, tuple[bool, Any]] = {}
        """By the number of the call whether it failed, and what it gave."""
        self.calls = 0
        self.open = 0
        """Calls that are going on."""
        self.tokens = 0

    def take(self, turn: Fact) -> None:
        """The model has said something; what it may call is for the caller to open."""
        self.turns.append(turn)
        self.calls += len(turn["calls"])
        self.tokens += turn["tokens_in"] + turn["tokens_out"]
        for call in turn["calls"]:
            if "error" in call:
                self.results[call["n"]] = True, {"error": call["error"]}

    @property
    def said(self) -> Fact | None:
        """The model's last word, when it called no tools with it and nothing is wrong with it."""
        last = self.turns[-1] if self.turns else None
        return last if last is not None and not last["calls"] and not last.get("wrong") else None

    @property
    def repaired(self) -> bool:
        """Whether an answer was sent back already."""
        return any(turn.get("wrong") for turn in self.turns)

    def messages(self) -> list[Message]:
        """All that was said, as models are told of it."""
        found = list(self.opening)
        for turn in self.turns:
            if turn.get("last"):
                found.append({"role": "user", "content": LAST_TURN})
            spoken: Message = {"role": "assistant", "content": turn["text"]}
            if turn["calls"]:
                spoken["content"] = turn["text"] or None
                spoken["tool_calls"] = [
                    {
                        "id": f"call_{call['n']}",
                        "type": "function",
                        "function": {"name": call["tool"], "arguments": call["raw"]},
                    }
                    for call in turn["calls"]
                ]
            found.append(spoken)
            for call in turn["calls"]:
                content = as_words(self.results.get(call["n"], (True, None))[1])
                found.append({"role": "tool", "tool_call_id": f"call_{call['n']}", "content": content})
            if turn.get("wrong"):
                found.append(
                    {"role": "user", "content": f"That does not fit: {turn['wrong']} Answer again, with JSON only."}
                )
        return found

    def steps(self) -> list[dict[str, Any]]:
        """Each use of a tool, for people and for the steps that follow."""
        found = []
        for turn in self.turns:
            for call in turn["calls"]:
                failed, result = self.results.get(call["n"], (True, None))
                entry = {"turn": turn["turn"], "tool": call["name"], "args": call["args"], "result": result}
                found.append(entry | {"failed": failed})
        return found

    def spent(self) -> Spent:
        """What it took so far."""
        return Spent(
            turns=len(self.turns),
            calls=self.calls,
            tokens_in=sum(turn["tokens_in"] for turn in self.turns),
            tokens_out=sum(turn["tokens_out"] for turn in self.turns),
            cost=sum(turn["cost"] for turn in self.turns),
            model=self.turns[-1]["model"] if self.turns else "",
            sample=any(turn.get("sample") for turn in self.turns),
        )


def result_of(call: Call, frame: "Frame") -> Any:
    """What a tool gave: the values that no further step took, without the port's name where there is only one."""
    ends: dict[str, Any] = {}
    for step in frame.scope.steps:
        given = frame.outputs[step.index]
        if given and not any(port in step.out for port in given):
            ends[step.key] = given if len(given) > 1 else next(iter(given.values()))
    return next(iter(ends.values())) if len(ends) == 1 else ends or None


def as_words(value: Any) -> str:
    """A result as the model reads it, cut where it is very long."""
    if isinstance(value, str):
        text = value
    else:
        try:
            text = orjson.dumps(value).decode()
        except orjson.JSONEncodeError:
            text = str(value)
    if len(text) > LONGEST_RESULT:
        return f"{text[:LONGEST_RESULT]}… ({len(text):,} characters in all; only the beginning is shown)"
    return text
