"""The formula language of conditions (`order.total > 1000`) and of texts (`Hello {{ customer.name }}`).

Jinja's expression syntax, read by Jinja's parser and worked out by our own closures: no code is generated, a dot is a
record's field, and only the functions of a fixed table can be called.
"""

import nodes.formula.functions  # noqa: F401 - fills the table
from nodes.formula.compiled import Compiled, CompiledText, compile_formula, compile_text
from nodes.formula.meter import Budget
from nodes.formula.problems import FormulaError, Missing, Position, Problem
from nodes.formula.table import FunctionHelp, help_table

HELP: tuple[FunctionHelp, ...] = help_table()

__all__ = [
    "HELP",
    "Budget",
    "Compiled",
    "CompiledText",
    "FormulaError",
    "FunctionHelp",
    "Missing",
    "Position",
    "Problem",
    "compile_formula",
    "compile_text",
]
