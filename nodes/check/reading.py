"""A blueprint as the tiers read it: the graph, its routes and what arrives where, each worked out once."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from nodes.base import Node
from nodes.blueprint import Blueprint
from nodes.catalog import Catalog
from nodes.check.findings import Surroundings, asked
from nodes.check.routes import Routes
from nodes.check.scopes import Scopes
from nodes.check.written import Written, written
from nodes.graph import Graph, read_graph
from nodes.listen import CalledField


class Reading:
    """Shared by the tiers of one check."""

    def __init__(self, blueprint: Blueprint, types: Catalog, around: Surroundings | None) -> None:
        self.blueprint = blueprint
        self.types = types
        self.around = around
        self.graph: Graph = read_graph(blueprint, types)
        self.routes = Routes(self.graph)

    @cached_property
    def expected(self) -> Scopes:
        """What arrives if it looks like the samples."""
        return Scopes(self.routes, guess=True, variables=self._variables, returns=self._returns)

    @cached_property
    def certain(self) -> Scopes:
        """What arrives whatever comes in."""
        return Scopes(self.routes, guess=False, variables=self._variables, returns=self._returns)

    @property
    def _variables(self) -> Mapping[str, Any]:
        return self.around.variables if self.around is not None else {}

    @property
    def _returns(self) -> Mapping[str, tuple[CalledField, ...]]:
        return self.around.returns if self.around is not None else {}

    @cached_property
    def texts(self) -> dict[str, tuple[Written, ...]]:
        """The texts with a format, by node."""
        return {id_: tuple(asked(lambda node=node: list(written(node)), [])) for id_, node in self.graph.nodes.items()}  # type: ignore[misc]

    @property
    def ids(self) -> set[str]:
        """The ids that no new part may have."""
        blueprint = self.blueprint
        nodes, notes, groups = blueprint.nodes, blueprint.notes, blueprint.groups
        return {part.id for part in nodes} | {part.id for part in notes} | {part.id for part in groups}

    def working(self) -> Iterator[tuple[str, Node]]:
        """The nodes that are set up and switched on, in document order."""
        for id_, node in self.graph.nodes.items():
            if not self.graph.placed[id_].disabled:
                yield id_, node

    def name(self, id_: str) -> str:
        """A node's title in a sentence."""
        return f"“{self.graph.title(id_)}”"

    def label(self, id_: str, port: str, *, out: bool = True) -> str:
        """A port's label in a sentence."""
        ports = self.graph.outputs[id_] if out else self.graph.inputs[id_]
        return f"“{ports[port].label if port in ports else port}”"
