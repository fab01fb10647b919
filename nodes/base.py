"""The whole contract of a node type: what it declares, what it returns, and by its `Context` what it may see.

A node type is one file with one `Node` subclass. Its pydantic fields are the settings (and so the form, the validation and
the documentation), the parameters of `run` are the input ports, the fields of its `Out` are the output ports. A node's
author imports from here alone; what stands in `nodes/world.py` is handed on.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from functools import cache
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, ConfigDict, Field

from nodes.categories import Category as Category
from nodes.errors import FactoryError
from nodes.listen import Listen
from nodes.world import BasicAuth as BasicAuth
from nodes.world import CodeReply as CodeReply
from nodes.world import Context as Context
from nodes.world import Events as Events
from nodes.world import Http as Http
from nodes.world import HttpReply as HttpReply
from nodes.world import Llm as Llm
from nodes.world import LlmReply as LlmReply
from nodes.world import Mail as Mail
from nodes.world import Memory as Memory
from nodes.world import SecretRef as SecretRef
from nodes.world import Signature as Signature
from nodes.world import Tables as Tables
from nodes.world import ToolCall as ToolCall
from nodes.world import Worker as Worker

if TYPE_CHECKING:
    from nodes.compiling import Writer
    from nodes.shape import Shape


class Family(StrEnum):
    """The five shelves of the palette."""

    TRIGGER = "trigger"
    CONTEXT = "context"
    ACTION = "action"
    VALIDATION = "validation"
    FLOW = "flow"


class Effect(IntEnum):
    """What a step does to the world; decides durability, simulation and approval. Undeclared means E4."""

    E0 = 0  # computes, or reads its own run
    E1 = 1  # reads the tenant's or outside data
    E2 = 2  # reversible write inside the product
    E3 = 3  # reversible write outside, with a known compensation
    E4 = 4  # irreversible or unknown effect outside
    E5 = 5  # privilege: policy, secrets, roles, deploy


class Label(StrEnum):
    """What the Rule of Two looks at: two of these may meet on a path, three may not without an approval."""

    UNTRUSTED = "untrusted input"
    PRIVATE = "private data"
    EXTERNAL = "external effect"


class PortType(StrEnum):
    """What travels along an edge. Values are plain JSON; moments are ISO 8601 texts."""

    ANY = "any"
    TEXT = "text"
    NUMBER = "number"
    YES_NO = "yes/no"
    MOMENT = "moment"
    LIST = "list"
    RECORD = "record"
    FILE = "file"
    MESSAGE = "message"
    MODEL = "model"
    TOOL = "tool"
    MEMORY = "memory"


_SUB_PORTS: Final = frozenset({PortType.MODEL, PortType.TOOL, PortType.MEMORY})
_PRINTABLE: Final = frozenset({PortType.NUMBER, PortType.YES_NO, PortType.MOMENT})


def fits(source: PortType, target: PortType) -> bool:
    """Whether an edge may carry a value from one port type to the other; canvas, checks and assistant all ask here."""
    if source == target:
        return True
    if source in _SUB_PORTS or target in _SUB_PORTS:
        return False
    if PortType.ANY in (source, target):
        return True
    if target is PortType.TEXT:
        return source in _PRINTABLE
    if target is PortType.MOMENT:
        return source is PortType.TEXT
    return target is PortType.RECORD and source in (PortType.MESSAGE, PortType.FILE)


@dataclass(frozen=True, slots=True)
class Port:
    """One named end of edges. `many` gathers every arriving value into a list; `back` closes a loop."""

    name: str
    type: PortType = PortType.ANY
    title: str = ""
    help: str = ""
    required: bool = True
    many: bool = False
    back: bool = False

    @property
    def label(self) -> str:
        return self.title or self.name.replace("_", " ")


@dataclass(frozen=True, slots=True)
class PortInfo:
    """Put in `Annotated[...]` on a parameter of `run` or a field of an `Out` to say more about its port."""

    title: str = ""
    help: str = ""
    type: PortType | None = None
    many: bool = False
    back: bool = False


class _Skip:
    """The value of an output port that does not fire."""

    def __repr__(self) -> str:
        return "SKIP"

    def __bool__(self) -> bool:
        return False


SKIP: Final[Any] = _Skip()


@dataclass_transform(kw_only_default=False)
class Out:
    """Base of a node's outputs: declare fields, leave at `SKIP` what may stay silent."""

    def __init_subclass__(cls) -> None:
        dataclass(cls)


class Value(Out):
    """The commonest outputs: one value."""

    value: Any = SKIP


@dataclass(frozen=True, slots=True)
class Pause:
    """Returned by `run` to let the run wait as rows only; `resume` is called with the answer.

    `until`: the epoch second to wake at. `approval`: a person decides, `data` holds `title`, `details` and `choices`.
    The answer holds `approved`, `expired`, `by`, `note` and `choice`.
    `event`: something happens, `data` holds `name` and `key` or an `address`, and a `sample`; the answer `arrived` and `value`.
    With `before` an event counts too that was sent up to so many seconds ago.
    `start`: another blueprint's run begins, with data as for a call; the answer holds `run`. `run`: a run that was started so
    ends, `data` holds `run`; the answer is that of a call, or its `state` is "too late".
    `call`: another blueprint's run, `data` holds `blueprint` and `input`; the answer holds `run`, `state`, `output`, `error`.
    """

    kind: Literal["until", "approval", "call", "event", "start", "run"]
    until: float | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a step with an outside effect would have done, for the sandbox: a sentence and believable outputs."""

    sentence: str
    out: Out | Mapping[str, Any]


class NodeError(FactoryError):
    """A step failed in a way that we can explain. The error itself says whether trying again can help.

    `category` is one of `Category`: the kind of trouble, by which people choose what is tried again.
    `after` is the number of seconds the other side asked us to wait.
    """

    code = "step.failed"

    def __init__(
        self,
        message: str,
        *,
        retry: bool = False,
        after: float | None = None,
        category: Category | str = Category.INPUT,
        fix: str | None = None,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        category = Category.read(category)
        super().__init__(message, fix=fix, code=code or f"step.{category}")
        self.retry = retry
        self.after = after
        self.category = category
        self.details = dict(details or {})


# --- settings: kinds of text that forms, checks and the assistant know about -------------------------------------------

Formula = Annotated[str, Field(max_length=10_000, json_schema_extra={"format": "formula"})]
Text = Annotated[str, Field(max_length=100_000, json_schema_extra={"format": "template"})]
LongText = Annotated[str, Field(max_length=100_000, json_schema_extra={"format": "template", "lines": 5})]
Code = Annotated[str, Field(max_length=100_000, json_schema_extra={"format": "code"})]
Secret = Annotated[str, Field(max_length=100, json_schema_extra={"format": "secret"})]
Json = Annotated[str, Field(max_length=100_000, json_schema_extra={"format": "json", "lines": 5})]
Cron = Annotated[str, Field(max_length=200, json_schema_extra={"format": "cron"})]
TimeZone = Annotated[str, Field(max_length=64, json_schema_extra={"format": "time-zone"})]
BlueprintRef = Annotated[str, Field(max_length=64, json_schema_extra={"format": "blueprint"})]
ModelName = Annotated[
    str,
    Field(
        max_length=200,
        title="Model",
        description="Another model of the same provider. Empty: the one in Settings → Model.",
        json_schema_extra={"format": "model", "placeholder": "the one in Settings"},
    ),
]
Temperature = Annotated[
    float | None,
    Field(
        ge=0,
        le=2,
        title="Freedom",
        description="0 answers alike every time, 1 and more is freer. Empty: as the model does by itself.",
    ),
]
FileName = Annotated[str, Field(max_length=200, json_schema_extra={"format": "file"})]


@dataclass(frozen=True, slots=True)
class Example:
    """A worked example: shown as help, run by the contract test. `out` maps each firing port to its value.

    A trigger's `inputs` hold its `event`. `given` is the world around it (`http`, `memory`, `tables`, `files`, `now`…),
    `answer` what ends its pause, `error` the sentence of a step whose work is to fail.
    """

    title: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Any]
    out: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)
    answer: Any = None
    error: str = ""


Outputs = Out | Mapping[str, Any] | Pause


class Row(BaseModel):
    """Base of one row in a setting that is a list: the form shows a table with its fields as columns."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(BaseModel):
    """Base of every node type. The class docstring's first line is the palette's summary, the rest its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=False)

    type: ClassVar[str] = ""
    family: ClassVar[Family]
    title: ClassVar[str]
    icon: ClassVar[str] = "bolt"
    effect: ClassVar[Effect] = Effect.E4
    words: ClassVar[tuple[str, ...]] = ()
    examples: ClassVar[tuple[Example, ...]] = ()
    keyed: ClassVar[bool] = False
    """Whether the other side is given our idempotency key, so that a repeat after a crash has one effect."""
    join: ClassVar[Literal["all", "first"]] = "all"
    """`all`: runs when every incoming edge is resolved; `first`: runs as soon as `enough()` values have arrived."""
    as_tool: ClassVar[bool | None] = None
    """Whether an agent may use steps of this type as tools; None: those of the families context, action and validation."""
    gate: ClassVar[bool] = False
    """Whether a person decides here, which lifts the Rule of Two behind it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "family" in cls.__dict__ and not cls.__dict__.get("type"):
            cls.type = f"{cls.family}.{cls.__module__.rpartition('.')[2]}"

    @classmethod
    def first_settings(cls) -> dict[str, Any]:
        """What a newly placed node must be given: defaults that are made anew each time, such as a webhook's path."""
        fields = cls.model_fields.items()
        made = {name: known for name, known in fields if known.default_factory not in (None, list, dict)}
        return {name: known.get_default(call_default_factory=True, validated_data={}) for name, known in made.items()}

    def inputs(self) -> tuple[Port, ...]:
        """The input ports with these settings. A trigger has none: its `event` comes from outside."""
        return () if self.family is Family.TRIGGER else class_ports(type(self))[0]

    def outputs(self) -> tuple[Port, ...]:
        """The output ports with these settings."""
        return class_ports(type(self))[1]

    def effect_here(self) -> Effect:
        """The effect class with these settings (a GET is not a POST)."""
        return self.effect

    def join_here(self) -> Literal["all", "first"]:
        """How it waits for its incoming edges with these settings."""
        return self.join

    def enough(self) -> int:
        """How many values are enough to run; 0: it waits until every incoming edge is resolved."""
        return 1 if self.join_here() == "first" else 0

    def worker_size(self) -> str:
        """The size of the isolated worker that it runs code in; empty when it runs none."""
        return ""

    def sets_variable(self) -> str:
        """The name under which formulas of this run find, as `vars.<name>`, what it gives by its port `variable`."""
        return ""

    def ways(self) -> tuple[tuple[str, ...], ...]:
        """Groups of output ports of which only one group fires each time, as with a decision; empty for all other nodes."""
        return ()

    def labels(self) -> frozenset[Label]:
        """What the Rule of Two must know of this node with these settings."""
        return frozenset({Label.EXTERNAL}) if self.effect_here() >= Effect.E3 else frozenset()

    def hosts(self) -> tuple[str, ...] | None:
        """Hosts it calls that can be read from the settings; None if it calls none; `("",)` when only a run can tell."""
        return None

    def listens(self) -> Listen | None:
        """What a trigger waits for; None for every other node."""
        return None

    def sample(self) -> Any:
        """A believable event for the sandbox; triggers override it."""
        return {}

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        """What can leave by each port, given what arrives; for edit-time checks. Missing ports mean anything."""
        return {}

    def known_in(self, field: str, known: Shape, arriving: Mapping[str, Shape]) -> Shape:
        """What a formula in this setting can use: `known` as everywhere in this step, or more, such as `item` of each member.

        `field` is the setting's name, with a dot before the field of a row (`results.of`).
        """
        return known

    def forecast_seconds(self) -> float:
        """About how long one execution takes, for the forecast of a run."""
        return 0.001 if self.effect_here() is Effect.E0 else 0.3

    def describe(self) -> str:
        """One line on the canvas that says what it is set to do; empty when there is nothing worth saying."""
        return ""

    def as_python(self, w: Writer) -> None:
        """Write what `run` does with these settings as the body of a Python function; for `factory compile`."""
        from nodes.compiling import CannotCompile

        raise CannotCompile(
            f"“{self.title}” has no Python of its own, so an agent that uses it runs only in the factory.",
            fix="Put another step in its place, or run this agent in the factory.",
        )

    run: ClassVar[Any]
    """`async def run(self, ctx: Context, <one parameter an input port>) -> Out | Mapping[str, Any] | Pause`"""

    def resume(self, ctx: Context, answer: Any, **inputs: Any) -> Awaitable[Outputs]:
        """Go on after a `Pause` with what came of it; a node that pauses overrides it."""
        raise NodeError(f"{self.title} cannot be resumed.", category="bug")

    async def simulate(self, ctx: Context, **inputs: Any) -> Simulated:
        """What the sandbox shows instead of an outside effect; every node of effect E3 or more overrides it."""
        return Simulated(f"would run “{self.title}”", {port.name: None for port in self.outputs()[:1]})


class Loop(Node):
    """Base of a node whose body the engine runs again and again: the steps behind its `item` port, up to its `result` port.

    The first port and `result` (back) come in, `item` and `done` go out. The engine calls `items_of` with what arrived, runs
    the body for each member with `item` and `index` known to formulas, and sends what came back out of `done`.

    A loop of `rounds` begins with one member; after every round the engine asks `again`, and the result is the next member.
    Out of `done` comes the last result.
    """

    rounds: ClassVar[bool] = False
    """Whether the next member is decided from the last result, instead of all being known at the start."""

    def items_of(self, ctx: Context, items: Any) -> list[Any]:
        """The members to go through. Raises NodeError when there is no list."""
        raise NotImplementedError

    def again(self, ctx: Context, result: Any, index: int) -> bool:
        """Whether another round follows the one with this index, which came to `result`. Raises NodeError to fail."""
        return False

    def until_as_python(self, w: Writer) -> None:
        """Write whether the rounds are at their end, as `again` decides; for `factory compile`.

        `result` is what the round came to, `index` its place.
        """
        from nodes.compiling import CannotCompile

        raise CannotCompile(
            f"“{self.title}” has no Python that says whether another round follows.",
            fix="Put “Repeat until” in its place, or run this agent in the factory.",
        )

    def at_once(self) -> int:
        """How many members are worked on together."""
        return 1

    def when_item_fails(self) -> Literal["stop", "continue", "drop"]:
        """Fail, go on with nothing as the result, or go on as if there were no result."""
        return "stop"


class ListLoop(Loop):
    """Base of a loop over a list that is known at the start."""

    parallel: int = Field(default=1, ge=1, le=50, title="At once", description="How many items are worked on together.")
    on_item_error: Literal["stop", "continue", "drop"] = Field(
        default="stop",
        title="If an item fails",
        description="Stop the run, go on with nothing in its place, or leave the item out.",
    )

    def at_once(self) -> int:
        return self.parallel

    def when_item_fails(self) -> Literal["stop", "continue", "drop"]:
        return self.on_item_error


@cache
def class_ports(cls: type[Node]) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Read the ports off `run`: its parameters are the inputs, the fields of the `Out` it returns the outputs."""
    run = cls.__dict__.get("run") or next(k.__dict__["run"] for k in cls.__mro__ if "run" in k.__dict__)
    hints = get_type_hints(run, include_extras=True)
    inputs = []
    for parameter in list(inspect.signature(run).parameters.values())[2:]:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        inputs.append(_port(parameter.name, hints.get(parameter.name, Any), parameter.default is parameter.empty))
    outputs: list[Port] = []
    returned = hints.get("return", Value)
    for option in get_args(returned) if get_origin(returned) in (UnionType, Union) else (returned,):
        if isinstance(option, type) and issubclass(option, Out):
            fields = get_type_hints(option, include_extras=True)
            outputs += [_port(name, hint, True) for name, hint in fields.items()]
    return tuple(inputs), tuple(outputs)


_TYPES: Final[dict[Any, PortType]] = {
    str: PortType.TEXT,
    int: PortType.NUMBER,
    float: PortType.NUMBER,
    bool: PortType.YES_NO,
    datetime: PortType.MOMENT,
    list: PortType.LIST,
    tuple: PortType.LIST,
    dict: PortType.RECORD,
    Mapping: PortType.RECORD,
    Sequence: PortType.LIST,
}


def _port(name: str, hint: Any, required: bool) -> Port:
    info = PortInfo()
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        info = next((extra for extra in extras if isinstance(extra, PortInfo)), info)
    base = hint
    if get_origin(base) in (UnionType, Union):
        base = next((option for option in get_args(base) if option is not type(None)), Any)
    base = get_origin(base) or base
    type_ = info.type or _TYPES.get(base, PortType.ANY)
    return Port(name, type_, info.title, info.help, required, info.many, info.back)
