"""The sandbox's stand-in when no model is set up: clearly marked, and shaped like what was asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from nodes.base import LlmReply, ToolCall

MARK = "(sample answer: no model is set up)"
MOST_CALLS = 3


def sample_reply(
    messages: Sequence[Mapping[str, Any]],
    schema: Mapping[str, Any] | None,
    tools: Sequence[Mapping[str, Any]] = (),
) -> LlmReply:
    """A sample answer that says it is one; where there are tools, the first few of them are tried once before it."""
    if tools and not any(message.get("role") == "tool" for message in messages):
        calls = [
            ToolCall(f"sample-{number}", str(tool["name"]), sample_value(tool.get("parameters") or {"type": "object"}))
            for number, tool in enumerate(tools[:MOST_CALLS], 1)
        ]
        return LlmReply(MARK, "sample", canned=True, calls=tuple(calls))
    if schema is not None:
        data = sample_value(schema)
        return LlmReply(f"{MARK} {orjson.dumps(data).decode()}", "sample", canned=True, data=data)
    asked = next((str(m.get("content", "")) for m in reversed(messages) if m.get("role") == "user"), "")
    words = " ".join(asked.split())
    if len(words) > 120:
        words = words[:119].rstrip() + "…"
    return LlmReply(f"{MARK} Here a model would answer: {words}", "sample", canned=True)


def sample_value(schema: Mapping[str, Any], name: str = "text") -> Any:
    """A value that fits the schema."""
    if schema.get("enum"):
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        return {key: sample_value(part, key) for key, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [sample_value(schema.get("items", {}), name)]
    if kind in ("number", "integer"):
        return max(1, schema.get("minimum", 1)) if schema.get("maximum", 1) >= 1 else schema["maximum"]
    if kind == "boolean":
        return True
    return None if kind == "null" else f"(sample {name.replace('_', ' ')})"
