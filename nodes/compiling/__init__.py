"""Blueprints as Python: what a node type needs to say what it does as code, and how that code is laid out."""

from nodes.compiling.carry import Library
from nodes.compiling.layout import (
    Code,
    atom,
    call,
    group,
    identifier,
    led,
    listed,
    literal,
    mapping,
    quoted,
    statement,
    stiff,
    tuples,
    words_in,
)
from nodes.compiling.writer import CannotCompile, Writer

__all__ = [
    "CannotCompile",
    "Code",
    "Library",
    "Writer",
    "atom",
    "call",
    "group",
    "identifier",
    "led",
    "listed",
    "literal",
    "mapping",
    "quoted",
    "statement",
    "stiff",
    "tuples",
    "words_in",
]
