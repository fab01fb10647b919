"""Check data: whether what arrives has the fields and kinds it should have."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import orjson
from pydantic import Field, model_validator

from nodes.base import SKIP, Context, Effect, Example, Family, Json, Node, Out, Row
from nodes.compiling import Writer, quoted, tuples
from nodes.formula.functions.dates import is_moment
from nodes.formula.values import a_kind
from nodes.rules import MOST_PROBLEMS, place, problems_of, rules_of
from nodes.shape import ANY, MOMENT, NOTHING, NUMBER, TEXT, YES_NO, Shape, from_json_schema, list_of, one_of, record

Kind = Literal["any", "text", "number", "whole number", "yes/no", "moment", "list", "record"]

_SHOWN: dict[str, str] = {
    "text": "a text",
    "number": "a number",
    "whole number": "a whole number",
    "yes/no": "yes or no",
    "moment": "a date such as 2026-03-02",
    "list": "a list",
    "record": "a record",
}


_SHAPES: Final[Mapping[str, Shape]] = {
    "text": TEXT,
    "number": NUMBER,
    "whole number": NUMBER,
    "yes/no": YES_NO,
    "moment": MOMENT,
    "list": list_of(),
    "record": record(open=True),
}


class FieldRule(Row):
    """One field that should be there."""

    name: str = Field(
        min_length=1, max_length=200, title="Field", description="Its name; `customer.name` is a field inside a record."
    )
    kind: Kind = Field(default="any", title="Kind", description="What it must hold.")
    required: bool = Field(default=True, title="Required", description="Whether it must be there and not be empty.")


class Checked(Out):
    """The value leaves by `ok` or by `bad`; with `bad` come the problems."""

    ok: Any = SKIP
    bad: Any = SKIP
    problems: list[Any] = SKIP


class CheckSchema(Node):
    """Checks that data has the right fields, and says what is wrong.

    What is right leaves by “ok”. Everything else leaves by “bad”, together with a list of sentences that say what is
    missing or wrong. Experts can write a JSON Schema instead of a list of fields.
    """

    family, title, icon, effect = Family.VALIDATION, "Check data", "fact_check", Effect.E0
    words = ("schema", "validate", "fields", "required", "types", "json schema", "correct", "complete")
    examples = (
        Example(
            "A complete order",
            {"fields": [{"name": "customer.name", "kind": "text"}, {"name": "total", "kind": "number"}]},
            {"value": {"customer": {"name": "Ada"}, "total": 12}},
            {"ok": {"customer": {"name": "Ada"}, "total": 12}},
        ),
        Example(
            "What is wrong with it",
            {
                "fields": [
                    {"name": "customer.name"},
                    {"name": "total", "kind": "number"},
                    {"name": "note", "kind": "text", "required": False},
                ]
            },
            {"value": {"total": "12"}},
            {
                "bad": {"total": "12"},
                "problems": ["“customer.name” is missing.", "“total” must be a number, not a text."],
            },
        ),
        Example(
            "By a JSON Schema",
            {"mode": "schema", "schema_text": '{"type": "object", "properties": {"age": {"minimum": 18}}}'},
            {"value": {"age": 12}},
            {"bad": {"age": 12}, "problems": ["“age” must be at least 18."]},
        ),
    )

    mode: Literal["fields", "schema"] = Field(
        default="fields", title="By", description="A list of fields, or a JSON Schema (for experts)."
    )
    fields: list[FieldRule] = Field(
        default_factory=list,
        max_length=200,
        title="Fields",
        description="The fields that should be there.",
        json_schema_extra={"show_when": {"mode": "fields"}},
    )
    others: bool = Field(
        default=True,
        title="Other fields are fine",
        description="Off: a field that is not listed is a problem.",
        json_schema_extra={"show_when": {"mode": "fields"}},
    )
    schema_text: Json = Field(
        default='{"type": "object"}',
        title="JSON Schema",
        description="Draft 2020-12. It can refer to its own `$defs` only.",
        json_schema_extra={"show_when": {"mode": "schema"}},
    )

    @model_validator(mode="after")
    def _is_right(self) -> "CheckSchema":
        if self.mode == "schema":
            rules_of(self.schema_text)
        return self

    async def run(self, ctx: Context, value: Any) -> Checked:
        problems = (
            problems_of(rules_of(self.schema_text), value)
            if self.mode == "schema"
            else _problems(value, self._rules(), self.others)
        )
        return Checked(bad=value, problems=problems) if problems else Checked(ok=value)

    def _rules(self) -> list[tuple[str, Kind, bool]]:
        return [(rule.name, rule.kind, rule.required) for rule in self.fields]

    def as_python(self, w: Writer) -> None:
        if self.mode == "schema":
            w.let("rules", w.use(rules_of, quoted(self.schema_text)))
            w.let("problems", w.use(problems_of, "rules", "value"))
        else:
            w.let("problems", w.use(_problems, "value", tuples(self._rules()), repr(self.others)))
        with w.when("problems"):
            w.gives(bad="value", problems="problems")
        w.gives(ok="value")

    def ways(self) -> tuple[tuple[str, ...], ...]:
        return ("ok",), ("bad", "problems")

    def shapes(self, arriving: Mapping[str, Shape]) -> Mapping[str, Shape]:
        value = arriving.get("value", ANY)
        return {"ok": self._checked() if value.kind == "any" else value, "bad": value, "problems": list_of(TEXT)}

    def _checked(self) -> Shape:
        """What is known of a value once it is found right."""
        if self.mode == "schema":
            return from_json_schema(orjson.loads(self.schema_text))
        if not self.fields:
            return ANY
        plain = [rule for rule in self.fields if "." not in rule.name]
        inner = {rule.name.partition(".")[0]: record(open=True) for rule in self.fields if "." in rule.name}
        fields = {rule.name: _shape(rule) for rule in plain}
        optional = [
            name
            for name in (*inner, *fields)
            if not any(r.required and r.name.partition(".")[0] == name for r in self.fields)
        ]
        return record({**inner, **fields}, optional=optional, open=self.others)

    def describe(self) -> str:
        if self.mode == "schema":
            return "JSON Schema"
        return ", ".join(rule.name for rule in self.fields)[:200]


def _shape(rule: FieldRule) -> Shape:
    shape = _SHAPES.get(rule.kind, ANY)
    # Something that is not required may be there and be empty.
    return shape if rule.required or shape is ANY else one_of(shape, NOTHING, TEXT)


def _at(whole: dict[str, Any], name: str) -> Any:
    if name in whole:
        return whole[name]
    found: Any = whole
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _is(kind: Kind, value: Any) -> bool:
    match kind:
        case "any":
            return True
        case "text":
            return isinstance(value, str)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "whole number":
            return not isinstance(value, bool) and (
                isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            )
        case "yes/no":
            return isinstance(value, bool)
        case "moment":
            return is_moment(value)
        case "list":
            return isinstance(value, list)
    return isinstance(value, dict)


def _what(kind: Kind, value: Any) -> str:
    if kind == "moment" and isinstance(value, str):
        return f"“{value[:40]}”"
    return str(value) if kind == "whole number" and isinstance(value, float) else a_kind(value)


def _problems(value: Any, rules: Sequence[tuple[str, Kind, bool]], others: bool) -> list[str]:
    """What is wrong with a record: for each field its name, its kind, and whether it must be there."""
    if not isinstance(value, dict):
        return [f"What arrived must be a record, not {a_kind(value)}."] if rules else []
    problems: list[str] = []
    for name, kind, required in rules:
        found = _at(value, name)
        if found is None or found == "":
            if required:
                problems.append(f"{place([name])} is missing.")
        elif not _is(kind, found):
            problems.append(f"{place([name])} must be {_SHOWN[kind]}, not {_what(kind, found)}.")
    if not others:
        known = {name.partition(".")[0] for name, _, _ in rules} | {name for name, _, _ in rules}
        problems += [f"{place([name])} should not be there." for name in value if name not in known]
    return problems[:MOST_PROBLEMS]
