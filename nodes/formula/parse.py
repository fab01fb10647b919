"""Reads a formula: Jinja's lexer rules and Jinja's expression parser, and nothing else of Jinja.

The tree's line numbers are offsets into the source: that is how every error knows its exact place. Literals are read
here and not by Jinja, which hands numbers to Python's own compiler and texts to a codec.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.lexer import TOKEN_EOF, Token, TokenStream, operators
from jinja2.parser import Parser

from nodes.formula.problems import FormulaError, Span

LONGEST = 10_000
DEEPEST_BRACKETS = 32
DEEPEST_TREE = 120
LONGEST_CHAIN = 100

_ENVIRONMENT = Environment(autoescape=False)  # noqa: S701 - only its lexer rules are used, nothing is rendered
_LEXER = _ENVIRONMENT.lexer
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "\n": ""}
_HABITS = (
    ("===", "Write `==` to compare."),
    ("!==", "Write `!=` to compare."),
    ("&&", "Write `and`."),
    ("||", "Write `or`; for a missing value write `| default(…)`."),
    ("??", "Write `| default(…)`."),
    ("=>", 'Write the formula for each item between quotes: `map("price * 2")`.'),
    ("?", "Write `a if condition else b`."),
    ("$", "Write the name without `$`."),
    ("`", "Write a text between quotes."),
    ("!", "Write `not`, or `!=` to compare."),
    ("&", "Write `and`, or `~` to join texts."),
    ("{%", "Blocks do not exist here: write `a if condition else b`."),
    ("@", "Write the name without `@`."),
    ("“", 'Use straight quotes: `"…"`.'),
    ("”", 'Use straight quotes: `"…"`.'),
    (";", "Write one formula only, without `;`."),
    ("}}", "Write the formula without `{{` and `}}`."),
    ("{{", "Write the formula without `{{` and `}}`."),
    ("=", "Write `==` to compare; a formula cannot set a value."),
)


@dataclass(frozen=True, slots=True)
class Tree:
    """A formula that was read: its source, the parser's tree, and where each token ends."""

    source: str
    root: nodes.Expr
    ends: dict[int, int]
    size: int

    def span(self, node: nodes.Node) -> Span:
        """Where a node's own token stands in the source."""
        return self.token(node.lineno)

    def token(self, start: int) -> Span:
        """Where the token that begins here stands in the source."""
        return start, self.ends.get(start, start + 1)

    def after(self, start: int) -> Span:
        """Where the token after the one that begins here stands: the name after a dot."""
        end = self.ends.get(start, start)
        while end < len(self.source) and end not in self.ends:
            end += 1
        return (end, self.ends[end]) if end in self.ends else self.token(start)


@functools.lru_cache(maxsize=2048)
def parse(source: str) -> Tree:
    """Read a formula; the error of a broken one has its place as offsets."""
    if len(source) > LONGEST:
        raise FormulaError(
            f"This formula is too long: {len(source):,} of at most {LONGEST:,} characters.",
            code="formula.budget",
            fix="Split it over several nodes.",
        )
    if not source.strip():
        raise FormulaError("The formula is empty.", code="formula.syntax", fix="Write for example `order.total > 100`.")
    tokens = list(_tokens(source))
    _limit(tokens)
    stream = _Stream(tokens, len(source))
    parser = _Reader(stream)
    try:
        root = parser.parse_expression()
    except TemplateSyntaxError as error:
        raise _broken(source, error.lineno, stream.current.type, error.message or "") from None
    except RecursionError:
        raise _too_deep() from None
    if not stream.eos:
        raise _broken(source, stream.current.lineno, stream.current.type, "")
    ends = {token.lineno: token.end for token in tokens}
    return Tree(source, root, ends, _measure(root))


class _Located(Token):
    """A token whose line number is its offset; it also knows its end."""

    end: int


class _Stream(TokenStream):
    """A stream whose end has an offset too."""

    def __init__(self, tokens: Sequence[Token], length: int) -> None:
        self._length = length
        super().__init__(tokens, None, None)

    def close(self) -> None:
        super().close()
        self.current = Token(self._length, TOKEN_EOF, "")


class _Reader(Parser):
    """Jinja's expression parser over our tokens."""

    def __init__(self, stream: TokenStream) -> None:
        # Deliberately not calling super(): it would run Jinja's own reading of literals.
        self.environment = _ENVIRONMENT
        self.stream = stream
        self.name = self.filename = None
        self.closed = False
        self.extensions = {}
        self._last_identifier = 0
        self._tag_stack = []
        self._end_token_stack = []


def _tokens(source: str) -> Iterator[_Located]:
    # A carriage return would be dropped by the lexer and shift every offset after it.
    text = source.replace("\r\n", " \n").replace("\r", "\n").rstrip("\n")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise FormulaError("The formula contains a broken character.", code="formula.syntax", fix="Type it again.")
    offset = 0
    before = ""
    try:
        for _, kind, raw in _LEXER.tokeniter(text, None, None, "variable"):
            span = (offset, offset + len(raw))
            offset = span[1]
            if kind == "whitespace":
                continue
            token = _token(kind, raw, span, before)
            before = token.type
            yield token
            if kind == "variable_end":
                break
    except TemplateSyntaxError:
        raise _broken(source, offset, "", "") from None


def _token(kind: str, raw: str, span: Span, before: str) -> _Located:
    value: object = raw
    if kind == "operator":
        kind = operators[raw]
    elif kind == "string":
        value = _text(raw[1:-1], span)
    elif kind == "integer":
        value = _whole(raw, span)
    elif kind == "float":
        value = float(raw.replace("_", ""))
        if value in (float("inf"), float("-inf")):
            raise _big(span)
    elif kind == "name":
        if not raw.isidentifier():
            raise FormulaError(
                f"`{raw[:40]}` is not a name.", code="formula.syntax", fix="A name begins with a letter.", span=span
            )
        if raw == "null" and before != "dot":
            value = "none"
    token = _Located(span[0], kind, value)  # type: ignore[arg-type]  # Jinja's own tokens hold numbers too
    token.end = span[1]
    return token


def _whole(raw: str, span: Span) -> int:
    digits = raw.replace("_", "")
    if len(digits) > 66:
        raise _big(span)
    number = int(digits, 0)
    if number >= 2**63:
        raise _big(span)
    return number


def _big(span: Span) -> FormulaError:
    return FormulaError(
        "This number is too big.", code="formula.budget", fix="Whole numbers may have up to 18 digits.", span=span
    )


def _text(raw: str, span: Span) -> str:
    if "\\" not in raw:
        return raw
    out: list[str] = []
    index = 0
    while index < len(raw):
        char = raw[index]
        if char != "\\":
            out.append(char)
            index += 1
            continue
        follow = raw[index + 1]
        width = {"x": 2, "u": 4, "U": 8}.get(follow, 0)
        digits = raw[index + 2 : index + 2 + width]
        if width and len(digits) == width and all(digit in "0123456789abcdefABCDEF" for digit in digits):
            number = int(digits, 16)
            index += 2 + width
            if 0xD800 <= number <= 0xDBFF and raw[index : index + 2] == "\\u":
                low = raw[index + 2 : index + 6]
                if len(low) == 4 and low[:2].lower() in ("dc", "dd", "de", "df") and low.isalnum():
                    number = _joined(number, low, span)
                    index += 6
            out.append(chr(number) if number < 0x110000 and not 0xD800 <= number <= 0xDFFF else "\ufffd")
        elif follow in "\\'\"/":
            out.append(follow)
            index += 2
        else:
            # An unknown escape stays as written, so that patterns such as "\d+" need no doubling.
            out.append(_ESCAPES.get(follow, f"\\{follow}"))
            index += 2
    return "".join(out)


def _joined(high: int, low: str, span: Span) -> int:
    try:
        return 0x10000 + ((high - 0xD800) << 10) + (int(low, 16) - 0xDC00)
    except ValueError:
        raise FormulaError(
            "This escape is broken.", code="formula.syntax", fix="Type the sign itself.", span=span
        ) from None


def _limit(tokens: list[_Located]) -> None:
    depth = chain = 0
    before: _Located | None = None
    for token in tokens:
        if token.type in ("lparen", "lbracket", "lbrace"):
            depth += 1
            if depth > DEEPEST_BRACKETS:
                raise _too_deep((token.lineno, token.end))
        elif token.type in ("rparen", "rbracket", "rbrace"):
            depth -= 1
        elif token.value in ("not", "else") or (token.type in ("sub", "add") and _prefix(before)):
            chain += 1
            if chain > LONGEST_CHAIN:
                raise _too_deep((token.lineno, token.end))
        before = token


def _prefix(before: _Located | None) -> bool:
    return before is None or (before.type in operators.values() and before.type not in ("rparen", "rbracket", "rbrace"))


def _measure(root: nodes.Expr) -> int:
    """How many nodes the tree has; refuses one so deep that evaluating it could exhaust Python's stack."""
    count = 0
    level: list[nodes.Node] = [root]
    for _ in range(DEEPEST_TREE):
        if not level:
            return count
        count += len(level)
        level = [child for node in level for child in node.iter_child_nodes()]
    raise _too_deep()


def _too_deep(span: Span | None = None) -> FormulaError:
    return FormulaError(
        "This formula is nested too deeply.", code="formula.budget", fix="Split it over several nodes.", span=span
    )


def _broken(source: str, offset: int, kind: str, message: str) -> FormulaError:
    rest = source[offset:]
    around = source[max(offset - 1, 0) : offset + 3]
    if kind == "eof" or not rest.strip():
        return FormulaError(
            "The formula ends too early.",
            code="formula.syntax",
            fix="Something is missing at the end: a value, or a closing bracket.",
            span=(max(len(source.rstrip()) - 1, 0), len(source)),
        )
    if rest[0] in "\"'":
        return FormulaError(
            "A text is not closed.", code="formula.syntax", fix=f"Add {rest[0]} at its end.", span=(offset, len(source))
        )
    fix = next((advice for habit, advice in _HABITS if rest.startswith(habit)), None) or next(
        (advice for habit, advice in _HABITS if habit in around), None
    )
    if "chain multiple tests" in message:
        fix = "Use `and` between two tests."
    if fix is None and rest[0] in ")]}":
        fix = "This bracket has no partner, or something before it is missing."
    token = rest.split(None, 1)[0][:20]
    return FormulaError(
        f"I do not understand `{token}` here.",
        code="formula.syntax",
        fix=fix or "Is an operator (`+`, `and`, `==`, `|`) missing before it, or a quote?",
        span=(offset, offset + len(token)),
    )
