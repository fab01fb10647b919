"""Set a variable: a value that the rest of this run knows by a name."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from nodes.answers import NAME
from nodes.base import Context, Effect, Example, Family, Formula, Node, Out, PortInfo
from nodes.compiling import Writer
from nodes.formula import infer
from nodes.shape import ANY, Shape, record


class Noted(Out):
    """What arrived, and what the variable is now."""

    value: Annotated[Any, PortInfo(help="What arrived, unchanged.")]
    variable: Annotated[Any, PortInfo(help="The new value of the variable.")]


class SetVariable(Node):
    """Gives a variable of this run a new value, which all later steps can use.

    Formulas read it as `vars.<name>`. It belongs to this run alone and is gone at its end; a variable of the agent with the
    same name keeps its value for other runs. Useful to count, or to collect over the rounds of a loop:
    `vars.total | default(0) + amount`.
    """

    family, title, icon, effect = Family.FLOW, "Set a run variable", "data_object", Effect.E0
    words = ("variable", "set", "count", "counter", "store", "assign", "sum", "keep", "state")
    examples = (
        Example(
            "Count up",
            {"name": "seen", "to": "vars.seen + 1"},
            {"value": {"id": 7}},
            {"value": {"id": 7}, "variable": 3},
            given={"vars": {"seen": 2}},
        ),
        Example("Keep what arrived", {"name": "order"}, {"value": {"id": 7}}, {"value": {"id": 7}, "variable": {"id": 7}}),
    )  # fmt: skip

    name: str = Field(
        pattern=NAME,
        max_length=64,
        title="Name",
        description="Formulas use it as `vars.<name>`: letters, digits and underscores.",
        json_schema_extra={"placeholder": "total"},
    )
    to: Formula = Field(
        default="",
        title="Value",
        description="A formula for the new value, such as `vars.total | default(0) + amount`. Empty: what arrives.",
        json_schema_extra={"placeholder": "vars.total | default(0) + amount"},
    )

    async def run(self, ctx: Context, value: Any = None) -> Noted:
        return Noted(value, ctx.evaluate(self.to) if self.to.strip() else value)

    def as_python(self, w: Writer) -> None:
        value = w.arrived("value")
        w.gives(value=value, variable=w.formula(self.to) if self.to.strip() else value)

    def sets_variable(self) -> str:
        return self.name

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        main = arriving.get("value", ANY)
        if not self.to.strip():
            return {"value": main, "variable": main}
        known = record({**main.fields, "value": main, "input": main}, optional=main.optional, open=True)
        return {"value": main, "variable": infer(self.to, known)}

    def describe(self) -> str:
        return f"{self.name} = {self.to.strip() or 'what arrives'}"[:200]
