"""Agents as the engine knows them: a node that asks a model, and the nodes that hang on its sub-ports.

An agent's model and memory are nodes that are never run by themselves: the agent asks them how it is to ask, and what it is
to remember. Its tools are ordinary nodes whose `tool` port leads to the agent; the engine runs one whenever the model calls it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from nodes.base import Context, Family, Node, Port, PortType
from nodes.blueprint import Edge

if TYPE_CHECKING:
    from nodes.compiling import CannotCompile, Code, Writer

TOOL_PORT: Final = Port(
    "tool", PortType.TOOL, "tool", "Connect it with “tools” of an agent, which may then use this step."
)
SUB_TYPES: Final = frozenset({PortType.MODEL, PortType.TOOL, PortType.MEMORY})

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """Which model an agent asks, and how. Empty or None: as in Settings, as the model does by itself."""

    model: str = ""
    temperature: float | None = None
    max_tokens: int = 2048
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Opening:
    """How an agent's conversation begins, and under which name it is remembered."""

    messages: list[Message]
    memory_key: str = ""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a conversation took."""

    turns: int = 0
    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    model: str = ""
    sample: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a conversation: the model's last words, its data if fields were asked for, and what was done on the way."""

    text: str
    data: Any = None
    steps: Sequence[Mapping[str, Any]] = ()
    spent: Spent = field(default_factory=Spent)


class ModelNode(Node):
    """Base of a node that says which model an agent asks."""

    def choice(self) -> ModelChoice:
        """The model and how it is asked."""
        raise NotImplementedError


class MemoryNode(Node):
    """Base of a node that remembers an agent's conversations. `ctx` is always the agent's."""

    def key(self, ctx: Context) -> str:
        """The name under which this conversation is kept."""
        raise NotImplementedError

    async def recall(self, ctx: Context, key: str) -> list[Message]:
        """What was said before, oldest first."""
        raise NotImplementedError

    async def keep(self, ctx: Context, key: str, said: str, answered: str) -> None:
        """Remember one exchange more; a repetition by the same step changes nothing."""
        raise NotImplementedError

    def key_as_python(self, w: "Writer") -> "Code":
        """`key` as Python, in the function of the agent; for `factory compile`."""
        raise _no_python(self)

    def recall_as_python(self, w: "Writer", key: str) -> "Code":
        """`recall` as Python; `key` is a variable."""
        raise _no_python(self)

    def keep_as_python(self, w: "Writer", key: str, said: str, answered: str) -> "Code":
        """`keep` as Python; all are variables."""
        raise _no_python(self)


class AgentNode(Node):
    """Base of a node that asks a model in turns, between which the engine runs the tools that the model calls."""

    if TYPE_CHECKING:  # as settings they belong to the node types, each at its place in the form
        max_turns: int
        max_calls: int
        max_total: int
        at_limit: Literal["answer", "stop"]

    async def opening(self, ctx: Context, memory: MemoryNode | None) -> Opening:
        """How the conversation begins."""
        raise NotImplementedError

    def answer_schema(self) -> Mapping[str, Any] | None:
        """What the last answer must fit; None for a text."""
        return None

    def choice(self, model: ModelNode | None) -> ModelChoice:
        """How the model is asked."""
        return model.choice() if model is not None else ModelChoice()

    def close(self, ending: Ending) -> Any:
        """The outputs, made from the end of the conversation."""
        raise NotImplementedError

    def opening_as_python(self, w: "Writer", memory: MemoryNode | None) -> None:
        """Write the variables `task` and `messages`, and `key` when there is a memory; for `factory compile`."""
        raise _no_python(self)

    def close_as_python(self, w: "Writer") -> None:
        """Write what is returned when `talk` has ended."""
        raise _no_python(self)


def _no_python(node: Node) -> "CannotCompile":
    from nodes.compiling import CannotCompile

    return CannotCompile(f"“{node.title}” has no Python of its own.", fix="Run this agent in the factory.")


def may_be_tool(cls: type[Node]) -> bool:
    """Whether an agent may use steps of this type."""
    if cls.as_tool is not None:
        return cls.as_tool
    return cls.family in (Family.CONTEXT, Family.ACTION, Family.VALIDATION) and not issubclass(
        cls, ModelNode | MemoryNode
    )


def is_attachment(node: Node | type[Node] | None) -> bool:
    """Whether it only hangs on agents and is never run by itself."""
    return isinstance(node, ModelNode | MemoryNode) or (
        isinstance(node, type) and issubclass(node, ModelNode | MemoryNode)
    )


@dataclass(slots=True)
class Parts:
    """The agents of a blueprint with what hangs on their sub-ports."""

    edges: list[Edge] = field(default_factory=list)
    """Edges between sub-ports, in document order."""
    heads: dict[str, list[str]] = field(default_factory=dict)
    """For each agent the first steps of its tools."""
    agent_of: dict[str, str] = field(default_factory=dict)
    """For each first step of a tool its agent."""
    attached: dict[str, dict[str, str]] = field(default_factory=dict)
    """For each agent the nodes at its `model` and `memory`, by port."""
    tool_of: dict[str, str] = field(default_factory=dict)
    """For each step of a tool its first step."""
