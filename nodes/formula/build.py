"""Turns a formula's tree into Python closures: the only thing that runs. Nothing is generated and nothing is looked up
on Python objects: a dot is a record's key, a call is an entry of the fixed table.

Every closure is `run(scope, meter)`. Inside a formula for each item of a list the scope is `(item, scope around it)`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import nodes

from nodes.formula import lookup, operators, table
from nodes.formula.functions.kinds import CHECK_ALIASES, CHECKS
from nodes.formula.meter import Meter
from nodes.formula.parse import Tree, parse
from nodes.formula.problems import FormulaError, Missing, Span, forbidden, nearest
from nodes.formula.values import to_text

Run = Callable[[Any, Meter], Any]

METHODS: Mapping[str, str] = {"pop": "last", "contains": "contains", "has": "contains", "keys": "keys", "at": "get"}
_NESTED = 3


class Builder:
    """Compiles one tree; `around` is the builder of the formula in which an item formula is written."""

    def __init__(self, tree: Tree, around: "Builder | None" = None, offset: int = 0) -> None:
        self.tree = tree
        self.around = around
        self.offset = offset
        self.names: dict[str, None] = {}
        self.paths: dict[str, None] = {}
        self.depth: int = around.depth + 1 if around else 0

    def run(self) -> Run:
        """The closure of the whole tree."""
        return self.build(self.tree.root)

    def build(self, node: nodes.Node) -> Run:
        """The closure of one node, if its kind is one of those listed here."""
        builder = _KINDS.get(type(node))
        if builder is None:
            forbidden(
                f"`{type(node).__name__}` does not exist in formulas.",
                "Use paths, operators and filters.",
                self.span(node),
            )
        return builder(self, node)

    def span(self, node: nodes.Node) -> Span:
        """Where a node's token stands in the text that the person wrote."""
        return self.shifted(self.tree.span(node))

    def shifted(self, span: Span) -> Span:
        """A span of this tree as one of the outermost text."""
        return span[0] + self.offset, span[1] + self.offset

    # Names and paths

    def name(self, node: nodes.Name) -> Run:
        """A name on its own."""
        return self.path(node.name, (), self.span(node))

    def path(self, name: str, keys: tuple[str, ...], span: Span) -> Run:
        """A name with the fields after it."""
        for part in (name, *keys):
            if part.startswith("__") and part.endswith("__"):
                forbidden(f"`{part[:40]}` is not a name that formulas know.", "Names are those of your data.", span)
        if self.around is None:
            self.names[name] = None
            self.paths[".".join((name, *keys))] = None
            return lookup.path(name, keys, span)
        if name == "item":
            return lookup.fields(lookup.item, "item", keys, span)
        if name == "outer":
            if not keys:
                forbidden("`outer` needs a name after it.", "Write for example `outer.limit`.", span)
            return lookup.around(self.around.path(keys[0], keys[1:], span))
        return lookup.item_path(name, keys, span, table.find(name) if self.tree.root.__class__ is nodes.Name else None)

    def getattr_(self, node: nodes.Getattr) -> Run:
        """A field by its name after a dot, or by its quoted name in brackets."""
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
        span = self.shifted(self.tree.after(node.lineno))
        if isinstance(base, nodes.Name):
            return self.path(base.name, tuple(keys), (self.span(base)[0], span[1]))
        if any(key.startswith("__") and key.endswith("__") for key in keys):
            forbidden("This is not a name that formulas know.", "Names are those of your data.", span)
        return lookup.fields(self.build(base), "this value", tuple(keys), span)

    def getitem(self, node: nodes.Getitem) -> Run:
        """An item by its position, a field by its name, or a slice."""
        if isinstance(node.arg, nodes.Const) and type(node.arg.value) is str:
            return self.getattr_(node)  # type: ignore[arg-type]  # read alike
        owner, span = self.build(node.node), self.span(node)
        if isinstance(node.arg, nodes.Slice):
            start, stop, step = (
                self.build(part) if part else _nothing for part in (node.arg.start, node.arg.stop, node.arg.step)
            )
            return operators.cut(owner, start, stop, step, span)
        return operators.item(owner, self.build(node.arg), span)

    # Literals

    def const(self, node: nodes.Const) -> Run:
        """A number, text, true, false or none."""
        value = node.value
        return lambda scope, meter: value

    def list_(self, node: nodes.List | nodes.Tuple) -> Run:
        """A list in brackets."""
        return operators.listed([self.build(item) for item in node.items])

    def dict_(self, node: nodes.Dict) -> Run:
        """A record in braces."""
        pairs = []
        for pair in node.items:
            key = pair.key
            if isinstance(key, nodes.Name):
                forbidden(
                    f"The field name `{key.name[:40]}` needs quotes.", f'Write `"{key.name}": …`.', self.span(key)
                )
            if not isinstance(key, nodes.Const) or type(key.value) is not str:
                forbidden("A field name must be a text in quotes.", 'Write `{"name": value}`.', self.span(pair))
            pairs.append((key.value, self.build(pair.value)))
        return operators.recorded(pairs)

    # Operators

    def binary(self, node: nodes.BinExpr) -> Run:
        """Arithmetic between two values."""
        return operators.arithmetic(
            type(node).__name__, self.build(node.left), self.build(node.right), _constant(node.right), self.span(node)
        )

    def both(self, node: nodes.And) -> Run:
        """`and`: the first value that is not true, else the last."""
        left, right = self.build(node.left), self.build(node.right)
        return lambda scope, meter: left(scope, meter) and right(scope, meter)

    def either(self, node: nodes.Or) -> Run:
        """`or`: the first value that is true, else the last."""
        left, right = self.build(node.left), self.build(node.right)
        return lambda scope, meter: left(scope, meter) or right(scope, meter)

    def not_(self, node: nodes.Not) -> Run:
        """`not`."""
        value = self.build(node.node)
        return lambda scope, meter: not value(scope, meter)

    def sign(self, node: nodes.UnaryExpr) -> Run:
        """A minus or plus sign before a value."""
        return operators.signed(type(node) is nodes.Neg, self.build(node.node), self.span(node))

    def compare(self, node: nodes.Compare) -> Run:
        """One comparison, or several in a row such as `1 < x < 10`."""
        rest = [(operand.op, self.build(operand.expr)) for operand in node.ops]
        span = self.span(node)
        if len(rest) == 1:
            return operators.comparison(
                rest[0][0], self.build(node.expr), rest[0][1], _constant(node.ops[0].expr), span
            )
        return operators.comparisons(self.build(node.expr), rest, span)

    def concat(self, node: nodes.Concat) -> Run:
        """`~`: values joined as texts."""
        parts = [self.build(part) for part in node.nodes]

        def run(scope: Any, meter: Meter) -> Any:
            texts = [to_text(part(scope, meter), meter) for part in parts]
            meter.make(sum(map(len, texts)))
            return "".join(texts)

        return run

    def condition(self, node: nodes.CondExpr) -> Run:
        """`a if condition else b`."""
        test, yes = self.build(node.test), self.build(node.expr1)
        no = self.build(node.expr2) if node.expr2 is not None else _nothing
        return lambda scope, meter: yes(scope, meter) if test(scope, meter) else no(scope, meter)

    # Calls

    def filter(self, node: nodes.Filter) -> Run:
        """`value | name(settings)`."""
        assert node.node is not None
        return self.call_of(node.name, [node.node, *node.args], node, self.span(node))

    def call(self, node: nodes.Call) -> Run:
        """`name(value)` or `value.name(settings)`; nothing else can be called."""
        target = node.node
        if isinstance(target, nodes.Name):
            return self.call_of(target.name, list(node.args), node, self.span(target))
        if isinstance(target, nodes.Getattr):
            span = self.shifted(self.tree.after(target.lineno))
            return self.call_of(target.attr, [target.node, *node.args], node, span, method=True)
        forbidden("Only functions of the list can be called.", "Write `value | name`.", self.span(node))

    def call_of(
        self,
        name: str,
        arguments: list[nodes.Expr],
        node: nodes.Call | nodes.Filter,
        span: Span,
        *,
        method: bool = False,
    ) -> Run:
        """A call of a function of the table, in whichever of the three ways it was written."""
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            forbidden("`*` and `**` do not exist in calls.", "Write the settings one by one.", span)
        keywords: dict[str, nodes.Expr] = {}
        for keyword in node.kwargs:
            assert isinstance(keyword, nodes.Keyword)
            keywords[keyword.key] = keyword.value
        if len(keywords) < len(node.kwargs):
            raise FormulaError("A setting is given twice.", code="formula.arguments", fix="Remove one.", span=span)
        if name in ("default", "d"):
            return self.default(arguments, keywords, span)
        entry = table.get(METHODS.get(name, name) if method else name, span)
        if entry.takes is None:
            if method or isinstance(node, nodes.Filter):
                raise FormulaError(
                    f"`{name}` works on no value.", code="formula.arguments", fix=f"Write `{name}()`.", span=span
                )
            return operators.called(entry, None, self.settings(entry, arguments, keywords, span), span)
        if not arguments:
            raise FormulaError(
                f"`{name}` needs a value to work on.",
                code="formula.arguments",
                fix=f"Write `{entry.signature}`.",
                span=span,
            )
        value = self.build(arguments[0])
        return operators.called(entry, value, self.settings(entry, arguments[1:], keywords, span), span)

    def settings(
        self, entry: table.Function, given: list[nodes.Expr], keywords: dict[str, nodes.Expr], span: Span
    ) -> list[Run]:
        """The closures of a call's settings, in the order the function wants them."""

        def wrong(message: str) -> FormulaError:
            fix = f"It is written `{entry.signature}`."
            return FormulaError(message, code="formula.arguments", fix=fix, span=span)

        out: list[Run] = []
        rest = list(given)
        named = {entry.keywords.get(key, key): value for key, value in keywords.items()}
        if len(named) < len(keywords):
            raise wrong(f"A setting of `{entry.name}` is given twice.")
        for setting in entry.settings:
            if setting.many:
                out.extend(self.build(value) for value in rest)
                rest = []
                continue
            if rest:
                if setting.name in named:
                    raise wrong(f"The setting `{setting.name}` of `{entry.name}` is given twice.")
                value: nodes.Expr | None = rest.pop(0)
            else:
                value = named.pop(setting.name, None)
            if value is None:
                if setting.required:
                    raise wrong(f"`{entry.name}` also needs `{setting.name}`.")
                fixed = setting.default
                out.append(lambda scope, meter, fixed=fixed: fixed)  # type: ignore[misc]
            else:
                out.append(self.each(value, entry) if setting.each else self.build(value))
        if rest:
            raise wrong(f"`{entry.name}` was given too many settings.")
        if named:
            raise wrong(f"`{entry.name}` has no setting `{next(iter(named))[:40]}`.")
        return out

    def each(self, node: nodes.Expr, entry: table.Function) -> Run:
        """A setting worked out for each item. It must be written out: data never becomes a formula."""
        if isinstance(node, nodes.Const) and node.value is None:
            return _nothing
        if not isinstance(node, nodes.Const) or type(node.value) is not str:
            forbidden(
                f"`{entry.name}` needs its field or formula between quotes.",
                f'Write for example `{entry.name}("price")`.',
                self.span(node),
            )
        if self.depth >= _NESTED:
            raise FormulaError(
                "Formulas within formulas are nested too deeply.",
                code="formula.budget",
                fix="Split it over several nodes.",
                span=self.span(node),
            )
        offset = self.span(node)[0] + 1
        try:
            tree = parse(node.value)
        except FormulaError as error:
            error.span = self.span(node) if error.span is None else (error.span[0] + offset, error.span[1] + offset)
            raise
        return operators.for_each(Builder(tree, self, offset).run(), tree.size)

    def default(self, arguments: list[nodes.Expr], keywords: dict[str, nodes.Expr], span: Span) -> Run:
        """`value | default(other, true)`: the other when the value is missing or nothing; with `true` also when empty."""
        other = arguments[1] if len(arguments) > 1 else keywords.pop("value", keywords.pop("default_value", None))
        empty = arguments[2] if len(arguments) > 2 else keywords.pop("boolean", None)
        if len(arguments) > 3 or keywords or not arguments:
            raise FormulaError(
                "`default` takes a value, and `true` to replace empty ones too.",
                code="formula.arguments",
                fix='Write `| default("…")`.',
                span=span,
            )
        value = self.build(arguments[0])
        fallback = self.build(other) if other is not None else (lambda scope, meter: "")
        when_empty = self.build(empty) if empty is not None else None

        def run(scope: Any, meter: Meter) -> Any:
            try:
                found = value(scope, meter)
            except Missing:
                return fallback(scope, meter)
            if found is None or (not found and when_empty is not None and when_empty(scope, meter)):
                return fallback(scope, meter)
            return found

        return run

    def test(self, node: nodes.Test) -> Run:
        """`value is name` or `value is name(other)`."""
        span = self.shifted(self.tree.after(node.lineno))
        value = self.build(node.node)
        arguments = [self.build(argument) for argument in node.args]
        if node.kwargs or node.dyn_args is not None or node.dyn_kwargs is not None:
            forbidden("Tests take plain values only.", "Write `value is divisibleby(3)`.", span)
        if node.name in ("defined", "undefined"):
            if arguments:
                raise FormulaError(
                    f"`is {node.name}` needs nothing after it.",
                    code="formula.arguments",
                    fix=f"Write `value is {node.name}`.",
                    span=span,
                )
            return _defined(value, node.name == "defined")
        name = CHECK_ALIASES.get(node.name, node.name)
        if name not in CHECKS:
            guess = nearest(node.name, ["defined", *CHECKS, *CHECK_ALIASES])
            raise FormulaError(
                f"There is no test `is {node.name[:40]}`" + (f", did you mean `is {guess}`?" if guess else "."),
                code="formula.unknown_function",
                fix="Tests are: " + ", ".join(["defined", *CHECKS]) + ".",
                span=span,
            )
        check, wanted = CHECKS[name]
        if len(arguments) != wanted:
            message = f"`is {name}` needs {'a value after it' if wanted else 'nothing after it'}."
            fix = f"Write `value is {name}{'(…)' if wanted else ''}`."
            raise FormulaError(message, code="formula.arguments", fix=fix, span=span)
        return operators.tested(check, value, arguments, span)


_KINDS: Mapping[type[nodes.Node], Callable[[Builder, Any], Run]] = {
    nodes.Name: Builder.name,
    nodes.Getattr: Builder.getattr_,
    nodes.Getitem: Builder.getitem,
    nodes.Const: Builder.const,
    nodes.List: Builder.list_,
    nodes.Tuple: Builder.list_,
    nodes.Dict: Builder.dict_,
    nodes.Add: Builder.binary,
    nodes.Sub: Builder.binary,
    nodes.Mul: Builder.binary,
    nodes.Div: Builder.binary,
    nodes.FloorDiv: Builder.binary,
    nodes.Mod: Builder.binary,
    nodes.Pow: Builder.binary,
    nodes.Neg: Builder.sign,
    nodes.Pos: Builder.sign,
    nodes.And: Builder.both,
    nodes.Or: Builder.either,
    nodes.Not: Builder.not_,
    nodes.Compare: Builder.compare,
    nodes.Concat: Builder.concat,
    nodes.CondExpr: Builder.condition,
    nodes.Filter: Builder.filter,
    nodes.Call: Builder.call,
    nodes.Test: Builder.test,
}
"""The whole language: a kind of node that is not here is refused."""


def _nothing(scope: Any, meter: Meter) -> Any:
    return None


def _constant(node: nodes.Expr) -> Any:
    return node.value if isinstance(node, nodes.Const) else None


def _defined(value: Run, wanted: bool) -> Run:
    def run(scope: Any, meter: Meter) -> Any:
        try:
            value(scope, meter)
        except Missing:
            return not wanted
        return wanted

    return run
