"""What a model is told of an agent's tools: read off the drawing, the same for the engine and for the screens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nodes.check.arguments import Arguments, arguments
from nodes.graph import Graph

MAX_NAME: Final = 64
"""Characters of a tool's name, as models take them."""
_LONGEST: Final = 1_000  # characters of a description


@dataclass(frozen=True, slots=True)
class Told:
    """One tool: its first step, and the name, description and arguments that a model is told."""

    head: str
    name: str
    description: str
    arguments: Arguments


def tools_of(graph: Graph, agent: str, keys: Mapping[str, str]) -> list[Told]:
    """The tools of an agent that are switched on; `keys` are the names of all steps. Those not set up yet are left out."""
    heads = set(graph.agents.heads.get(agent, ()))
    found: list[Told] = []
    for head in graph.order:
        if head not in heads or graph.placed[head].disabled or head not in graph.nodes:
            continue
        name = keys[head] if len(keys[head]) <= MAX_NAME else f"{keys[head][: MAX_NAME - 4]}_{len(found)}"
        steps = [id_ for id_ in graph.order if graph.agents.tool_of.get(id_) == head and id_ in graph.nodes] or [head]
        summaries = ((type(graph.nodes[id_]).__doc__ or "").strip().partition("\n")[0] for id_ in steps)
        said = (f"{graph.title(id_)}: {summary}" for id_, summary in zip(steps, summaries, strict=True))
        fed = {edge.target_port for edge in graph.edges if edge.target == head}
        taken = arguments([graph.nodes[id_] for id_ in steps], tuple(graph.inputs[head].values()), fed)
        found.append(Told(head, name, " Then ".join(said)[:_LONGEST], taken))
    return found
