"""JSON with formulas in it: `{"name": "{{ customer.name }}", "total": "{{ total }}"}`.

The text is read as JSON first and filled in afterwards, so that no arriving value can change its structure. A text that is
one single `{{ … }}` becomes its value with its kind.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson

from nodes.base import Context, NodeError

Fill = Callable[[Context], Any]


def check_filling(text: str) -> str:
    """The same text when it can be filled in. Raises ValueError with a sentence."""
    _compiled(text)
    return text


def check_json(text: str) -> str:
    """The same text when it is plain JSON, or empty. Raises ValueError with a sentence."""
    if text.strip():
        try:
            orjson.loads(text)
        except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
            raise ValueError(f"this is not valid JSON: {error}") from None
    return text


def fill(ctx: Context, text: str) -> Any:
    """The value that the text describes, with its formulas worked out."""
    try:
        return _compiled(text)(ctx)
    except ValueError as error:
        raise NodeError(f"The JSON is not right: {error}.", category="configuration") from None


@lru_cache(maxsize=512)
def _compiled(text: str) -> Fill:
    whole = text.strip()
    if not whole:
        return lambda ctx: None
    if whole.startswith("{{") and whole.endswith("}}") and whole.count("{{") == 1:
        return lambda ctx: ctx.render(whole)
    try:
        value = orjson.loads(whole)
    except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
        hint = '; put each formula between quotes, as in "total": "{{ total }}", and a number stays a number'
        raise ValueError(f"this is not valid JSON: {error}{hint if '{{' in whole else ''}") from None
    return _filler(value)


def _filler(value: Any) -> Fill:
    if isinstance(value, str):
        return (lambda ctx: ctx.render(value)) if "{{" in value else lambda ctx: value
    if isinstance(value, list):
        parts = [_filler(part) for part in value]
        return lambda ctx: [part(ctx) for part in parts]
    if isinstance(value, dict):
        fields = [(name, _filler(part)) for name, part in value.items()]
        return lambda ctx: {name: part(ctx) for name, part in fields}
    return lambda ctx: value
