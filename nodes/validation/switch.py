"""Switch: one of many ways."""

import re
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, model_validator

from nodes.base import Context, Effect, Example, Family, Formula, Node, NodeError, Port, PortType, Row
from nodes.compiling import Writer
from nodes.formula import compile_formula
from nodes.formula.values import a_kind
from nodes.shape import ANY, Shape

_AS_TEXT = compile_formula("value | text")
_OTHERWISE = "otherwise"


class Case(Row):
    """One way, and when it is taken."""

    name: str = Field(min_length=1, max_length=60, title="Way", description="The name of the way out.")
    condition: Formula = Field(
        default="",
        title="Condition",
        description="What must be true to go this way (when deciding by conditions).",
        json_schema_extra={"placeholder": "total > 1000"},
    )
    equals: str = Field(
        default="",
        max_length=1_000,
        title="Equals",
        description="The value for which to go this way (when deciding by a value); empty: the way's name.",
    )


class Switch(Node):
    """Sends the value one of many ways.

    Decide by conditions, tried from the top, or by a value, such as a category that a model chose. What fits nowhere
    leaves by “otherwise”. With “every match” one value can take several ways.
    """

    family, title, icon, effect = Family.VALIDATION, "Switch", "alt_route", Effect.E0
    words = ("route", "case", "branch", "many", "category", "if", "choose", "ways")
    examples = (
        Example(
            "By the size of an order",
            {"cases": [{"name": "Large", "condition": "total > 1000"}, {"name": "Medium", "condition": "total > 100"}]},
            {"value": {"total": 500}},
            {"medium": {"total": 500}},
        ),
        Example(
            "By a category",
            {
                "by": "value",
                "value": "category",
                "cases": [{"name": "Refund"}, {"name": "Late delivery", "equals": "delivery"}],
            },
            {"value": {"category": "Delivery"}},
            {"late_delivery": {"category": "Delivery"}},
        ),
        Example(
            "What fits nowhere",
            {"by": "value", "value": "category", "cases": [{"name": "refund"}]},
            {"value": {"category": "praise"}},
            {"otherwise": {"category": "praise"}},
        ),
        Example(
            "Every way that fits",
            {
                "take": "all",
                "cases": [{"name": "big", "condition": "total > 100"}, {"name": "new", "condition": "first_order"}],
            },
            {"value": {"total": 500, "first_order": True}},
            {"big": {"total": 500, "first_order": True}, "new": {"total": 500, "first_order": True}},
        ),
    )

    by: Literal["conditions", "value"] = Field(
        default="conditions", title="Decide by", description="A condition for each way, or one value that is compared."
    )
    value: Formula = Field(
        default="input",
        title="Value",
        description="The value to compare, such as `category`.",
        json_schema_extra={"show_when": {"by": "value"}},
    )
    cases: list[Case] = Field(
        min_length=1, max_length=50, title="Ways", description="The ways out, tried from the top."
    )
    take: Literal["first", "all"] = Field(
        default="first", title="Take", description="The first way that fits, or every match."
    )
    ignore_case: bool = Field(
        default=True,
        title="Capitals do not matter",
        description="Whether “Gold” equals “gold”.",
        json_schema_extra={"show_when": {"by": "value"}},
    )

    @model_validator(mode="after")
    def _is_complete(self) -> "Switch":
        if self.by == "conditions":
            for case in self.cases:
                if not case.condition.strip():
                    raise ValueError(f"the way “{case.name}” has no condition yet")
        elif not self.value.strip():
            raise ValueError("choose the value to compare")
        return self

    @cached_property
    def _ports(self) -> tuple[str, ...]:
        """The name of each way's port, in order."""
        names: list[str] = []
        for number, case in enumerate(self.cases, 1):
            plain = unicodedata.normalize("NFKD", case.name.casefold()).encode("ascii", "ignore").decode()
            base = re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:50] or f"way_{number}"
            if base in (_OTHERWISE, "error"):
                base = f"{base}_way"
            name, again = base, 2
            while name in names:
                name, again = f"{base}_{again}", again + 1
            names.append(name)
        return tuple(names)

    @cached_property
    def _wanted(self) -> tuple[str, ...]:
        return tuple(self._folded(case.equals or case.name) for case in self.cases)

    def outputs(self) -> tuple[Port, ...]:
        ways = [Port(name, PortType.ANY, case.name) for name, case in zip(self._ports, self.cases, strict=True)]
        return (*ways, Port(_OTHERWISE, PortType.ANY, _OTHERWISE, "What fits none of the ways."))

    async def run(self, ctx: Context, value: Any) -> Mapping[str, Any]:
        ways = self._by_value(ctx) if self.by == "value" else self._by_conditions(ctx)
        return dict.fromkeys(ways or [_OTHERWISE], value)

    def _by_conditions(self, ctx: Context) -> list[str]:
        ways = []
        for port, case in zip(self._ports, self.cases, strict=True):
            answer = ctx.evaluate(case.condition)
            if not isinstance(answer, bool):
                raise NodeError(
                    f"The condition of “{case.name}” gives {a_kind(answer)}, and it must give yes or no.",
                    fix="Compare with something, as in `total > 1000`.",
                )
            if answer:
                ways.append(port)
                if self.take == "first":
                    break
        return ways

    def _by_value(self, ctx: Context) -> list[str]:
        found = self._folded(_AS_TEXT.evaluate({"value": ctx.evaluate(self.value)}))
        ways = [port for port, wanted in zip(self._ports, self._wanted, strict=True) if wanted == found]
        return ways[:1] if self.take == "first" else ways

    def _folded(self, text: str) -> str:
        return text.strip().casefold() if self.ignore_case else text.strip()

    def ways(self) -> tuple[tuple[str, ...], ...]:
        return tuple((name,) for name in (*self._ports, _OTHERWISE)) if self.take == "first" else ()

    def as_python(self, w: Writer) -> None:
        if self.by == "value":
            found = w.words_of(w.formula(self.value)).flat + (".strip().casefold()" if self.ignore_case else ".strip()")
            w.let("found", found)
            fits = [w.equal("found", wanted) for wanted in self._wanted]
        else:
            fits = [w.yes_no(w.formula(case.condition), f"The condition of “{case.name}”") for case in self.cases]
        w.choose(list(zip(self._ports, fits, strict=True)), _OTHERWISE, several=self.take == "all")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        return dict.fromkeys((*self._ports, _OTHERWISE), arriving.get("value", ANY))

    def describe(self) -> str:
        names = ", ".join(case.name for case in self.cases)
        return f"{self.value}: {names}"[:200] if self.by == "value" else names[:200]
