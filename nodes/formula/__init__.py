"""The formula language of conditions (`order.total > 1000`) and of texts (`Hello {{ customer.name }}`).

Jinja's expression syntax, read by Jinja's parser and worked out by our own closures: no code is generated, a dot is a
record's field, and only the functions of a fixed table can be called.
"""

import nodes.formula.functions  # noqa: F401 - fills the table
from nodes.formula.compiled import Compiled, CompiledText, compile_formula, compile_text
from nodes.formula.conditions import Comparison, FieldRef, Group, from_formula, to_formula
from nodes.formula.functions.dates import zones
from nodes.formula.infer import check_formula, check_text, infer, infer_text
from nodes.formula.meter import Budget
from nodes.formula.problems import FormulaError, Missing, Position, Problem
from nodes.formula.table import FunctionHelp, help_table

HELP: tuple[FunctionHelp, ...] = help_table()


def warm() -> None:
    """Read once what formulas may need from disk, the time zones, so that no evaluation ever waits for a file."""
    zones()


__all__ = [
    "HELP",
    "Budget",
    "Comparison",
    "Compiled",
    "CompiledText",
    "FieldRef",
    "FormulaError",
    "FunctionHelp",
    "Group",
    "Missing",
    "Position",
    "Problem",
    "check_formula",
    "check_text",
    "compile_formula",
    "compile_text",
    "from_formula",
    "infer",
    "infer_text",
    "to_formula",
    "warm",
]
