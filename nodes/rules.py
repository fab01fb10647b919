"""JSON Schema over plain values, kept harmless: no address is ever fetched, patterns are linear, and its size is bounded.

What is wrong comes back as sentences for people.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import orjson
import re2
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from nodes.formula.values import a_kind

MOST_PROBLEMS: Final = 20
_MOST_RULES = 2_000
_ONE = ("items", "contains", "additionalProperties", "propertyNames", "not", "if", "then", "else",
        "unevaluatedItems", "unevaluatedProperties")  # fmt: skip
_SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "dependentSchemas")
_REFUSED = ("patternProperties", "$dynamicRef", "$recursiveRef", "$id", "$anchor", "$dynamicAnchor")
_WORDS: Final[Mapping[str, str]] = {
    "string": "a text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "yes or no",
    "array": "a list",
    "object": "a record",
    "null": "nothing",
}
_QUIET = re2.Options()
_QUIET.log_errors = False
_QUIET.max_mem = 4 << 20


@lru_cache(maxsize=256)
def rules_of(text: str) -> Validator:
    """The rules that a JSON Schema describes. Raises ValueError with a sentence."""
    try:
        schema = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"this is not valid JSON: {error}") from None
    if not isinstance(schema, dict):
        raise ValueError('a JSON Schema is a record such as {"type": "object"}')
    try:
        # Without a format checker: it would hand patterns to Python's own regular expressions.
        Draft202012Validator.check_schema(schema, format_checker=FormatChecker(()))
        _weigh(schema, schema, ())
    except SchemaError as error:
        place = ".".join(str(step) for step in error.absolute_path)
        raise ValueError(f"this is not a JSON Schema: {place or 'it'}: {error.message[:200]}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    rules: Validator = _Rules(schema, registry=Registry())
    return rules


def problems_of(rules: Validator, value: Any) -> list[str]:
    """What is wrong with a value, one sentence each, at most twenty."""
    try:
        found = islice(rules.iter_errors(value), MOST_PROBLEMS)
        return [_sentence(error) for error in found]
    except (RecursionError, Unresolvable):
        return ["What arrived cannot be checked: it is nested too deeply."]


def _weigh(schema: Any, root: Any, above: tuple[int, ...]) -> int:
    """How many rules one value can meet, with everything referred to written out."""
    if not isinstance(schema, dict):
        return 1
    if id(schema) in above:
        raise ValueError("a schema that refers to itself cannot be used")
    for word in _REFUSED:
        if word in schema:
            raise ValueError(f"`{word}` cannot be used here")
    if isinstance(pattern := schema.get("pattern"), str):
        _pattern_of(pattern)
    above = (*above, id(schema))
    inner = [schema[word] for word in _ONE if word in schema]
    inner += [part for word in _SEVERAL for part in schema.get(word, ())]
    inner += [part for word in _NAMED for part in schema.get(word, {}).values()]
    if "$ref" in schema:
        inner.append(_referred(schema["$ref"], root))
    total = 1
    for part in inner:
        total += _weigh(part, root, above)
        if total > _MOST_RULES:
            raise ValueError(f"it has more than {_MOST_RULES:,} rules")
    return total


def _referred(reference: str, root: Any) -> Any:
    home, _, name = reference.removeprefix("#/").partition("/")
    if not reference.startswith("#/") or home not in ("$defs", "definitions") or "/" in name:
        raise ValueError(f"`{reference[:100]}` cannot be used: only parts of this schema, such as `#/$defs/address`")
    found = root.get(home, {}).get(name.replace("~1", "/").replace("~0", "~"))
    if not isinstance(found, dict | bool):
        raise ValueError(f"`{reference[:100]}` leads to nothing in this schema")
    return found


@lru_cache(maxsize=512)
def _pattern_of(pattern: str) -> Any:
    try:
        return re2.compile(pattern, _QUIET)
    except re2.error:
        raise ValueError(f"the pattern `{pattern[:100]}` cannot be read") from None


def _check_pattern(rules: Validator, pattern: str, value: Any, schema: Any) -> Iterator[ValidationError]:
    if isinstance(value, str) and _pattern_of(pattern).search(value) is None:
        yield ValidationError(f"does not fit the pattern {pattern}")


def _check_unique(rules: Validator, unique: bool, value: Any, schema: Any) -> Iterator[ValidationError]:
    if unique and isinstance(value, list):
        seen = {orjson.dumps(item, option=orjson.OPT_SORT_KEYS) for item in value}
        if len(seen) < len(value):
            yield ValidationError("holds the same item twice")


_Rules: Any = extend(Draft202012Validator, {"pattern": _check_pattern, "uniqueItems": _check_unique})  # type: ignore[no-untyped-call]


def _sentence(error: ValidationError) -> str:
    where = place(error.absolute_path)
    wanted: Any = error.validator_value
    value: Any = error.instance
    match error.validator:
        case "required":
            missing = [name for name in wanted if name not in value]
            # The library reports each missing field by itself, and names it first.
            name = next((name for name in missing if error.message.startswith(repr(name))), missing[0])
            return f"{place([*error.absolute_path, name])} is missing."
        case "type":
            kinds = [wanted] if isinstance(wanted, str) else list(wanted)
            return f"{where} must be {' or '.join(_WORDS.get(kind, kind) for kind in kinds)}, not {a_kind(value)}."
        case "enum":
            return f"{where} must be one of: {_listed(wanted)}."
        case "const":
            return f"{where} must be {_listed([wanted])}."
        case "minimum":
            return f"{where} must be at least {wanted}."
        case "maximum":
            return f"{where} must be at most {wanted}."
        case "exclusiveMinimum":
            return f"{where} must be more than {wanted}."
        case "exclusiveMaximum":
            return f"{where} must be less than {wanted}."
        case "minLength":
            return f"{where} must have at least {wanted} characters."
        case "maxLength":
            return f"{where} must have at most {wanted} characters."
        case "minItems":
            return f"{where} must have at least {wanted} items."
        case "maxItems":
            return f"{where} must have at most {wanted} items."
        case "pattern":
            return f"{where} must fit the pattern {str(wanted)[:100]}."
        case "uniqueItems":
            return f"{where} holds the same item twice."
        case "additionalProperties":
            known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
            extra = [name for name in value if name not in known]
            return f"{where} has fields that it may not have: {_listed(extra)}."
        case _:
            return f"{where}: {error.message[:200]}."


def place(path: Any) -> str:
    """Where in a value something is: “items[2].price”."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return f"“{text[:100]}”" if text else "What arrived"


def _listed(values: list[Any]) -> str:
    shown = ", ".join(part if isinstance(part, str) else orjson.dumps(part).decode() for part in values[:10])
    return f"{shown[:200]}{'…' if len(values) > 10 or len(shown) > 200 else ''}"
