"""Loops of rounds and agents that call, start and wait for each other: in one module, they do what they do in runs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nodes.blueprint import Blueprint
from nodes.catalog import catalog
from nodes.compiling import CannotCompile
from nodes.compiling.calls import DEEPEST
from runtime.compiling import compile_python
from runtime.journal import Plans
from runtime.limits import LIMITS
from tests.runtime.engines import Rig, open_rig
from tests.runtime.test_compiling import checked, imported, ran

TYPES = catalog()


def drawn(steps: dict[str, tuple[str, dict[str, Any]]], *wires: str, **more: Any) -> Blueprint:
    """Steps by their names, with a type and settings; wires as `one.port > other.port`."""
    ends = [tuple(end.strip().split(".")) for wire in wires for end in wire.split(">")]
    edges = [
        {"id": f"w{i}", "source": a, "source_port": b, "target": c, "target_port": d}
        for i, ((a, b), (c, d)) in enumerate(zip(ends[::2], ends[1::2], strict=True))
    ]
    nodes = []
    for name, (type_, given) in steps.items():
        policy = given.pop("policy", {})
        nodes.append({"id": name, "name": name, "type": type_, "settings": given, "policy": policy})
    return Blueprint.parse({"name": "Drawn", "nodes": nodes, "edges": edges, **more})


def plus(formula: str = "total + 1") -> tuple[str, dict[str, Any]]:
    return "context.set_values", {"values": [{"name": "total", "value": formula, "kind": "formula"}]}


def rounds(until: str = "total >= 3", body: str = "total + 1", **settings: Any) -> Blueprint:
    """Adds up until it is enough; what fails leaves by the error port."""
    loop = {"until": until, **settings, "policy": {"on_error": "port"}}
    return drawn(
        {"start": ("trigger.manual", {}), "poll": ("flow.repeat", loop), "add": plus(body)},
        "start.value > poll.value", "poll.item > add.value", "add.value > poll.result",
    )  # fmt: skip


def calling(settings: dict[str, Any] | None = None, type_: str = "flow.call_blueprint", **more: Any) -> Blueprint:
    """Calls “bp_add”; what fails leaves by the error port."""
    given = {"blueprint": "bp_add", **(settings or {}), "policy": {"on_error": "port"}}
    return drawn({"start": ("trigger.manual", {}), "ask": (type_, given)}, "start.value > ask.value", **more)


def adding(formula: str = "n + 1", **settings: Any) -> Blueprint:
    """What is called: wants a number."""
    fields = {"fields": [{"name": "n", "kind": "number"}], **settings}
    return drawn({"given": ("trigger.called", fields), "add": plus(formula)}, "given.value > add.value", name="Add one")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with open_rig(f"sqlite:///{tmp_path}/factory.db") as rig:
        rig.plans = rig.engine.plans = rig.engine.journal.plans = Plans(rig.db, TYPES)
        yield rig


async def both(rig: Rig, folder: Path, blueprint: Blueprint, event: Any, **called: Blueprint) -> Any:
    """What a run gives, which is what the module gives."""
    rig.called = called
    view = await rig.run(blueprint, event)
    assert view.info.error is None, view.info.error
    module = imported(compile_python(blueprint, TYPES, called), folder)
    found = await ran(module, event, None)
    given = view.output
    for one in (found, given):
        if isinstance(one, dict) and "details" in one:
            del one["details"]
    assert found == given
    return found


@pytest.mark.parametrize(
    ("blueprint", "said"),
    [
        (rounds(), {"total": 3}),
        (rounds("true"), {"total": 1}),
        (rounds("index == 3", body="result | default(total + index)"), {"total": 6}),
        (rounds("false", most=2, at_most="go on"), {"total": 2}),
        (rounds("total > 5 and run.agent == 'Drawn'"), {"total": 6}),
        (rounds("index == 2", body="total + 1 / index", on_round_error="again"), {"total": 1.5}),
    ],
)
async def test_rounds_go_on_until_it_is_enough(rig: Rig, tmp_path: Path, blueprint: Blueprint, said: Any) -> None:
    assert await both(rig, tmp_path, blueprint, {"total": 0}) == said


@pytest.mark.parametrize(
    ("blueprint", "said"),
    [
        (rounds("total > 9", most=4), "After 4 rounds it is still not so that total > 9."),
        (rounds("index > 5", body="1 / (2 - index)"), "Round 3 of “poll” failed: This divides by zero."),
        (rounds("nothing > 5"), "Unknown name `nothing`."),
    ],
)
async def test_rounds_fail_in_the_same_words(rig: Rig, tmp_path: Path, blueprint: Blueprint, said: str) -> None:
    rig.called = {}
    view = await rig.run(blueprint, {"total": 0})
    found = await ran(imported(compile_python(blueprint, TYPES), tmp_path), {"total": 0}, None)
    assert found["message"] == view.output["message"] == said
    assert found["category"] == view.output["category"]


async def test_an_agent_that_is_called_is_a_function_of_the_module(rig: Rig, tmp_path: Path) -> None:
    agent, called = calling({"input": '{"n": "{{ total }}"}'}), {"bp_add": adding()}
    assert await both(rig, tmp_path, agent, {"total": 2}, **called) == {"n": 2, "total": 3}
    text = compile_python(agent, TYPES, called)
    assert "async def add_one(event: Any, calls: Calls, world: World) -> Any:" in text
    assert 'outcome_of_call(await calls.call(add_one, {"n": field(value, "total")}), "called")' in text


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (adding(), "The called agent failed: The call does not fit: “n” has to be a number, not a text."),
        (adding("'a' ~ n", fields=[], returns=[{"name": "total", "kind": "number"}]),
         "The called agent failed: The agent does not give back what it says: “total” has to be a number, not a text."),
    ],
)  # fmt: skip
async def test_what_is_brought_and_given_back_has_to_fit(rig: Rig, tmp_path: Path, agent: Blueprint, said: str) -> None:
    found = await both(rig, tmp_path, calling(), {"n": "x"}, bp_add=agent)
    assert found["message"] == said


async def test_agents_call_each_other_only_so_deep(rig: Rig, tmp_path: Path) -> None:
    assert LIMITS["call_depth"].default == DEEPEST
    again = {"blueprint": "bp_add", "policy": {"on_error": "stop"}}
    circle = drawn(
        {"start": ("trigger.manual", {}), "again": ("flow.call_blueprint", again)}, "start.value > again.value"
    )
    found = await both(rig, tmp_path, calling(), {"n": 1}, bp_add=circle)
    assert found["message"].count("The called agent failed: ") == DEEPEST
    assert found["message"].endswith("Agents call each other 6 levels; the limit is 5 levels.")


async def test_an_agent_may_stop_calling_itself(rig: Rig, tmp_path: Path) -> None:
    down = drawn(
        {"given": ("trigger.manual", {}), "end": ("validation.decide", {"condition": "n < 1"}),
         "again": ("flow.call_blueprint", {"blueprint": "bp_add", "input": '{"n": "{{ n - 1 }}"}'})},
        "given.value > end.value", "end.no > again.value",
    )  # fmt: skip
    assert await both(rig, tmp_path, calling(), {"n": 3}, bp_add=down) == {"n": 0}


def started(wait: dict[str, Any] | None = None) -> Blueprint:
    """Starts “bp_add”, does something else, and waits for it."""
    return drawn(
        {"start": ("trigger.manual", {}), "go": ("flow.start_blueprint", {"blueprint": "bp_add"}), "add": plus("n * 100"),
         "end": ("flow.await_run", {"run_id": "steps.go.run", **(wait or {}), "policy": {"on_error": "port"}})},
        "start.value > go.value", "go.value > add.value", "add.value > end.value",
    )  # fmt: skip


async def test_an_agent_that_was_started_is_waited_for_later(rig: Rig, tmp_path: Path) -> None:
    assert await both(rig, tmp_path, started(), {"n": 4}, bp_add=adding()) == {"n": 4, "total": 5}
    failed = await both(rig, tmp_path, started(), {"n": 4}, bp_add=adding("n / 0"))
    assert failed["message"] == "The started agent failed: This divides by zero."
    unknown = await both(rig, tmp_path, started({"run_id": "'run_x'"}), {"n": 4}, bp_add=adding())
    assert unknown["message"] == "This is not a run that this run has started."
    nothing = await both(rig, tmp_path, started({"run_id": "n"}), {"n": 4}, bp_add=adding())
    assert nothing["message"] == "There is no run to wait for."


async def test_what_was_started_works_to_its_end_and_says_when_it_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = {"key": "seen", "value": "{{ n }}"}
    worker = drawn(
        {"given": ("trigger.manual", {}), "wait": ("flow.wait", {"amount": 1}), "keep": ("context.remember", keep),
         "fail": ("validation.stop_error", {"message": "No {{ n }}"})},
        "given.value > wait.value", "wait.value > keep.value", "keep.value > fail.value",
    )  # fmt: skip
    agent = drawn(
        {"start": ("trigger.manual", {}), "go": ("flow.start_blueprint", {"blueprint": "bp_add"})},
        "start.value > go.value",
    )
    module = imported(compile_python(agent, TYPES, {"bp_add": worker}), tmp_path)
    kept: dict[str, Any] = {}
    ended = asyncio.Event()

    class Outside(module.World):  # type: ignore[misc, name-defined]
        class memory:
            @staticmethod
            async def set(key: str, value: Any) -> None:
                kept[key] = value

        class clock:
            @staticmethod
            async def wait_until(moment: Any) -> None:
                await ended.wait()

        def __init__(self) -> None:
            """Nothing is on a disk."""

    run = asyncio.create_task(module.run({"n": 7}, world=Outside()))
    await asyncio.sleep(0)
    assert not run.done()
    ended.set()
    assert await run == {"n": 7}
    assert kept == {"seen": 7}
    assert "which was started, failed: No 7" in capsys.readouterr().err


async def test_no_step_has_a_name_that_the_wiring_needs(rig: Rig, tmp_path: Path) -> None:
    keep = {"values": [{"name": "total", "value": "total + 1", "kind": "formula"}]}
    names = ["members of each", "results of each", "one of each", "until poll", "use poll", "values of merge", "item",
             "item_2", "steps_inside", "index", "calls", "runs each", "from each"]  # fmt: skip
    agent = drawn(
        {"start": ("trigger.manual", {}), **{name.replace(" ", "_"): ("context.set_values", dict(keep)) for name in names},
         "each": ("flow.for_each", {"over": "items"}), "poll": ("flow.repeat", {"until": "total > 3"}),
         "add": plus(), "merge": ("flow.merge", {"combine": "list"}), "ask": ("flow.call_blueprint", {"blueprint": "bp_add"})},
        *(f"start.value > {name.replace(' ', '_')}.value" for name in names),
        *(f"{name.replace(' ', '_')}.value > merge.values" for name in names),
        "start.value > each.items", "each.item > poll.value", "poll.item > add.value", "add.value > poll.result",
        "poll.done > each.result", "start.value > ask.value",
    )  # fmt: skip
    event = {"total": 0, "n": 1, "items": [{"total": 1}, {"total": 8}]}
    found = await both(rig, tmp_path, agent, event, bp_add=adding())
    assert found["each"] == [{"total": 4}, {"total": 9}]
    assert len(found["merge"]) == len(names)


def test_an_agent_that_is_not_here_is_named() -> None:
    with pytest.raises(CannotCompile) as caught:
        compile_python(calling(), TYPES)
    assert caught.value.message == "“ask” cannot be compiled: the agent that it calls (bp_add) is not here."
    assert caught.value.where == {"node": "ask"}


def test_what_is_wrong_inside_of_a_called_agent_is_said_of_the_step_that_calls() -> None:
    odd = drawn(
        {"given": ("trigger.manual", {}), "run": ("action.run_code", {"code": "global a"})},
        "given.value > run.value",
        name="Odd",
    )
    way = calling({"blueprint": "bp_way"})
    with pytest.raises(CannotCompile) as caught:
        compile_python(way, TYPES, {"bp_way": calling(), "bp_add": odd})
    assert caught.value.message.startswith("In “Odd”: “run” cannot be compiled: its code uses `global`")
    assert caught.value.where == {"node": "ask"}


@pytest.mark.parametrize(
    ("settings", "says", "fix"),
    [
        ({"language": "javascript"}, "its code is JavaScript, and a Python module cannot run it.", "Write the step in"),
        ({"reads": ["a.csv"]}, "its code reads or keeps files, which only the factory gives it.", "Read the file with"),
        ({"keeps": ["a.csv"]}, "its code reads or keeps files, which only the factory gives it.", "Read the file with"),
    ],
)
def test_code_that_a_module_cannot_run_is_refused(settings: dict[str, Any], says: str, fix: str) -> None:
    nodes = {"given": ("trigger.manual", {}), "run": ("action.run_code", settings)}
    with pytest.raises(CannotCompile) as caught:
        compile_python(drawn(nodes, "given.value > run.value"), TYPES)
    assert caught.value.message == f"“run” cannot be compiled: {says}"
    assert (caught.value.fix or "").startswith(fix)


def test_modules_with_rounds_and_calls_are_formatted_linted_and_typed(tmp_path: Path) -> None:
    called = {"bp_add": adding(returns=[{"name": "total", "kind": "number"}])}
    inside = drawn(
        {"start": ("trigger.manual", {}), "each": ("flow.for_each", {"over": "items", "parallel": 2}),
         "poll": ("flow.repeat", {"until": "steps.ask.value.total > vars.most or index + item.total > 5"}),
         "ask": ("flow.call_blueprint", {"blueprint": "bp_add", "input": '{"n": "{{ item.n + index }}"}'})},
        "start.value > each.items", "each.item > poll.value", "poll.item > ask.value", "ask.value > poll.result",
        "poll.done > each.result", variables=[{"name": "most", "value": 3}],
    )  # fmt: skip
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, agent in {"rounds": rounds(), "calling": calling(), "started": started(), "inside": inside}.items():
        (folder / f"{name}.py").write_text(compile_python(agent, TYPES, called))
    assert checked("ruff", "format", "--isolated", "--no-cache", "--line-length=120", "--diff", str(folder)) == ""
    rules = ("--ignore=E501", "--select=E,F,W,I,UP")
    assert checked("ruff", "check", "--isolated", "--no-cache", *rules, str(folder)) == ""
    assert checked("mypy", "--strict", f"--cache-dir={tmp_path}", str(folder)) == ""
