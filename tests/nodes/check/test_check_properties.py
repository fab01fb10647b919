"""Whatever is drawn: a check ends, says the same again, and is at least as strict as the engine."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nodes.blueprint import Blueprint
from nodes.catalog import ports_of
from nodes.check import Surroundings, check
from runtime.plan import PlanError, compile_plan
from tests.nodes.check.drawing import TYPES, repaired

CLASSES = sorted((cls for cls in TYPES), key=lambda cls: cls.type)
WORDS = st.sampled_from(
    [
        "", "x", "total > 3", "{{ input }}", "{{ name | default('x') }}", "{{ steps.decide.yes }}", "{{", "{% if %}", "vars.a",
        "{{ vars.a.b }}", "item.price * 2", "{{ item }}", "1 +", "https://example.com/{{ id }}", "sk-" + "a1B2" * 12, "password=" + "x9Y8z7W6v5",
        "input", "lines", "\u202e{{ a }}", "a" * 300, '{"a": "{{ x }}"}', "n1", "orders",
    ]
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2000) | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def blueprints(draw: st.DrawFn) -> Blueprint:
    """Nodes of every type, with settings right and wrong, connected by ports that are there and ports that are not."""
    placed: list[dict[str, Any]] = []
    for number in range(draw(st.integers(0, 9))):
        cls = draw(st.sampled_from(CLASSES))
        examples = [dict(example.settings) for example in cls.examples] or [{}]
        own = draw(st.sampled_from(examples)) | draw(
            st.dictionaries(st.sampled_from([*cls.model_fields, "odd"]), JSON, max_size=1)
        )
        placed.append(
            {
                "id": f"n{number}",
                "type": draw(st.sampled_from([cls.type, cls.type, cls.type, cls.type, "other.unknown"])),
                "name": draw(st.sampled_from(["", "", "Step", "step", "Für jeden"])),
                "settings": own,
                "disabled": draw(st.sampled_from([False, False, False, True])),
                "pinned": draw(st.sampled_from([None, None, {"value": {"a": 1}}, {"gone": None}])),
                "policy": {
                    "on_error": draw(st.sampled_from(["stop", "stop", "continue", "port"])),
                    "retries": draw(st.integers(0, 5)),
                },
            }
        )
    edges: list[dict[str, Any]] = []
    if placed:
        ports = [ports_of(node, TYPES) for node in Blueprint.parse({"nodes": placed}).nodes]
        for number in range(draw(st.integers(0, 14))):
            source, target = (draw(st.integers(0, len(placed) - 1)) for _ in "ab")
            if draw(st.sampled_from([True, True, True, False])):
                source, target = min(source, target), max(source, target)
            outs = [port.name for port in ports[source][1]] or ["value"]
            ins = [port.name for port in ports[target][0]] or ["value"]
            edges.append(
                {
                    "id": f"e{number}",
                    "source": f"n{source}",
                    "source_port": draw(st.sampled_from([*outs, *outs, "gone"])),
                    "target": f"n{target}",
                    "target_port": draw(st.sampled_from([*ins, *ins, "gone"])),
                }
            )
    return Blueprint.parse(
        {
            "nodes": placed,
            "edges": edges,
            "variables": draw(st.lists(st.builds(lambda value: {"name": "a", "value": value}, JSON), max_size=2)),
            "groups": draw(st.sampled_from([[], [{"id": "g", "nodes": ["n0", "n99"]}]])),
            "allowed_hosts": draw(st.sampled_from([[], ["example.com"], ["*.example.org"]])),
        }
    )


_KNOWN = Surroundings(
    secrets=frozenset({"orders"}),
    blueprints=frozenset({"x"}),
    own_id="x",
    files=frozenset(),
    model_configured=False,
    mail_configured=False,
)
AROUND = st.sampled_from([None, Surroundings(), _KNOWN])


@settings(max_examples=150, deadline=None)
@given(blueprints(), AROUND)
def test_a_check_never_raises_and_says_the_same_again(blueprint: Blueprint, around: Surroundings | None) -> None:
    findings = check(blueprint, TYPES, around)
    assert check(Blueprint.parse(blueprint.canonical()), TYPES, around) == findings
    ids = {node.id for node in blueprint.nodes}
    for finding in findings:
        assert finding.node in ids | {""}
        assert set(finding.path) <= ids
        assert finding.sentence
        assert finding.fix
        assert len(finding.sentence) < 1000


@settings(max_examples=150, deadline=None)
@given(blueprints())
def test_what_the_engine_refuses_is_an_error_and_what_has_no_error_compiles(blueprint: Blueprint) -> None:
    errors = [finding for finding in check(blueprint, TYPES) if finding.severity == "error"]
    try:
        compile_plan(blueprint, TYPES)
    except PlanError as refused:
        assert errors
        assert {problem["code"] for problem in refused.problems} <= {finding.code for finding in errors}


@settings(max_examples=80, deadline=None)
@given(blueprints(), st.data())
def test_every_repair_can_be_done_on_the_canvas(blueprint: Blueprint, data: st.DataObject) -> None:
    findings = [finding for finding in check(blueprint, TYPES) if finding.repair]
    if findings:
        finding = data.draw(st.sampled_from(findings))
        after = repaired(blueprint, finding)
        assert after != blueprint
        check(after, TYPES)
