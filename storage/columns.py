"""Column types that are the same on both databases."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator


class Json(TypeDecorator[Any]):
    """Plain JSON values kept as text: the database never interprets them, so both keep them byte for byte."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else orjson.dumps(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else orjson.loads(value)


def json_text(value: Any) -> str | None:
    """The same for rows that are written without the tables' help."""
    return None if value is None else orjson.dumps(value).decode()
