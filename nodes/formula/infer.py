"""Reads formulas against the shape of what can arrive: misspelt names and kinds that do not go together show while
writing, and so does the shape of the result.
"""

from collections.abc import Iterable

from jinja2 import nodes

from nodes.formula import table
from nodes.formula.build import METHODS
from nodes.formula.compiled import compile_formula, compile_text, pieces
from nodes.formula.lookup import PROPERTIES
from nodes.formula.parse import Tree, parse
from nodes.formula.problems import FormulaError, Position, Problem, Span, nearest, short
from nodes.formula.results import result_of
from nodes.shape import (
    ANY,
    NOTHING,
    NUMBER,
    TEXT,
    YES_NO,
    Shape,
    list_of,
    one_of,
    record,
    shape_of,
    without_nothing,
)

_VERBS = {
    "Add": "add",
    "Sub": "subtract",
    "Mul": "multiply",
    "Div": "divide",
    "FloorDiv": "divide",
    "Mod": "divide",
    "Pow": "raise",
}
_KINDS = {"any", "one of"}


def check_formula(text: str, schema: Shape) -> list[Problem]:
    """What is wrong with a formula, given the record of what can arrive."""
    try:
        compile_formula(text)
        return _read(text, schema, text, 0)[1]
    except FormulaError as error:
        return [_problem(error)]


def check_text(text: str, schema: Shape) -> list[Problem]:
    """What is wrong with the formulas in a text, given the record of what can arrive."""
    try:
        parts = [(part, span) for part, span in pieces(text) if span is not None]
    except FormulaError as error:
        return [_problem(error.located(text))]
    problems: list[Problem] = []
    for part, span in parts:
        try:
            compile_formula(part)
            problems += _read(part, schema, text, span[0])[1]
        except FormulaError as error:
            own = error.span or (0, len(part))
            place = Position.of(text, (own[0] + span[0], own[1] + span[0]))
            problems.append(Problem(error.code, error.message, error.fix, place))
    if not problems:
        try:
            compile_text(text)
        except FormulaError as error:
            problems.append(_problem(error))
    return problems


def infer(text: str, schema: Shape) -> Shape:
    """The shape of a formula's result, given the record of what can arrive; `any` when it cannot be known."""
    try:
        compile_formula(text)
        return _read(text, schema, text, 0)[0]
    except FormulaError:
        return ANY


def infer_text(text: str, schema: Shape) -> Shape:
    """The shape of a filled-in text: text, or that of the only formula when the text is nothing else."""
    try:
        parts = pieces(text)
    except FormulaError:
        return ANY
    return infer(parts[0][0], schema) if len(parts) == 1 and parts[0][1] is not None else TEXT


def _problem(error: FormulaError) -> Problem:
    return Problem(error.code, error.message, error.fix, error.position)


def _read(formula: str, schema: Shape, source: str, offset: int) -> tuple[Shape, list[Problem]]:
    reader = _Reader(parse(formula), schema, source, offset, None)
    return reader.shape(reader.tree.root), reader.problems


class _Reader:
    """Walks one tree. Inside a formula for each item, `scope` is the item's shape and `around` what is outside."""

    def __init__(self, tree: Tree, scope: Shape, source: str, offset: int, around: "_Reader | None") -> None:
        self.tree = tree
        self.scope = scope
        self.source = source
        self.offset = offset
        self.around = around
        self.lenient = 0
        self.problems: list[Problem] = around.problems if around else []

    def shape(self, node: nodes.Node) -> Shape:
        match node:
            case nodes.Const():
                return shape_of(node.value)
            case nodes.Name():
                return self.name(node.name, self.span(node))
            case nodes.Getattr():
                return self.attribute(node)
            case nodes.Getitem():
                return self.item(node)
            case nodes.List() | nodes.Tuple():
                return list_of(one_of(*map(self.shape, node.items)))
            case nodes.Dict():
                return record(
                    {pair.key.value: self.shape(pair.value) for pair in node.items if isinstance(pair.key, nodes.Const)}
                )
            case nodes.Compare():
                return self.compare(node)
            case nodes.BinExpr() if type(node).__name__ in _VERBS:
                return self.arithmetic(
                    type(node).__name__, self.shape(node.left), self.shape(node.right), self.span(node)
                )
            case nodes.And() | nodes.Or():
                return one_of(self.shape(node.left), self.shape(node.right))
            case nodes.Not():
                self.shape(node.node)
                return YES_NO
            case nodes.Neg() | nodes.Pos():
                return self.signed(node)
            case nodes.Concat():
                for part in node.nodes:
                    self.shape(part)
                return TEXT
            case nodes.CondExpr():
                self.shape(node.test)
                other = self.shape(node.expr2) if node.expr2 is not None else NOTHING
                return one_of(self.shape(node.expr1), other)
            case nodes.Filter() if node.node is not None:
                return self.call(node.name, [node.node, *node.args], node, self.span(node))
            case nodes.Call():
                return self.called(node)
            case nodes.Test():
                return self.test(node)
        return ANY

    # Names

    def name(self, name: str, span: Span) -> Shape:
        if self.around is None:
            return self.field(self.scope, name, None, span)
        if name == "item":
            return self.scope
        if name == "outer":
            return ANY
        if self.scope.kind != "record" and (entry := table.find(name)) and self.tree.root.__class__ is nodes.Name:
            return ANY if self.scope.kind in _KINDS else result_of(entry, self.scope, [], [])
        return self.field(self.scope, name, "item", span)

    def attribute(self, node: nodes.Getattr) -> Shape:
        span = self.shifted(self.tree.after(node.lineno))
        if self.around is not None and isinstance(node.node, nodes.Name) and node.node.name == "outer":
            self.around.lenient += self.lenient > 0
            try:
                return self.around.name(node.attr, span)
            finally:
                self.around.lenient -= self.lenient > 0
        return self.field(self.shape(node.node), node.attr, self.words(node.node), span)

    def field(self, owner: Shape, name: str, called: str | None, span: Span) -> Shape:
        """The shape of a field, and a problem when it cannot be there."""
        place = f" in `{called}`" if called else ""
        if owner.kind == "one of":
            records = [option for option in owner.options if option.kind == "record"]
            if not records:
                owner = owner.options[0] if len(owner.options) == 1 else without_nothing(owner)
            else:
                if any(option.kind == "nothing" for option in owner.options) and not self.lenient:
                    self.report(
                        "formula.may_be_missing",
                        f"`{called}` may be empty.",
                        "Add `| default(…)` at the end.",
                        span,
                        True,
                    )
                owner = one_of(*records)
        if owner.kind in _KINDS:
            return ANY
        if owner.kind == "record":
            if name in owner.fields:
                if name in owner.optional and not self.lenient:
                    self.report(
                        "formula.may_be_missing",
                        f"`{name}`{place} is not always there.",
                        "Add `| default(…)`.",
                        span,
                        True,
                    )
                return owner.fields[name]
            if not owner.open:
                self.unknown(name, owner.fields, place, span)
            return ANY
        if owner.kind in ("list", "text", "moment") and name in PROPERTIES:
            return NUMBER if name == "length" else (owner.items if owner.kind == "list" else TEXT)
        if owner.kind == "nothing":
            if not self.lenient:
                self.report(
                    "formula.may_be_missing", f"`{called}` was empty in the sample.", "Add `| default(…)`.", span, True
                )
            return ANY
        fix = (
            f'To take it from each item write `{called} | map("{name}")`.'
            if owner.kind == "list"
            else "Only records have fields."
        )
        self.report("formula.type", f"`{called}` is a {owner.kind}, so it has no field `{short(name)}`.", fix, span)
        return ANY

    def unknown(self, name: str, known: Iterable[str], place: str, span: Span) -> None:
        names = list(known)
        guess = nearest(name, names)
        listed = ", ".join(f"`{short(other, 30)}`" for other in names[:8])
        fix = f"Write `{guess}`." if guess else f"There is: {listed}." if listed else "Nothing arrives here yet."
        question = f", did you mean `{guess}`?" if guess else "."
        self.report(
            "formula.unknown_name", f"Unknown name `{short(name)}`{place}{question}", fix, span, self.lenient > 0
        )

    def item(self, node: nodes.Getitem) -> Shape:
        owner = self.shape(node.node)
        if isinstance(node.arg, nodes.Slice):
            for part in (node.arg.start, node.arg.stop, node.arg.step):
                if part is not None:
                    self.shape(part)
            return owner
        if isinstance(node.arg, nodes.Const) and type(node.arg.value) is str:
            return self.field(owner, node.arg.value, self.words(node.node), self.span(node))
        index = self.shape(node.arg)
        kinds = [option.kind for option in owner.options] or [owner.kind]
        if "nothing" in kinds and not self.lenient:
            self.report(
                "formula.may_be_missing",
                f"`{self.words(node.node)}` may be empty.",
                "Add `| default(…)`.",
                self.span(node),
                True,
            )
        if owner.kind == "list":
            if index.kind in ("text", "record", "list", "yes/no"):
                self.report(
                    "formula.type",
                    f"A position in a list is a number, not a {index.kind}.",
                    "Write `items[0]`.",
                    self.span(node),
                )
            return owner.items
        return TEXT if owner.kind == "text" else ANY

    # Operators

    def arithmetic(self, name: str, left: Shape, right: Shape, span: Span) -> Shape:
        one, other = _kind(left), _kind(right)
        if one == other == "number":
            return NUMBER
        if name == "Add" and one == other and one in ("text", "list"):
            return left if one == "list" and left == right else list_of() if one == "list" else TEXT
        if name == "Mul" and {one, other} == {"text", "number"}:
            return TEXT
        if one in _KINDS or other in _KINDS:
            wrong = {one, other} & {"record", "yes/no", "nothing"} or (
                name not in ("Add", "Mul") and {one, other} & {"text", "list"}
            )
            if not wrong:
                return ANY if name in ("Add", "Mul") else NUMBER
        joiner = {"Div": "by", "FloorDiv": "by", "Mod": "by", "Pow": "to the power of"}.get(name, "and")
        if "text" in (one, other) and "number" in (one, other):
            fix = "To calculate, turn the text into a number with `| number`; to join as text, write `~` or `{{ … }}`."
        elif "list" in (one, other):
            fix = 'To work on each item write `| map("…")`; to add numbers up write `| sum`.'
        else:
            fix = "Both sides must be numbers, or be of one kind."
        self.report("formula.type", f"I cannot {_VERBS[name]} {_a(one)} {joiner} {_a(other)}.", fix, span)
        return ANY

    def signed(self, node: nodes.Neg | nodes.Pos) -> Shape:
        kind = _kind(self.shape(node.node))
        if kind not in _KINDS and kind != "number":
            self.report(
                "formula.type",
                f"A minus or plus sign needs a number, not {_a(kind)}.",
                "Add `| number`.",
                self.span(node),
            )
        return NUMBER

    def compare(self, node: nodes.Compare) -> Shape:
        left = self.shape(node.expr)
        for operand in node.ops:
            right = self.shape(operand.expr)
            one, other = _kind(left), _kind(right)
            known = one not in _KINDS and other not in _KINDS
            span = self.span(node)
            if operand.op in ("in", "notin"):
                if other in ("number", "yes/no", "nothing"):
                    self.report(
                        "formula.type",
                        f"I cannot look inside {_a(other)}.",
                        "`in` needs a text, a list or a record on its right.",
                        span,
                    )
                elif other == "text" and one not in _KINDS and one != "text":
                    self.report(
                        "formula.type", f"A text can only contain a text, not {_a(one)}.", "Add `| text`.", span
                    )
            elif operand.op in ("eq", "ne"):
                if known and one != other and "nothing" not in (one, other):
                    always = "never" if operand.op == "eq" else "always"
                    relation = "equal" if operand.op == "eq" else "different"
                    message = f"{_a(one).capitalize()} and {_a(other)} are {always} {relation}."
                    self.report(
                        "formula.type",
                        message,
                        "Turn one into the other's kind with `| number` or `| text`.",
                        span,
                        True,
                    )
            elif (known and (one != other or one not in ("number", "text"))) or {one, other} & {
                "record",
                "list",
                "yes/no",
            }:
                fix = (
                    "Turn the text into a number with `| number`."
                    if {one, other} == {"text", "number"}
                    else "Both sides must be numbers or both texts."
                )
                self.report("formula.type", f"I cannot compare {_a(one)} and {_a(other)}.", fix, span)
            left = right
        return YES_NO

    # Calls

    def called(self, node: nodes.Call) -> Shape:
        target = node.node
        if isinstance(target, nodes.Name):
            return self.call(target.name, list(node.args), node, self.span(target))
        if isinstance(target, nodes.Getattr):
            span = self.shifted(self.tree.after(target.lineno))
            return self.call(METHODS.get(target.attr, target.attr), [target.node, *node.args], node, span)
        return ANY

    def call(self, name: str, arguments: list[nodes.Expr], node: nodes.Call | nodes.Filter, span: Span) -> Shape:
        keywords = {keyword.key: keyword.value for keyword in node.kwargs if isinstance(keyword, nodes.Keyword)}
        if name in ("default", "d"):
            return self.default(arguments, list(keywords.values()))
        entry = table.find(name)
        if entry is None:
            return ANY
        value = ANY if entry.takes is None else self.shape(arguments[0])
        rest = arguments if entry.takes is None else arguments[1:]
        self.takes(entry, value, span)
        item = value.items if value.kind == "list" else ANY
        each: list[Shape] = []
        given: list[nodes.Expr] = []
        settings = {setting.name: setting for setting in entry.settings}
        named = [(settings.get(entry.keywords.get(str(key), str(key))), part) for key, part in keywords.items()]
        positional = [
            (entry.settings[index] if index < len(entry.settings) else None, part) for index, part in enumerate(rest)
        ]
        for setting, part in positional + named:
            if setting is not None and setting.each and isinstance(part, nodes.Const) and type(part.value) is str:
                inner = _Reader(parse(part.value), item, self.source, self.span(part)[0] + 1, self)
                inner.lenient = self.lenient
                each.append(inner.shape(inner.tree.root))
            else:
                given.append(part)
        return result_of(entry, value, each, [(part, self.shape(part)) for part in given])

    def takes(self, entry: table.Function, value: Shape, span: Span) -> None:
        kind = _kind(value)
        if entry.takes is None or entry.accepts is None or value.kind in _KINDS:
            return
        wanted = {"text" if accepted == "moment" else accepted for accepted in entry.takes}
        if "moment" in entry.takes:
            wanted.add("number")
        if kind in wanted or (kind == "nothing" and self.lenient):
            return
        sample: object = {"text": "", "number": 0, "yes/no": True, "list": [], "record": {}}.get(kind)
        error = entry.wrong(sample)
        self.report(error.code, error.message, error.fix, span)

    def default(self, arguments: list[nodes.Expr], more: list[nodes.Expr]) -> Shape:
        self.lenient += 1
        value = self.shape(arguments[0])
        self.lenient -= 1
        others = [self.shape(part) for part in [*arguments[1:], *more]]
        return one_of(without_nothing(value), others[0] if others else TEXT)

    def test(self, node: nodes.Test) -> Shape:
        soft = node.name in ("defined", "undefined", "none", "empty", "null", "nothing")
        self.lenient += soft
        self.shape(node.node)
        self.lenient -= soft
        for argument in node.args:
            self.shape(argument)
        return YES_NO

    # Places and problems

    def span(self, node: nodes.Node) -> Span:
        return self.shifted(self.tree.span(node))

    def shifted(self, span: Span) -> Span:
        return span[0] + self.offset, span[1] + self.offset

    def words(self, node: nodes.Node) -> str:
        """A path as the person wrote it, for a sentence."""
        if isinstance(node, nodes.Name):
            return node.name
        if isinstance(node, nodes.Getattr):
            return f"{self.words(node.node)}.{node.attr}"
        return f"{self.words(node.node)}[…]" if isinstance(node, nodes.Getitem) else "this value"

    def report(self, code: str, message: str, fix: str | None, span: Span, warning: bool = False) -> None:
        problem = Problem(code, message, fix, Position.of(self.source, span), "warning" if warning else "error")
        if problem not in self.problems:
            self.problems.append(problem)


def _kind(shape: Shape) -> str:
    return "text" if shape.kind == "moment" else shape.kind


def _a(kind: str) -> str:
    return {"nothing": "nothing", "any": "some value", "one of": "a mixed value"}.get(kind, f"a {kind}")
