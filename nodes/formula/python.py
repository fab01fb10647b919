"""Formulas as Python expressions with the same meaning: one call or operator for each part of the formula.

`and`, `or`, `not` and `if … else` are Python's own, as they mean the same. Where the two differ (what may be compared or added
to what, what a missing field does) a small function of the kit stands for the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jinja2 import nodes

from nodes.compiling.carry import Library
from nodes.compiling.layout import Code, atom, call, deferred, group, listed, literal, mapping, quoted, stiff
from nodes.formula import table
from nodes.formula.build import METHODS
from nodes.formula.compiled import compile_formula, compile_text, pieces
from nodes.formula.functions import kinds
from nodes.formula.meter import Meter
from nodes.formula.parse import parse

_SIGNS = {"Add": "+", "Sub": "-", "Mul": "*", "Div": "/", "FloorDiv": "//", "Mod": "%", "Pow": "**"}
_ORDERS = {
    "eq": "==", "ne": "!=", "lt": "<", "lteq": "<=", "gt": ">", "gteq": ">=", "in": "in", "notin": "not in",
}  # fmt: skip
_ITEMS = ("each", "inner", "innermost")


@dataclass(slots=True)
class Scope:
    """What names mean where a formula stands."""

    main: str | None = None
    """The variable with what arrived, whose fields are names."""
    ports: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    """Names that no field takes away, such as `input` and `steps`, with their expressions."""
    item: str | None = None
    """The variable of a list's member whose fields are names too."""
    over: str | None = None
    """The variable with a result whose fields go before all other names; its place is `index`."""


class Formulas:
    """Translates the formulas of one step."""

    def __init__(self, library: Library, scope: Scope) -> None:
        self.library = library
        self.scope = scope
        self.used: set[str] = set()
        """The fixed names that the formulas use."""

    def formula(self, text: str, scope: Scope | None = None) -> Code:
        """A formula as an expression. Raises FormulaError if it cannot be read."""
        compile_formula(text)
        return _Reader(self, scope or self.scope).build(parse(text).root)

    def text(self, template: str, scope: Scope | None = None) -> Code:
        """A text with formulas in it; a text that is one single formula keeps its value's kind."""
        compile_text(template)
        found = pieces(template)
        if all(span is None for _, span in found):
            return atom(quoted(template))
        if len(found) == 1:
            return self.formula(found[0][0], scope)
        parts: list[Code] = []
        for piece, span in found:
            if span is not None:
                parts.append(self.formula(piece, scope))
            else:
                parts += [atom(quoted(line)) for line in piece.splitlines(keepends=True)]
        return call(self.library.kit("joined"), *parts)

    def words(self, template: str, scope: Scope | None = None) -> Code:
        """The same, always as a text."""
        code = self.text(template, scope)
        plain = code.flat[:1] in "'\"" or code.flat.startswith(f"{self.library.names.get(_JOINED)}(")
        return code if plain else call(self.library.kit("as_text"), code)


_JOINED = ("nodes.compiling.kit", "joined")


class _Reader:
    """One formula; `around` reads the formula in which an item formula is written."""

    def __init__(self, formulas: Formulas, scope: Scope, around: _Reader | None = None) -> None:
        self.formulas = formulas
        self.scope = scope
        self.around = around
        self.depth: int = around.depth + 1 if around else 0
        self.item = _ITEMS[self.depth - 1] if around else ""
        self.alone = False

    def build(self, node: nodes.Node) -> Code:
        """The expression of one part."""
        return _KINDS[type(node)](self, node)

    def kit(self, name: str, *arguments: Code | str) -> Code:
        return call(self.formulas.library.kit(name), *arguments)

    def path(self, name: str, keys: tuple[str, ...]) -> Code:
        """A name with the fields after it."""
        names = [quoted(key) for key in keys]
        if self.around is not None:
            return self._item_path(name, keys)
        scope = self.scope
        if scope.over is not None:
            found = self._over(scope.over, name)
            return self.kit("part", found, quoted(name), *names) if keys else found
        if (known := scope.fixed.get(name)) is not None and not (scope.item and name == "item"):
            self.formulas.used.add(name)
            return self.kit("part", known, quoted(name), *names) if keys else atom(known)
        if scope.item is not None:
            if name in ("item", "index"):
                variable = scope.item if name == "item" else "index"
                return self.kit("part", variable, quoted(name), *names) if keys else atom(variable)
            if name in scope.ports:
                return self._either(scope.item, name, keys)
            return self.kit("field", scope.item, quoted(name), *names)
        if name in scope.ports:
            return self._either(scope.main or "None", name, keys)
        return self.kit("field", scope.main or "None", quoted(name), *names)

    def _over(self, result: str, name: str) -> Code:
        """A name where the fields of a result go before everything else."""
        scope = self.scope
        if name in (result, "result", "item", "index"):
            return atom("index" if name == "index" else result)
        if (known := scope.fixed.get(name)) is not None:
            self.formulas.used.add(name)
            return self.kit("named", result, quoted(name), known)
        if name in scope.ports:
            return self.kit("named", result, quoted(name), self._either(scope.main or "None", name, ()))
        return self.kit("field_of_either", quoted(name), result, scope.main or "None")

    def _either(self, owner: str, name: str, keys: tuple[str, ...]) -> Code:
        found = self.kit("named", owner, quoted(name), self.scope.ports[name])
        return self.kit("part", found, quoted(name), *[quoted(key) for key in keys]) if keys else found

    def _item_path(self, name: str, keys: tuple[str, ...]) -> Code:
        names = [quoted(key) for key in keys]
        if name == "item":
            return self.kit("part", self.item, '"item"', *names) if keys else atom(self.item)
        if name == "outer":
            assert self.around is not None
            return self.around.path(keys[0], keys[1:])
        entry = table.find(name) if self.alone and not keys else None
        if entry is not None and entry.takes and not entry.settings:
            return self.kit("of_item", self.item, quoted(name), self.formulas.library.use(entry.run))
        return self.kit("field_of", self.item, quoted(name), *names)

    def name(self, node: nodes.Name) -> Code:
        return self.path(node.name, ())

    def getattr_(self, node: nodes.Getattr) -> Code:
        keys: list[str] = []
        base: nodes.Node = node
        while True:
            if isinstance(base, nodes.Getattr):
                keys.append(base.attr)
                base = base.node
            elif isinstance(base, nodes.Getitem) and isinstance(base.arg, nodes.Const) and type(base.arg.value) is str:
                keys.append(base.arg.value)
                base = base.node
            else:
                break
        keys.reverse()
        if isinstance(base, nodes.Name):
            return self.path(base.name, tuple(keys))
        return self.kit("part", self.build(base), '"this value"', *[quoted(key) for key in keys])

    def getitem(self, node: nodes.Getitem) -> Code:
        if isinstance(node.arg, nodes.Const) and type(node.arg.value) is str:
            return self.getattr_(node)  # type: ignore[arg-type]  # read alike
        if isinstance(node.arg, nodes.Slice):
            ends = [self.build(end) if end else atom("None") for end in (node.arg.start, node.arg.stop, node.arg.step)]
            return self.kit("cut", self.build(node.node), *ends)
        return self.kit("at", self.build(node.node), self.build(node.arg))

    def const(self, node: nodes.Const) -> Code:
        return literal(node.value)

    def list_(self, node: nodes.List | nodes.Tuple) -> Code:
        return listed(self.build(item) for item in node.items)

    def dict_(self, node: nodes.Dict) -> Code:
        return mapping((pair.key.value, self.build(pair.value)) for pair in node.items)  # type: ignore[attr-defined]

    def binary(self, node: nodes.BinExpr) -> Code:
        sign = _SIGNS[type(node).__name__]
        return self.kit("calculate", self.build(node.left), quoted(sign), self.build(node.right))

    def both(self, node: nodes.And) -> Code:
        left, right = self.build(node.left), self.build(node.right)
        return stiff(f"{left.within(4)} and {right.within(5)}", 4, left.truth and right.truth)

    def either(self, node: nodes.Or) -> Code:
        left, right = self.build(node.left), self.build(node.right)
        return stiff(f"{left.within(3)} or {right.within(4)}", 3, left.truth and right.truth)

    def not_(self, node: nodes.Not) -> Code:
        return stiff(f"not {self.build(node.node).within(6)}", 5, truth=True)

    def sign(self, node: nodes.UnaryExpr) -> Code:
        minus = type(node) is nodes.Neg
        if minus and isinstance(node.node, nodes.Const) and type(node.node.value) in (int, float):
            return atom(repr(-node.node.value))
        return self.kit("minus" if minus else "plus", self.build(node.node))

    def compare(self, node: nodes.Compare) -> Code:
        left, parts = self.build(node.expr), []
        for operand in node.ops:
            right = self.build(operand.expr)
            parts.append(self._compared(left, operand.op, right, operand.expr, len(node.ops) == 1))
            left = right
        if len(parts) == 1:
            return parts[0]
        return stiff(" and ".join(part.within(5) for part in parts), 4, truth=True)

    def _compared(self, left: Code, sign: str, right: Code, node: nodes.Expr, single: bool) -> Code:
        is_text = isinstance(node, nodes.Const) and type(node.value) is str
        if single and is_text and sign in ("eq", "ne"):
            return stiff(f"{left.within(7)} {_ORDERS[sign]} {right.flat}", 6, truth=True)
        found = self.kit("compare", left, quoted(_ORDERS[sign]), right)
        return Code(found.flat, found.head, found.parts, found.close, truth=True)

    def concat(self, node: nodes.Concat) -> Code:
        return self.kit("joined", *(self.build(part) for part in node.nodes))

    def condition(self, node: nodes.CondExpr) -> Code:
        yes, test = self.build(node.expr1), self.build(node.test)
        no = self.build(node.expr2) if node.expr2 is not None else atom("None")
        return stiff(f"{yes.within(3)} if {test.within(3)} else {no.within(2)}", 2, yes.truth and no.truth)

    # Calls

    def filter(self, node: nodes.Filter) -> Code:
        assert node.node is not None
        return self.call_of(node.name, [node.node, *node.args], node)

    def call(self, node: nodes.Call) -> Code:
        target = node.node
        if isinstance(target, nodes.Name):
            return self.call_of(target.name, list(node.args), node)
        assert isinstance(target, nodes.Getattr)
        return self.call_of(METHODS.get(target.attr, target.attr), [target.node, *node.args], node)

    def call_of(self, name: str, arguments: list[nodes.Expr], node: nodes.Call | nodes.Filter) -> Code:
        keywords = {one.key: one.value for one in node.kwargs if isinstance(one, nodes.Keyword)}
        if name in ("default", "d"):
            return self.default(arguments, keywords)
        entry = table.find(name)
        assert entry is not None
        work = self.formulas.library.use(entry.run)
        if entry.takes is None:
            return call(work, *self.settings(entry, arguments, keywords))
        value = self.build(arguments.pop(0))
        settings = self.settings(entry, arguments, keywords)
        if "any" not in entry.takes and not all(_is_sure(setting) for setting in settings):
            # Whether the value fits comes before what its settings may lack.
            value = self.kit("fits", value, quoted(entry.name), *[quoted(kind) for kind in entry.takes])
        return call(work, value, *settings)

    def settings(self, entry: table.Function, rest: list[nodes.Expr], keywords: Mapping[str, nodes.Expr]) -> list[Code]:
        named = {entry.keywords.get(key, key): value for key, value in keywords.items()}
        out: list[Code] = []
        needed = 0
        for setting in entry.settings:
            if setting.many:
                out += [self.build(value) for value in rest]
                needed, rest = len(out), []
                continue
            value = rest.pop(0) if rest else named.pop(setting.name, None)
            if value is not None:
                out.append(self.each(value) if setting.each else self.build(value))
                needed = len(out)
            elif setting.default is table.UNSET:
                out.append(atom(self.formulas.library.place(table.__name__, "UNSET")))
            else:
                out.append(literal(setting.default))
        return out[:needed]

    def each(self, node: nodes.Expr) -> Code:
        """A setting that is worked out for each item."""
        assert isinstance(node, nodes.Const)
        if node.value is None:
            return atom("None")
        inner = _Reader(self.formulas, self.scope, self)
        root = parse(node.value).root
        inner.alone = isinstance(root, nodes.Name)
        return deferred(inner.build(root), inner.item)

    def default(self, arguments: list[nodes.Expr], keywords: dict[str, nodes.Expr]) -> Code:
        other = arguments[1] if len(arguments) > 1 else keywords.pop("value", keywords.pop("default_value", None))
        empty = arguments[2] if len(arguments) > 2 else keywords.pop("boolean", None)
        fallback = self.build(other) if other is not None else atom('""')
        parts = [deferred(self.build(arguments[0])), deferred(fallback)]
        if empty is not None:
            flag = self.build(empty)
            parts.append(flag if flag.flat in ("True", "False") else call("bool", flag))
        return self.kit("default", *parts)

    def test(self, node: nodes.Test) -> Code:
        if node.name in ("defined", "undefined"):
            found = self.kit("defined", deferred(self.build(node.node)))
            if node.name == "undefined":
                return stiff(f"not {found.flat}", 5, truth=True)
            return Code(found.flat, found.head, found.parts, found.close, truth=True)
        name = kinds.CHECK_ALIASES.get(node.name, node.name)
        value = self.build(node.node)
        if name == "none":
            return stiff(f"{value.within(7)} is None", 6, truth=True)
        library = self.formulas.library
        checks = library.place(kinds.__name__, "CHECKS")
        arguments = [atom(f"{library.use(Meter)}()"), value, *(self.build(one) for one in node.args)]
        found = group(f"{checks}[{quoted(name)}][0](", arguments, ")")
        return Code(found.flat, found.head, found.parts, found.close, truth=True)


def _is_sure(code: Code) -> bool:
    """Whether an expression cannot fail: a literal, or a function that is not called yet."""
    return code.rank == 1 or code.flat in ("True", "False", "None") or code.flat[0] in "'\"-.0123456789"


_KINDS: Mapping[type[nodes.Node], Callable[[_Reader, Any], Code]] = {
    nodes.Name: _Reader.name,
    nodes.Getattr: _Reader.getattr_,
    nodes.Getitem: _Reader.getitem,
    nodes.Const: _Reader.const,
    nodes.List: _Reader.list_,
    nodes.Tuple: _Reader.list_,
    nodes.Dict: _Reader.dict_,
    nodes.Add: _Reader.binary,
    nodes.Sub: _Reader.binary,
    nodes.Mul: _Reader.binary,
    nodes.Div: _Reader.binary,
    nodes.FloorDiv: _Reader.binary,
    nodes.Mod: _Reader.binary,
    nodes.Pow: _Reader.binary,
    nodes.Neg: _Reader.sign,
    nodes.Pos: _Reader.sign,
    nodes.And: _Reader.both,
    nodes.Or: _Reader.either,
    nodes.Not: _Reader.not_,
    nodes.Compare: _Reader.compare,
    nodes.Concat: _Reader.concat,
    nodes.CondExpr: _Reader.condition,
    nodes.Filter: _Reader.filter,
    nodes.Call: _Reader.call,
    nodes.Test: _Reader.test,
}

__all__ = ["Formulas", "Scope"]
