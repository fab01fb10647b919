"""What a module and its wiring know of each step: its function, what can be read of its ports, and how calls are written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from nodes.base import Node, PortType
from nodes.compiling import Code, atom, literal, quoted
from runtime.plan import Scope, Step

SUB_PORTS = frozenset({PortType.MODEL, PortType.TOOL, PortType.MEMORY})


@dataclass(slots=True)
class Function:
    """A step's function: its name, what it is given besides its ports, and what it returns."""

    name: str
    gives: str
    waits: bool = False
    extras: list[str] = field(default_factory=list)
    ports: tuple[str, ...] = ()


@dataclass(slots=True)
class Fired:
    """What can be read of a port in the wiring: whether it fired ("" is always), and its value."""

    fired: str
    value: str


def arguments(head: str, given: Sequence[str]) -> Code:
    inside = ", ".join(given)
    return Code(f"{head}{inside})", head, tuple(atom(one) for one in given), ")")


def listed_names(values: Sequence[str]) -> Code:
    return Code(f"[{', '.join(values)}]", "[", tuple(atom(value) for value in values), "]")


def record_of(pairs: dict[str, Code]) -> Code:
    inside = [
        Code(f"{quoted(k)}: {v.flat}", f"{quoted(k)}: {v.head}" if v.parts else "", v.parts, v.close, v.stiff)
        for k, v in pairs.items()
    ]
    return Code(f"{{{', '.join(part.flat for part in inside)}}}", "{", tuple(inside), "}")


def tried_again(step: Step, waits: bool) -> bool:
    """Whether the wiring tries a step's function again. What a step waited for is not asked for again: neither does a run."""
    return bool(step.policy.retries and waits and type(step.node).resume is Node.resume and step.toolbox is None)


def tries(step: Step, kit: Callable[..., Code], made: Code) -> Code:
    """A call that is made again as the step's settings say."""
    policy = step.policy
    only = [literal([str(one) for one in policy.retry_on])] if policy.retry_on else []
    pauses = [str(policy.retries), repr(policy.first_delay), repr(policy.max_delay)]
    return kit("again", atom(f"lambda: {made.flat}"), *pauses, *only)


def loop_around(step: Step) -> Step | None:
    """The innermost loop that a step is inside of; an agent whose tool it belongs to is none."""
    around = step.scope.loop
    while around is not None and around.body is None:
        around = around.scope.loop
    return around


def agent_around(step: Step) -> Step | None:
    """The innermost agent of which a step is part of a tool."""
    around = step.scope.loop
    while around is not None and around.toolbox is None:
        around = around.scope.loop
    return around


def scopes_in(step: Step) -> list[Scope]:
    """What stands inside of a step: the body of a loop, the tools of an agent."""
    if step.body is not None:
        return [step.body]
    return [tool.scope for tool in step.toolbox.tools.values()] if step.toolbox is not None else []


def steps_in(step: Step) -> list[Step]:
    """The steps right inside of a step."""
    return [one for scope in scopes_in(step) for one in scope.steps]
