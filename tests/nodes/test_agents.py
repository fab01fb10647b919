"""What hangs on agents: what a model must say to use a tool, and what an agent remembers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from nodes.agents import may_be_tool
from nodes.base import Family, Node, PortType, class_ports
from nodes.catalog import catalog
from nodes.check.arguments import Arguments, Parameter, arguments
from tests.nodes.fakes import FakeContext, make


def asked(*steps: Node) -> dict[str, bool]:
    """The arguments of a tool made of these steps, and whether each is needed."""
    found = arguments(steps, steps[0].inputs())
    return {parameter.name: parameter.required for parameter in found.parameters}


# --- what a model must say --------------------------------------------------------------------------------------------


def test_arguments_are_the_names_behind_args_in_formulas_and_texts() -> None:
    assert asked(make("context.recall", key="weather {{ args.city }} on {{ args.day.name | upper }}")) == {
        "city": True, "day": True
    }  # fmt: skip


def test_an_argument_with_a_default_may_be_left_out() -> None:
    assert asked(make("context.recall", key="{{ args.city | default('Oslo') }} {{ args.day }}")) == {
        "city": False, "day": True
    }  # fmt: skip


def test_all_steps_of_a_tool_are_read() -> None:
    mail = make("action.send_email", to="{{ args.to }}", subject="Hello {{ args.name }}")
    assert asked(make("validation.approve", question="Write to {{ args.name }}?"), mail) == {"name": True, "to": True}


def test_a_step_that_names_none_and_needs_something_gets_it_as_input() -> None:
    found = arguments([make("validation.approve")], make("validation.approve").inputs())
    assert [parameter.name for parameter in found.parameters] == ["input"]
    assert found.feeds == {"value": "input"}
    assert asked(make("context.read_table", table="customers")) == {}


def test_what_is_connected_is_not_asked_for() -> None:
    approve = make("validation.approve")
    assert arguments([approve], approve.inputs(), {"value"}) == Arguments()


def test_a_formula_that_cannot_be_read_asks_for_nothing() -> None:
    assert asked(make("context.recall", key="{{ args.city }} {{ ")) == {}


NAMES = ("text", "number", "yes", "list", "record", "free")
ALL = Arguments(
    (
        Parameter("text"),
        Parameter("number", PortType.NUMBER),
        Parameter("yes", PortType.YES_NO),
        Parameter("list", PortType.LIST),
        Parameter("record", PortType.RECORD),
        Parameter("free", required=False),
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), JSON, max_size=7))
def test_whatever_a_model_sends_is_read_or_refused_in_a_sentence(sent: dict[str, Any]) -> None:
    values, wrong = ALL.read(sent)
    if wrong:
        assert wrong.endswith(".")
        assert values == {}
    else:
        assert set(values) <= set(sent)
        assert {parameter.name for parameter in ALL.parameters if parameter.required} <= set(values)
        schema = ALL.json_schema()
        plain = values | {"text": str(values["text"])} | ({"free": str(values["free"])} if "free" in values else {})
        Draft202012Validator(schema).validate(plain)


def test_long_arguments_are_refused() -> None:
    assert "longer than" in Arguments((Parameter("text"),)).read({"text": "x" * 200_000})[1]


@pytest.mark.parametrize("cls", list(catalog()), ids=lambda cls: cls.type)
def test_triggers_and_what_hangs_on_agents_are_no_tools(cls: type[Node]) -> None:
    sub_port = any(port.type in (PortType.MODEL, PortType.MEMORY) for port in class_ports(cls)[1])
    if cls.family is Family.TRIGGER or sub_port:
        assert not may_be_tool(cls)
    for example in cls.examples if may_be_tool(cls) else ():
        node = cls.model_validate(dict(example.settings))
        Draft202012Validator.check_schema(arguments([node], node.inputs()).json_schema())


# --- memory -----------------------------------------------------------------------------------------------------------


async def test_a_memory_keeps_the_last_exchanges_under_its_name() -> None:
    context = FakeContext()
    memory = make("context.memory", name="help {{ who }}", exchanges=2)
    context.names["who"] = "Ada"
    key = memory.key(context)  # type: ignore[attr-defined]
    assert key == "conversation help Ada"
    for number in range(3):
        await memory.keep(context, key, f"q{number}", f"a{number}")  # type: ignore[attr-defined]
    found = await memory.recall(context, key)  # type: ignore[attr-defined]
    assert [(message["role"], message["content"]) for message in found] == [
        ("user", "q1"), ("assistant", "a1"), ("user", "q2"), ("assistant", "a2")
    ]  # fmt: skip


@pytest.mark.parametrize("there", ["text", 7, [1, "x"], [{"said": "only"}], {"a": 1}])
async def test_something_else_under_its_name_is_no_conversation(there: Any) -> None:
    memory = make("context.memory", name="x")
    assert await memory.recall(FakeContext({"memory": {"conversation x": there}}), "conversation x") == []  # type: ignore[attr-defined]
