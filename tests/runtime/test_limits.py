"""Everything has a limit: at it all is well, one more is refused in words, and so is a hundred times as much."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from nodes.base import NodeError
from nodes.blueprint import MAX_EDGES, MAX_NODES, Blueprint, BlueprintError, Policy
from nodes.errors import Denied, FactoryError
from runtime.factory import Factory
from runtime.limits import LIMITS, Exceeded, in_words
from runtime.workers.backend import Profile
from storage import tenant_limit
from tests.fakes.openai_server import KEY, OpenAiServer
from tests.runtime.engines import TENANT, WHO, Rig, open_rig
from tests.runtime.factories import ADMIN, DEVELOPER, STRANGER, VIEWER, agent, new_factory
from tests.runtime.small_nodes import drawn, world

Try = Callable[[Factory, int], Awaitable[Any]]


@pytest.fixture
async def factory(tmp_path: Path) -> AsyncIterator[Factory]:
    async with new_factory(f"sqlite:///{tmp_path}/f.db") as factory:
        yield factory


def nodes(count: int) -> Blueprint:
    return Blueprint(nodes=[{"id": f"n{n}", "type": "flow.merge"} for n in range(count)])  # type: ignore[list-item]


def edges(count: int) -> Blueprint:
    wires = [
        {"id": f"e{n}", "source": "a", "source_port": "value", "target": "b", "target_port": "values"}
        for n in range(count)
    ]
    return Blueprint.model_validate({"nodes": [{"id": id_, "type": "flow.merge"} for id_ in "ab"], "edges": wires})


async def graph_nodes(factory: Factory, amount: int) -> None:
    await factory.blueprints.create(ADMIN, nodes(amount))


async def graph_edges(factory: Factory, amount: int) -> None:
    await factory.blueprints.create(ADMIN, edges(amount))


async def graph_bytes(factory: Factory, amount: int) -> None:
    empty = len(Blueprint(description="x").canonical())
    long = Blueprint.model_construct(**{**dict(Blueprint()), "description": "x" * (amount - empty + 1)})
    await factory.blueprints.create(ADMIN, long)


async def nesting(factory: Factory, amount: int) -> None:
    value: Any = "x"
    for _ in range(amount - 4):  # the document, its variables, the variable and its value are levels too
        value = [value]
    try:
        Blueprint.parse({"variables": [{"name": "deep", "value": value}]})
    except BlueprintError as error:
        raise Exceeded(error.message, code="limit.nesting") from None


async def upload_bytes(factory: Factory, amount: int) -> None:
    await factory.shelves.put_file(ADMIN, "f", b"x" * amount, "text/plain")


async def webhook_bytes(factory: Factory, amount: int) -> None:
    hook = agent({"in": ("trigger.webhook", {"path": "orders"})})
    if not await factory.deployments.list(ADMIN):
        draft = await factory.blueprints.create(ADMIN, hook)
        await factory.deployments.deploy(ADMIN, draft.id)
    await factory.hooks.handle("orders", "POST", [], b"x" * amount)


async def queue_depth(factory: Factory, amount: int) -> None:
    await _fill(factory, amount + factory.limits.of(ADMIN.tenant, "concurrent_runs"))


async def _fill(factory: Factory, amount: int) -> None:
    """So many runs asked for at once, as the engine counts them."""
    queue, tenant = factory.engine.queue, ADMIN.tenant
    promised = [queue.reserve(tenant) for _ in range(amount)]
    for _ in range(sum(promised)):
        queue.withdraw(tenant)
    if not all(promised):
        raise Exceeded("refused", code="limit.queue_depth")


LOWERED: dict[str, tuple[int, Try]] = {
    "graph_nodes": (3, graph_nodes),
    "graph_edges": (3, graph_edges),
    "graph_bytes": (2_000, graph_bytes),
    "upload_bytes": (2_000, upload_bytes),
    "webhook_bytes": (2_000, webhook_bytes),
    "queue_depth": (3, queue_depth),
    "nesting": (LIMITS["nesting"].default, nesting),
}
"""Limits that a call of a service meets: the value the team lowers it to, and the call with so much."""

ELSEWHERE = {
    "concurrent_runs": "test_so_many_runs_go_on_at_once",
    "run_seconds": "test_a_run_that_works_too_long_ends",
    "step_seconds": "test_a_lower_time_for_steps_holds_for_every_step",
    "retries": "test_a_step_is_tried_no_more_often_than_the_team_lets_it",
    "loop_items": "test_a_loop_goes_through_so_many_items",
    "call_depth": "test_agents_call_each_other_so_deep",
    "chain_depth": "test_agents_that_start_each_other_in_a_circle_are_stopped",
    "model_output_tokens": "test_a_models_answer_is_so_long",
    "model_run_tokens": "test_the_models_of_a_run_take_so_many_tokens",
    "run_money": "test_a_run_stops_at_its_budget_and_can_be_tried_again",
    "day_money": "test_a_thousand_calls_at_once_overspend_a_dollar_by_at_most_one",
    "month_money": "test_each_budget_says_which_is_used_up",
    "run_days": "test_runs_that_ended_long_ago_go_unless_something_needs_them",
    "request_bytes": "test_a_request_brings_as_much_as_the_team_lets_it",
    "frame_bytes": "test_frames_have_a_limit",
    "frames_a_second": "test_a_flood_is_slowed_down_and_nothing_of_it_is_lost",
    "worker_cpu": "test_workers_are_as_large_as_the_table_says",
    "worker_memory": "test_workers_are_as_large_as_the_table_says",
    "worker_processes": "test_workers_are_as_large_as_the_table_says",
    "worker_disk": "test_workers_are_as_large_as_the_table_says",
    "worker_output": "test_workers_are_as_large_as_the_table_says",
}
"""The other limits, and the test that meets each."""


def test_every_limit_has_a_test() -> None:
    assert set(LOWERED) | set(ELSEWHERE) == set(LIMITS) and not set(LOWERED) & set(ELSEWHERE)
    written = "".join(path.read_text() for path in Path("tests").rglob("test_*.py"))
    missing = [name for name, test in ELSEWHERE.items() if f"def {test}(" not in written]
    assert not missing, f"no test meets {missing}"


@pytest.mark.parametrize("name", LOWERED)
async def test_at_a_limit_all_is_well_and_above_it_the_refusal_says_why(factory: Factory, name: str) -> None:
    most, attempt = LOWERED[name]
    if LIMITS[name].lowerable:
        await factory.limits.set(ADMIN, name, most)
    await attempt(factory, most)
    for amount in (most + 1, most * 100):
        with pytest.raises(FactoryError) as caught:
            await attempt(factory, amount)
        assert caught.value.code == LIMITS[name].error_code and caught.value.status < 500
    await attempt(factory, most)


def test_a_document_has_so_many_nodes_and_connections() -> None:
    for blueprint, most, more in ((nodes, MAX_NODES, "500"), (edges, MAX_EDGES, "2,000")):
        Blueprint.parse(blueprint(most).canonical())
        for amount in (most + 1, most * 3):
            with pytest.raises(BlueprintError, match=more) as caught:
                Blueprint.parse(blueprint(amount).canonical())
            assert caught.value.code == "blueprint.too_large"
        Blueprint.parse(blueprint(most + 1).canonical(), kept=True)


def test_workers_are_as_large_as_the_table_says() -> None:
    profile = Profile()
    declared = {name: LIMITS[name].default for name in LIMITS if name.startswith("worker_")}
    assert declared == {
        "worker_cpu": round(100 * profile.cpus),
        "worker_memory": profile.memory,
        "worker_processes": profile.processes,
        "worker_disk": profile.disk,
        "worker_output": profile.output_limit,
    }
    assert LIMITS["step_seconds"].default == Policy().timeout
    with pytest.raises(ValueError, match="less than or equal to 5"):
        Policy(retries=LIMITS["retries"].default + 1)


# --- lowering ------------------------------------------------------------------------------------------------------------


async def test_a_team_lowers_its_own_limits_and_nobody_elses(factory: Factory) -> None:
    await factory.limits.set(ADMIN, "graph_nodes", 2)
    await factory.blueprints.create(STRANGER, nodes(3))
    with pytest.raises(Exceeded, match="3 nodes; the limit is 2 nodes"):
        await factory.blueprints.create(DEVELOPER, nodes(3))
    shown = {info.limit.name: info for info in await factory.limits.list(VIEWER)}
    assert (shown["graph_nodes"].value, shown["graph_nodes"].lowered) == (2, True)
    await factory.limits.set(ADMIN, "graph_nodes", None)
    await factory.blueprints.create(DEVELOPER, nodes(3))


async def test_only_admins_lower_limits_and_nobody_raises_them(factory: Factory) -> None:
    with pytest.raises(Denied):
        await factory.limits.set(DEVELOPER, "graph_nodes", 2)
    for name, value, code in (
        ("graph_nodes", MAX_NODES + 1, "limit.range"),
        ("graph_nodes", 0, "limit.range"),
        ("graph_nodes", -5, "limit.range"),
        ("nesting", 5, "limit.fixed"),
        ("happiness", 5, "limit.unknown"),
    ):
        with pytest.raises(FactoryError) as caught:
            await factory.limits.set(ADMIN, name, value)
        assert caught.value.code == code


async def test_what_was_lowered_holds_after_a_restart_and_when_another_server_lowered_it(database_url: str) -> None:
    async with new_factory(database_url) as factory:
        await factory.limits.set(ADMIN, "concurrent_runs", 7)
        await factory.db.write(
            "others", lambda session: tenant_limit.put(session, "queue_depth", 5, at=1.0, by="another server")
        )
        await factory.limits.load()
        assert factory.limits.of("others", "queue_depth") == 5
        for _ in range(205):
            assert factory.engine.queue.reserve("others")
        assert not factory.engine.queue.reserve("others"), "the queue was told"
    async with new_factory(database_url) as again:
        assert again.limits.of(ADMIN.tenant, "concurrent_runs") == 7
        assert again.limits.of("others", "concurrent_runs") == LIMITS["concurrent_runs"].default


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (1, "nodes", "1 node"),
        (2_000, "connections", "2,000 connections"),
        (900, "seconds", "15 minutes"),
        (61, "seconds", "61 seconds"),
        (1, "tries", "1 try"),
        (1, "processes", "1 process"),
        (1024 * 1024, "bytes", "1 MiB"),
        (256 * 1024, "bytes", "256 KiB"),
        (1_500, "bytes", "1.465 KiB"),
        (7, "bytes", "7 bytes"),
    ],
)
def test_amounts_are_said_as_people_say_them(value: int, unit: str, words: str) -> None:
    assert in_words(value, unit) == words


# --- inside runs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    world.calls.clear()
    world.hold = asyncio.Event()
    world.fail_times = world.at_once = world.most_at_once = 0
    async with open_rig(f"sqlite:///{tmp_path}/rig.db") as rig:
        yield rig


def lower(rig: Rig, name: str, value: int) -> None:
    rig.engine.limits._lowered[TENANT, name] = value
    rig.engine.limits._tell(TENANT)


async def test_so_many_runs_go_on_at_once(rig: Rig) -> None:
    lower(rig, "concurrent_runs", 3)
    blueprint = drawn({"s": "start", "r": ("read", {"seconds": 0.005})}, "s.value > r.value")
    started = [await rig.begin(blueprint, n) for n in range(20)]
    assert {(await rig.ended(ex.id)).info.state for ex in started} == {"succeeded"}
    assert world.most_at_once == 3


async def test_a_run_that_works_too_long_ends(rig: Rig) -> None:
    lower(rig, "run_seconds", 0)
    held = drawn({"s": "start", "e": ("effect", {"hold": True})}, "s.value > e.value")
    view = await rig.run(held)
    assert view.info.state == "failed" and view.info.error is not None
    assert (view.info.error["code"], view.info.error["category"]) == ("limit.run_seconds", "limit")
    assert view.info.error["fix"]


async def test_the_time_in_which_a_run_waits_does_not_count(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/w.db"
    asks = drawn({"s": "start", "a": "ask", "r": ("read", {})}, "s.value > a.value", "a.yes > r.value")
    async with open_rig(url) as rig:
        ex = await rig.begin(asks, 1)
        await rig.waiting(ex.id)
        _, _, facts = await rig.engine.journal.load(TENANT, ex.id)
    [worked] = [fact["worked"] for fact in facts if fact["kind"] == "step.waiting"]
    assert 0 <= worked < 60
    async with open_rig(url) as rig:
        [approval] = await rig.approvals.list(WHO)
        later = rig.engine.clock() + 86_400
        rig.engine.clock = lambda: later
        await rig.approvals.decide(WHO, approval.id, approve=True)
        assert (await rig.ended(ex.id)).info.state == "succeeded"


async def test_a_lower_time_for_steps_holds_for_every_step(rig: Rig) -> None:
    lower(rig, "step_seconds", 0)
    patient = drawn({"s": "start", "e": ("effect", {"hold": True}, {"timeout": 3600})}, "s.value > e.value")
    view = await rig.run(patient)
    assert view.info.error is not None and view.info.error["category"] == "timeout"


@pytest.mark.parametrize(("lowered", "tries"), [(0, 1), (1, 2), (None, 4)])
async def test_a_step_is_tried_no_more_often_than_the_team_lets_it(rig: Rig, lowered: int | None, tries: int) -> None:
    if lowered is not None:
        lower(rig, "retries", lowered)
    world.fail_times = 100
    policy = {"retries": 3, "first_delay": 0}
    await rig.run(drawn({"s": "start", "e": ("effect", {}, policy)}, "s.value > e.value"))
    assert len(world.calls) == tries


@pytest.mark.parametrize(("items", "state"), [(5, "succeeded"), (6, "failed"), (500, "failed")])
async def test_a_loop_goes_through_so_many_items(rig: Rig, items: int, state: str) -> None:
    lower(rig, "loop_items", 5)
    loop = drawn(
        {"s": "start", "each": "each", "c": "compute"}, "s.value > each.items", "each.item > c.value", "c.value > each.result"
    )  # fmt: skip
    view = await rig.run(loop, list(range(items)))
    assert view.info.state == state
    if view.info.error:
        assert view.info.error["code"] == "limit.loop_items" and f"{items:,} items" in view.info.error["message"]


@pytest.mark.parametrize(("rounds", "state"), [(5, "succeeded"), (6, "failed"), (500, "failed")])
async def test_a_repetition_has_so_many_rounds(rig: Rig, rounds: int, state: str) -> None:
    lower(rig, "loop_items", 5)
    loop = drawn(
        {"s": "start", "again": ("again", {"until": f"result >= {rounds}", "most": 1_000}), "c": ("compute", {"formula": "item + 1"})},
        "s.value > again.value", "again.item > c.value", "c.value > again.result",
    )  # fmt: skip
    view = await rig.run(loop, 0)
    assert view.info.state == state
    if view.info.error:
        assert view.info.error["code"] == "limit.loop_items" and "6 items" in view.info.error["message"]


async def test_agents_call_each_other_so_deep(tmp_path: Path) -> None:
    itself = drawn({"s": "start", "c": ("call", {"blueprint": "bp"})}, "s.value > c.value")
    async with open_rig(f"sqlite:///{tmp_path}/f.db", bp=itself) as rig:
        lower(rig, "call_depth", 2)
        view = await rig.run(itself)
        assert view.info.state == "failed" and "2 levels" in str(view.info.error)
        assert len(await rig.runs.list(WHO)) == 3


# --- models ----------------------------------------------------------------------------------------------------------------


async def test_a_models_answer_is_so_long(factory: Factory) -> None:
    async with OpenAiServer() as server:
        door = await _door(factory, server)
        await factory.limits.set(ADMIN, "model_output_tokens", 100)
        await door.ask([{"role": "user", "content": "hello"}], max_tokens=99_999)
        assert server.bodies[-1]["max_tokens"] == 100


async def test_the_models_of_a_run_take_so_many_tokens(factory: Factory) -> None:
    async with OpenAiServer() as server:
        door = await _door(factory, server)
        await factory.limits.set(ADMIN, "model_run_tokens", 1)
        await door.ask([{"role": "user", "content": "hello"}])
        with pytest.raises(NodeError) as caught:
            await door.ask([{"role": "user", "content": "hello"}])
        assert caught.value.category == "limit"


async def _door(factory: Factory, server: OpenAiServer) -> Any:
    from runtime.llm import ModelSettings

    factory.llms.operator = ModelSettings("openai/gpt-4o", server.base_url, KEY)
    return factory.llms.door(ADMIN.tenant)
