"""Conversation memory: what an agent still knows of what was said before."""

from typing import Annotated, Any

from pydantic import Field

from nodes.agents import MemoryNode, Message
from nodes.base import Context, Effect, Example, Family, Label, Out, Port, PortInfo, PortType, Text
from nodes.compiling import Code, Writer
from nodes.context.remember import checked_key

_PREFIX = "conversation "
_LONGEST = 4_000  # characters of what is kept of one message


class Kept(Out):
    """How it remembers; it reaches an agent by the connection, and is never run by itself."""

    memory: Annotated[dict[str, Any], PortInfo(type=PortType.MEMORY, help="Connect it with “memory” of an agent.")]


class Memory(MemoryNode):
    """Lets an agent remember earlier conversations.

    Connect it with “memory” of an agent. The name decides who shares a memory: with `{{ conversation }}` each conversation has
    its own, with `{{ email }}` each person. It can use all that reaches the agent.
    """

    family, title, icon, effect = Family.CONTEXT, "Conversation memory", "forum", Effect.E1
    words = ("memory", "history", "remember", "chat", "conversation", "agent", "context")
    examples = (
        Example(
            "A memory for each conversation of a chat",
            {"name": "{{ conversation }}"},
            {},
            {"memory": {"name": "{{ conversation }}", "exchanges": 10}},
        ),
        Example(
            "The last three exchanges with a customer",
            {"name": "support {{ customer.email }}", "exchanges": 3},
            {},
            {"memory": {"name": "support {{ customer.email }}", "exchanges": 3}},
        ),
    )

    name: Text = Field(
        min_length=1,
        max_length=1_000,
        title="Name",
        description="The name it is kept under; `{{ … }}` makes one for each conversation, customer or whatever arrives.",
        json_schema_extra={"placeholder": "{{ conversation }}"},
    )
    exchanges: int = Field(
        default=10,
        ge=1,
        le=50,
        title="Keep at most",
        description="How many questions with their answers it remembers; the oldest go first.",
    )

    def inputs(self) -> tuple[Port, ...]:
        return ()

    async def run(self, ctx: Context) -> Kept:
        return Kept(memory=self.model_dump())

    def key(self, ctx: Context) -> str:
        return _key(ctx.render(self.name))

    async def recall(self, ctx: Context, key: str) -> list[Message]:
        return _recalled(await ctx.memory.get(key, []), self.exchanges)

    async def keep(self, ctx: Context, key: str, said: str, answered: str) -> None:
        await ctx.memory.append(key, _exchange(said, answered), self.exchanges)

    def key_as_python(self, w: Writer) -> Code:
        return w.use(_key, w.text(self.name))

    def recall_as_python(self, w: Writer, key: str) -> Code:
        return w.use(_recalled, w.world("memory.get", key, "[]"), str(self.exchanges))

    def keep_as_python(self, w: Writer, key: str, said: str, answered: str) -> Code:
        return w.world("memory.append", key, w.use(_exchange, said, answered), str(self.exchanges))

    def labels(self) -> frozenset[Label]:
        return frozenset({Label.PRIVATE})

    def describe(self) -> str:
        return self.name[:200]


def _key(name: Any) -> str:
    """The name under which a conversation is kept."""
    return f"{_PREFIX}{checked_key(name)}"[:200]


def _recalled(found: Any, exchanges: int) -> list[Message]:
    """What was said before, as a model is told of it."""
    messages: list[Message] = []
    for entry in found[-exchanges:] if isinstance(found, list) else ():
        if isinstance(entry, dict) and {"said", "answered"} <= entry.keys():
            messages.append({"role": "user", "content": str(entry["said"])})
            messages.append({"role": "assistant", "content": str(entry["answered"])})
    return messages


def _exchange(said: str, answered: str) -> dict[str, str]:
    """A question and its answer, as they are kept."""
    return {"said": said[:_LONGEST], "answered": answered[:_LONGEST]}
