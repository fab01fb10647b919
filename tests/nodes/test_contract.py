"""What every node type keeps, ours and those of other packages: one contract, checked over the whole catalog."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ValidationError

from nodes.agents import is_attachment
from nodes.base import Context, Effect, Example, Family, Label, Loop, Node, NodeError, Out, Pause, PortType
from nodes.blueprint import Placed
from nodes.catalog import BadSettings, catalog, describe, ports_of
from nodes.errors import FactoryError
from nodes.formula import FormulaError
from nodes.shape import shape_of
from tests.nodes.fakes import FakeContext, fired, keeps_contract, outcome_of, run_example

ICONS = frozenset(Path(__file__).with_name("material_icons.txt").read_text().split())
TYPES = list(catalog())


def examples(that: Callable[[Node, Example], object]) -> list[Any]:
    """The examples of all types of which that holds."""
    return [
        pytest.param(cls, example, id=f"{cls.type}:{example.title}")
        for cls in TYPES
        for example in cls.examples
        if that(cls.model_validate(dict(example.settings)), example)
    ]


each_example = pytest.mark.parametrize(("cls", "example"), examples(lambda node, example: True))
each_that_gives = pytest.mark.parametrize(("cls", "example"), examples(lambda node, example: not example.error))
each_that_chooses = pytest.mark.parametrize(
    ("cls", "example"), examples(lambda node, example: not example.error and node.ways())
)
each_that_is_simulated = pytest.mark.parametrize(
    ("cls", "example"), examples(lambda node, example: node.effect_here() >= Effect.E3)
)

each_type = pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.type)


def test_the_shelves_are_full() -> None:
    assert {cls.family for cls in TYPES} == set(Family)


@each_type
def test_it_can_be_found_and_understood(cls: type[Node]) -> None:
    summary = (cls.__doc__ or "").strip().partition("\n")[0].strip()
    assert 10 <= len(summary) <= 100, summary
    assert summary.endswith("."), summary
    assert len((cls.__doc__ or "").strip()) > len(summary), "the docstring has no help below its first line"
    assert 2 <= len(cls.title) <= 30
    assert cls.icon in ICONS, f"{cls.icon} is no Material icon"
    assert len(cls.words) >= 3
    assert all(word == word.lower() for word in cls.words)
    assert cls.type == f"{cls.family}.{cls.__module__.rpartition('.')[2]}" or not cls.__module__.startswith("nodes.")


@each_type
def test_it_declares_its_effect(cls: type[Node]) -> None:
    assert any("effect" in vars(base) for base in cls.__mro__ if base not in (Node, Loop)), "no effect is declared"
    if cls.effect >= Effect.E3:
        assert cls.simulate is not Node.simulate, "the sandbox needs a sentence and believable outputs"


@each_type
def test_every_setting_says_what_it_is(cls: type[Node]) -> None:
    for model in _models(cls):
        for name, field in model.model_fields.items():
            assert field.title, f"{model.__name__}.{name} has no title"
            assert field.title[0].isupper(), field.title
            assert field.description, f"{model.__name__}.{name} has no description"


@each_type
def test_conditions_of_the_form_name_real_settings(cls: type[Node]) -> None:
    for model in _models(cls):
        known = model.model_json_schema()["properties"]
        for name, field in known.items():
            for other in field.get("show_when", {}):
                assert other in known, f"{name} is shown when {other}, which does not exist"


def _models(cls: type[BaseModel]) -> list[type[BaseModel]]:
    """The settings and the rows of their lists."""
    found, pending = [], [cls]
    while pending:
        model = pending.pop()
        found.append(model)
        for field in model.model_fields.values():
            todo: list[Any] = [field.annotation]
            while todo:
                part = todo.pop()
                if inspect.isclass(part) and issubclass(part, BaseModel) and part not in found:
                    pending.append(part)
                todo += getattr(part, "__args__", ())
    return found


@each_type
def test_its_form_is_a_json_schema_that_its_settings_fit(cls: type[Node]) -> None:
    schema = cls.model_json_schema()
    Draft202012Validator.check_schema(schema)
    checker = Draft202012Validator(schema)
    for example in cls.examples:
        checker.validate(dict(example.settings))
        node = cls.model_validate(dict(example.settings))
        saved = node.model_dump(mode="json")
        checker.validate(saved)
        assert cls.model_validate(saved) == node
        assert cls.model_validate(saved).model_dump(mode="json") == saved


@each_type
def test_defaults_are_valid_or_clearly_required(cls: type[Node]) -> None:
    required = [name for name, field in cls.model_fields.items() if field.is_required()]
    try:
        node = cls.model_validate(cls.first_settings())
    except ValidationError as error:
        assert {str(item["loc"][0]) for item in error.errors() if item["loc"]} == set(required), error
    else:
        assert not required
        assert cls.model_validate(node.model_dump()) == node


@each_type
def test_unknown_settings_are_refused(cls: type[Node]) -> None:
    with pytest.raises(BadSettings) as caught:
        catalog().build(Placed(id="n1", type=cls.type, settings={"no_such_setting": 1}))
    assert "no_such_setting" in caught.value.problems


@each_type
def test_its_ports_are_named_and_typed(cls: type[Node]) -> None:
    nodes = [cls.model_validate(dict(example.settings)) for example in cls.examples]
    unfinished = ports_of(Placed(id="n1", type=cls.type), catalog())
    for ports_here in (unfinished, *((node.inputs(), node.outputs()) for node in nodes)):
        for ports in ports_here:
            names = [port.name for port in ports]
            assert len(set(names)) == len(names), names
            assert "error" not in names, "the error port belongs to the engine"
            assert all(isinstance(port.type, PortType) for port in ports)
            assert all(name.isascii() and name.replace("_", "").isalnum() for name in names), names
        assert (not ports_here[0]) == (cls.family is Family.TRIGGER or is_attachment(cls))


@each_type
def test_triggers_and_only_they_listen(cls: type[Node]) -> None:
    for example in cls.examples:
        node = cls.model_validate(dict(example.settings))
        assert (node.listens() is not None) == (cls.family is Family.TRIGGER)


@each_type
def test_what_it_says_of_itself_holds_for_any_settings(cls: type[Node]) -> None:
    for example in cls.examples:
        node = cls.model_validate(dict(example.settings))
        text = node.describe()
        assert isinstance(text, str)
        assert len(text) <= 200
        assert isinstance(node.effect_here(), Effect)
        assert all(isinstance(label, Label) for label in node.labels())
        assert node.join_here() in ("all", "first")
        assert node.forecast_seconds() >= 0
        hosts = node.hosts()
        assert hosts is None or all(isinstance(host, str) for host in hosts)
    assert describe(cls)["summary"]


@each_type
def test_it_has_worked_examples(cls: type[Node]) -> None:
    assert len(cls.examples) >= 2
    titles = [example.title for example in cls.examples]
    assert len(set(titles)) == len(titles)


@each_example
async def test_its_examples_tell_the_truth(cls: type[Node], example: Example) -> None:
    if example.error:
        with pytest.raises(NodeError) as caught:
            await run_example(cls, example)
        assert caught.value.message == example.error
    else:
        assert await run_example(cls, example) == example.out
        ports = {port.name for port in cls.model_validate(dict(example.settings)).outputs()}
        assert set(example.out) <= ports


@each_that_gives
async def test_what_it_says_of_its_outputs_is_true(cls: type[Node], example: Example) -> None:
    node = cls.model_validate(dict(example.settings))
    fired_ports = await run_example(cls, example)
    claimed = node.shapes({name: shape_of(value) for name, value in example.inputs.items()})
    assert set(claimed) <= {port.name for port in node.outputs()}
    for port, value in fired_ports.items():
        if port in claimed:
            Draft202012Validator(claimed[port].as_json_schema()).validate(value)
    # A step that knows nothing of what arrives says less, and nothing wrong.
    for port, shape in node.shapes({}).items():
        if port in fired_ports:
            Draft202012Validator(shape.as_json_schema()).validate(fired_ports[port])


@each_that_chooses
async def test_only_one_of_its_ways_is_taken(cls: type[Node], example: Example) -> None:
    ways = cls.model_validate(dict(example.settings)).ways()
    chosen = set(await run_example(cls, example))
    assert sum(bool(chosen & set(ports)) for ports in ways) == 1


@each_that_is_simulated
async def test_a_simulated_effect_is_a_sentence_and_real_ports(cls: type[Node], example: Example) -> None:
    node = cls.model_validate(dict(example.settings))
    context = FakeContext(example.given, sandbox=True)
    context.bind(node, example.inputs)
    simulated = await node.simulate(context, **example.inputs)
    assert simulated.sentence.startswith("would ")
    assert set(fired(simulated.out)) <= {port.name for port in node.outputs()}
    assert not context.http.requests
    assert not context.mail.sent
    assert not context.worker.jobs


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30) | st.just("x" * 200_000),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.type)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_wrong_inputs_fail_only_in_words(cls: type[Node], data: st.DataObject) -> None:
    example = data.draw(st.sampled_from(cls.examples))
    node = cls.model_validate(dict(example.settings))
    names = ["event"] if cls.family is Family.TRIGGER else [port.name for port in node.inputs() if not port.back]
    inputs = {name: data.draw(_JSON, label=name) for name in names}
    for port in node.inputs():
        if port.many:
            inputs[port.name] = [inputs[port.name]]
    context = FakeContext(example.given)
    try:
        outcome = await outcome_of(node, inputs, context)
        if isinstance(outcome, Pause):
            outcome = await node.resume(context, data.draw(_JSON, label="answer"), **inputs)
    except (NodeError, FormulaError) as error:
        assert isinstance(error, FactoryError)
        assert error.message.strip()
        assert len(error.message) < 1000
    else:
        assert isinstance(outcome, Out | dict | Pause)


def test_the_fake_world_is_a_context() -> None:
    context: Context = keeps_contract(FakeContext())
    assert context.evaluate("1 + 1") == 2
