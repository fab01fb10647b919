"""Money has a limit: a thousand calls at once overspend it by one call at most, and nothing that was set aside gets lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import select

from nodes.base import NodeError
from nodes.blueprint import Blueprint
from nodes.errors import Denied, FactoryError
from runtime.factory import Factory
from runtime.ledger import Ledger, Payer
from runtime.prices import Price, listed, longest_question, micro
from runtime.views import RunView
from storage.spending import Spending, SpendingHold
from tests.fakes.openai_server import KEY, OpenAiServer
from tests.runtime.factories import ADMIN, DEVELOPER, STRANGER, agent, new_factory

DOLLAR = 1_000_000
TEAM = ADMIN.tenant
LONG = "#say " + " ".join(["word"] * 1_000)


@pytest.fixture
async def provider() -> AsyncIterator[OpenAiServer]:
    async with OpenAiServer() as server:
        yield server


def model(server: OpenAiServer, **more: Any) -> dict[str, Any]:
    return {"model": "openai/gpt-4o", "model_base_url": server.base_url, "model_key": KEY, **more}


def cost_of(server: OpenAiServer, *, echoed: bool = False) -> int:
    """What the provider would bill for gpt-4o, in millionths of a dollar: $2.50 and $10 for a million tokens.

    A question of so many words is answered with one less, or with two more when it is `echoed`.
    """
    asked = [sum(len(str(message["content"]).split()) for message in body["messages"]) for body in server.bodies]
    return sum(ceil(2.5 * words + 10 * (words + (2 if echoed else -1))) for words in asked)


async def test_a_thousand_calls_at_once_overspend_a_dollar_by_at_most_one(
    database_url: str, provider: OpenAiServer
) -> None:
    servers = 2 if database_url.startswith("postgres") else 1
    async with AsyncExitStack() as stack:
        factories = [
            await stack.enter_async_context(new_factory(database_url, **model(provider))) for _ in range(servers)
        ]
        await factories[0].limits.set(ADMIN, "day_money", DOLLAR)
        for each in factories:
            await each.limits.load()

        async def ask(number: int) -> bool:
            door = factories[number % servers].llms.door(TEAM, run=f"run_{number}")
            try:
                await door.ask([{"role": "user", "content": LONG}], max_tokens=1_000, timeout=300)
            except NodeError as error:
                assert (error.category, error.code) == ("limit", "limit.day_money")
                assert "Your team's budget for today, $1.00, is used up" in error.message and error.fix
                return False
            return True

        answered = sum(await asyncio.gather(*(ask(number) for number in range(1_000))))
        standing = await factories[0].ledger.standing(ADMIN)
        one = cost_of(provider) // answered
        assert answered == len(provider.asked)
        assert DOLLAR <= cost_of(provider) <= DOLLAR + one
        assert standing.today.spent == standing.month.spent == cost_of(provider)
        assert standing.today.held == 0 and standing.today.used_up


async def ask(factory: Factory, text: str = "hello", *, run: str = "", **more: Any) -> Any:
    return await factory.llms.door(TEAM, run=run).ask([{"role": "user", "content": text}], **more)


async def refused(factory: Factory, text: str = "hello", **more: Any) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await ask(factory, text, **more)
    return caught.value


async def spent(factory: Factory) -> tuple[int, int]:
    """Spent and held today."""
    today = (await factory.ledger.standing(ADMIN)).today
    return today.spent, today.held


@pytest.fixture
async def factory(tmp_path: Path, provider: OpenAiServer) -> AsyncIterator[Factory]:
    async with new_factory(f"sqlite:///{tmp_path}/f.db", **model(provider)) as factory:
        yield factory


def two_questions(first: str = "one", second: str = "two") -> Blueprint:
    return agent(
        {
            "start": "trigger.manual",
            "first": ("action.ask_model", {"prompt": first}),
            "second": ("action.ask_model", {"prompt": second}),
        },
        "start.value > first.value", "first.text > second.value",
    )  # fmt: skip


async def started(factory: Factory, blueprint: Blueprint) -> RunView:
    made = await factory.blueprints.create(ADMIN, blueprint)
    run_id = await factory.runs.start(ADMIN, made.id, {})
    return await factory.runs.wait(ADMIN, run_id, 20)


# --- refusing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("run_money", "This run's budget, $0.01, is used up"),
        ("day_money", "Your team's budget for today, $0.01, is used up"),
        ("month_money", "Your team's budget for this month, $0.01, is used up"),
    ],
)
async def test_each_budget_says_which_is_used_up(
    factory: Factory, provider: OpenAiServer, name: str, said: str
) -> None:
    await factory.limits.set(ADMIN, name, DOLLAR // 100)
    await ask(factory, LONG, run="run_1")
    for _ in range(3):
        error = await refused(factory, run="run_1")
        assert said in error.message and "Settings → Limits" in str(error.fix)
        assert (error.category, error.code, error.retry) == ("limit", f"limit.{name}", False)
    assert len(provider.asked) == 1
    if name == "run_money":
        await ask(factory, run="run_2")
    await factory.limits.set(ADMIN, name, None)
    await ask(factory, run="run_1")


async def test_with_nothing_to_spend_nothing_is_asked(factory: Factory, provider: OpenAiServer) -> None:
    await factory.limits.set(ADMIN, "day_money", 0)
    assert "$0.00, is used up" in (await refused(factory)).message
    assert provider.asked == []


async def test_what_the_team_did_not_lower_only_the_operator_can_raise(tmp_path: Path, provider: OpenAiServer) -> None:
    async with new_factory(f"sqlite:///{tmp_path}/op.db", **model(provider, day_budget=0.01)) as factory:
        await ask(factory, LONG)
        error = await refused(factory)
        assert "$0.01" in error.message and "FACTORY_DAY_BUDGET" in str(error.fix)


async def test_a_run_stops_at_its_budget_and_can_be_tried_again(factory: Factory, provider: OpenAiServer) -> None:
    await factory.limits.set(ADMIN, "run_money", 1)
    view = await started(factory, two_questions())
    assert view.info.error is not None
    assert (view.info.state, view.info.error["code"]) == ("failed", "limit.run_money")
    [letter] = await factory.dead_letters.list(ADMIN)
    assert letter.run.id == view.info.id and letter.run.error["category"] == "limit"
    await factory.limits.set(ADMIN, "run_money", None)
    again = await factory.dead_letters.retry(ADMIN, view.info.id)
    assert (await factory.runs.wait(ADMIN, again, 20)).info.state == "succeeded"
    assert provider.prompts == ["one", "two"], "what was answered before is not asked, and not paid, again"
    cost = await factory.ledger.of_run(ADMIN, again)
    assert cost is not None and cost.calls == 1
    assert (await spent(factory))[0] == cost_of(provider, echoed=True)


async def test_an_agent_step_stops_at_a_budget_too(factory: Factory, provider: OpenAiServer) -> None:
    await factory.limits.set(ADMIN, "run_money", 1)
    looped = agent(
        {
            "start": ("trigger.manual", {}),
            "agent": ("action.agent", {"task": '#turns #call note {"text": "x"} #then Done.'}),
            "note": ("action.text_template", {"template": "{{ args.text }}"}),
        },
        "start.value > agent.value", "note.tool > agent.tools",
    )  # fmt: skip
    view = await started(factory, looped)
    assert view.info.error is not None and view.info.error["code"] == "limit.run_money"
    assert len(provider.asked) == 1
    [info] = [each for each in await factory.limits.list(ADMIN) if each.limit.name == "day_money"]
    assert info.used == (await spent(factory))[0] > 0


async def test_a_call_waits_while_the_rest_is_only_held(factory: Factory, provider: OpenAiServer) -> None:
    price = (await ask(factory)).cost
    await factory.limits.set(ADMIN, "run_money", micro(price * 60))
    answers = await asyncio.gather(*(ask(factory, run="run_1", max_tokens=100) for _ in range(50)))
    assert len(answers) == 50, "each may cost much more than it does, and all fit in the end"


async def test_who_waits_too_long_is_told_why(factory: Factory) -> None:
    await factory.limits.set(ADMIN, "day_money", 1_000)
    held = await factory.ledger.hold(Payer(TEAM), 999)
    error = await refused(factory, timeout=0.2)
    assert (error.code, error.retry, error.category) == ("limit.money_held", True, "limit")
    factory.ledger.pay(held, 0, calls=0)
    await ask(factory)
    assert (await spent(factory))[1] == 0


# --- counting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["#429", "#500", "#400", "#403"])
async def test_what_the_provider_refused_costs_nothing(factory: Factory, word: str) -> None:
    await refused(factory, word)
    assert await spent(factory) == (0, 0)


@pytest.mark.parametrize("more", [{"timeout": 0.3}, {"on_text": len}])
async def test_an_answer_that_nobody_heard_counts_with_its_question(factory: Factory, more: dict[str, Any]) -> None:
    await refused(factory, "#wait" if "timeout" in more else "#cut one two three four", **more)
    paid, held = await spent(factory)
    assert 0 < paid < 1_000 and held == 0


async def test_a_cancelled_call_gives_back_what_it_held(factory: Factory, provider: OpenAiServer) -> None:
    asking = asyncio.create_task(ask(factory, "#wait"))
    while not provider.asked:
        await asyncio.sleep(0.01)
    assert (await spent(factory))[1] > 0
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await ask(factory)  # in turn: what was to be written before is written
    assert (await spent(factory))[1] == 0


async def test_an_answer_sent_back_once_is_paid_twice(factory: Factory, provider: OpenAiServer) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}
    reply = await ask(factory, '#once {}|{"n": 1}', schema=schema, run="run_1")
    assert len(provider.asked) == 2
    cost = await factory.ledger.of_run(ADMIN, "run_1")
    assert cost is not None and cost.calls == 2
    assert micro(reply.cost) <= cost.spent <= micro(reply.cost) + 1
    assert (cost.tokens_in, cost.tokens_out) == (reply.tokens_in, reply.tokens_out)


async def test_tests_cost_real_money_unless_the_answer_is_made_up(tmp_path: Path, provider: OpenAiServer) -> None:
    async with new_factory(f"sqlite:///{tmp_path}/real.db", **model(provider)) as factory:
        tested = await factory.sandbox.start(ADMIN, two_questions(), {})
        await factory.runs.wait(ADMIN, tested, 20)
        assert (await spent(factory))[0] == cost_of(provider, echoed=True) > 0
    async with new_factory(f"sqlite:///{tmp_path}/canned.db") as factory:
        tested = await factory.sandbox.start(ADMIN, two_questions(), {})
        assert (await factory.runs.wait(ADMIN, tested, 20)).info.state == "succeeded"
        assert await spent(factory) == (0, 0)


async def test_it_is_told_which_agent_the_money_went_to(factory: Factory, provider: OpenAiServer) -> None:
    view = await started(factory, two_questions())
    [cost] = (await factory.ledger.standing(ADMIN)).agents
    assert cost.subject == view.info.blueprint_id
    assert (cost.spent, cost.calls) == (cost_of(provider, echoed=True), 2)
    assert (await factory.ledger.standing(STRANGER)).month.spent == 0
    assert await factory.ledger.of_run(STRANGER, view.info.id) is None


async def test_a_run_that_asks_no_model_writes_nothing_into_the_ledger(factory: Factory) -> None:
    plain = agent(
        {"start": "trigger.manual", "say": ("action.text_template", {"template": "x"})}, "start.value > say.value"
    )
    view = await started(factory, plain)
    assert view.info.state == "succeeded"
    assert await factory.db.read(TEAM, lambda session: list(session.exec(select(Spending)))) == []


# --- crashes -----------------------------------------------------------------------------------------------------------


async def test_what_a_dead_process_held_is_given_back(database_url: str) -> None:
    async with new_factory(database_url) as factory:
        held = [await factory.ledger.hold(Payer(TEAM, f"run_{n}"), 1_000) for n in range(3)]
        factory.ledger.pay(held[0], 400)
        await factory.ledger.hold(Payer("others"), 7)
        assert (await spent(factory)) in [(400, 2_000), (0, 3_000)]
    async with new_factory(database_url) as again:
        assert await spent(again) == (400, 0)
        assert await again.db.read_all(lambda session: list(session.exec(select(SpendingHold)))) == []


async def test_another_server_gives_back_only_what_dead_ones_held(postgres_url: str) -> None:
    async with new_factory(postgres_url, lease_seconds=60) as one, new_factory(postgres_url, lease_seconds=60) as other:
        await one.ledger.hold(Payer(TEAM), 1_000)
        await other.ledger.recover()
        assert (await spent(other)) == (0, 1_000)
        dead = Ledger(one.db, one.limits, one.bus, server=lambda: "srv_dead")
        late = await dead.hold(Payer(TEAM), 500)
        await other.ledger.recover()
        assert (await spent(other)) == (0, 1_000)
        await one.ledger.pay(late, 300)
        assert (await spent(other)) == (300, 1_000), "what was paid after all counts, and nothing is given back twice"


async def test_what_a_server_held_is_given_back_when_the_others_give_it_up(postgres_url: str) -> None:
    async with new_factory(postgres_url, lease_seconds=1) as one:
        await one.ledger.hold(Payer(TEAM, "run_1"), 1_000)
        for task in one.engine.lease._tasks:  # it freezes: nothing renews its lease any more
            task.cancel()
        async with new_factory(postgres_url, lease_seconds=1) as other:
            async with asyncio.timeout(20):
                while (await spent(other)) != (0, 0):
                    await asyncio.sleep(0.05)


async def test_a_conversation_that_goes_on_after_a_restart_is_not_paid_again(
    tmp_path: Path, provider: OpenAiServer
) -> None:
    url = f"sqlite:///{tmp_path}/crash.db"
    asks_first = agent(
        {
            "start": ("trigger.manual", {}),
            "agent": ("action.agent", {"task": '#turns #call may {"text": "x"} #then Done.'}),
            "may": ("validation.approve", {"question": "May it? {{ args.text }}"}),
        },
        "start.value > agent.value", "may.tool > agent.tools",
    )  # fmt: skip
    async with new_factory(url, **model(provider)) as factory:
        made = await factory.blueprints.create(ADMIN, asks_first)
        run_id = await factory.runs.start(ADMIN, made.id, {})
        async with asyncio.timeout(20):
            while not await factory.approvals.list(DEVELOPER):
                await asyncio.sleep(0.01)
        first = await spent(factory)
    async with new_factory(url, **model(provider)) as again:
        assert await spent(again) == first
        [asked] = await again.approvals.list(DEVELOPER)
        await again.approvals.decide(DEVELOPER, asked.id, approve=True)
        async with asyncio.timeout(20):
            told = [fact["kind"] async for fact in again.runs.watch(ADMIN, run_id)]
        assert told[-1] == "run.finished"
        assert (await again.runs.get(ADMIN, run_id)).info.state == "succeeded"
        cost = await again.ledger.of_run(ADMIN, run_id)
    assert cost is not None and cost.calls == len(provider.asked) == 2


# --- prices ------------------------------------------------------------------------------------------------------------


async def test_a_model_without_a_price_is_free_until_somebody_sets_a_budget(
    tmp_path: Path, provider: OpenAiServer
) -> None:
    async with new_factory(f"sqlite:///{tmp_path}/own.db", **model(provider, model="our-model-7b")) as factory:
        assert (await ask(factory)).cost == 0
        standing = await factory.ledger.standing(ADMIN)
        assert (standing.month.spent, standing.unpriced) == (0, 1)
        await factory.limits.set(ADMIN, "month_money", DOLLAR)
        error = await refused(factory)
        assert (error.code, error.category) == ("limit.price_unknown", "limit")
        assert "our-model-7b" in error.message and "Settings → Limits" in str(error.fix)
        assert len(provider.asked) == 1
        await factory.preferences.set_price(ADMIN, "our-model-7b", Price(1_000, 2_000))
        reply = await ask(factory, "one two")
        assert micro(reply.cost) == 2 * 1_000 + 4 * 2_000 == (await spent(factory))[0]
        await factory.preferences.set_price(ADMIN, "our-model-7b", Price(0, 0))
        assert (await ask(factory)).cost == 0
        await factory.preferences.set_price(ADMIN, "our-model-7b", None)
        assert (await refused(factory)).code == "limit.price_unknown"


async def test_who_runs_the_installation_sets_its_prices_and_budgets_and_no_team_loosens_them(
    tmp_path: Path, provider: OpenAiServer
) -> None:
    given = model(provider, model="our-model-7b", model_price=(1_000, 1_000), run_budget=2.0)
    async with new_factory(f"sqlite:///{tmp_path}/op.db", **given) as factory:
        await factory.preferences.set_price(ADMIN, "our-model-7b", Price(0, 0))
        assert micro((await ask(factory)).cost) == 4_000
        with pytest.raises(FactoryError, match=r"between \$0\.00 and \$2\.00"):
            await factory.limits.set(ADMIN, "run_money", 3 * DOLLAR)
    async with new_factory(f"sqlite:///{tmp_path}/op2.db", **model(provider)) as factory:
        await factory.preferences.set_price(ADMIN, "gpt-4o", Price(0, 0))
        assert (await ask(factory)).cost > 0


async def test_only_admins_enter_prices(factory: Factory) -> None:
    with pytest.raises(Denied):
        await factory.preferences.set_price(DEVELOPER, "x", Price(1, 1))
    for name, price in (("", Price(1, 1)), ("x" * 201, Price(1, 1)), ("x", Price(-1, 0)), ("x", Price(0, 1e9))):
        with pytest.raises(FactoryError):
            await factory.preferences.set_price(ADMIN, name, price)
    assert await factory.preferences.prices(ADMIN) == {}


async def test_days_and_months_are_those_of_utc(factory: Factory) -> None:
    moment = datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC).timestamp()
    factory.ledger.clock = lambda: moment
    late = await factory.ledger.hold(Payer(TEAM), 50)
    moment += 2
    await factory.ledger.pay(late, 40)
    await ask(factory)
    standing = await factory.ledger.standing(ADMIN)
    assert (standing.today.period, standing.month.period) == ("2027-02-01", "2027-02")
    assert standing.today.held == 0 and 0 < standing.today.spent != 40
    moment -= 2
    assert (await spent(factory)) == (40, 0), "a call counts for the day on which it was asked"


async def test_prices_come_from_the_list_and_nobody_is_asked_for_them(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = await factory.llms.library()
    called: list[Any] = []
    monkeypatch.setattr("socket.socket.connect", lambda _, address: called.append(address))
    assert listed(library, "gpt-4o", "openai") == Price(2.5, 10.0, listed=True)
    long = listed(library, "gemini-2.5-pro", "gemini")
    assert long is not None and (long.tokens_in, long.tokens_out) == (2.5, 15.0), "as for the longest prompts"
    for model, provider in (("our-own", "ollama"), ("our-own", "huggingface"), ("our-own", "openai"), ("x", "azure")):
        assert listed(library, model, provider) is None
    assert called == []


@given(st.lists(st.text(max_size=200), min_size=1, max_size=5), st.booleans())
def test_a_question_never_has_more_tokens_than_are_set_aside_for_it(texts: list[str], tools: bool) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    given_tools = (
        [{"type": "function", "function": {"name": "f", "description": text}} for text in texts] if tools else None
    )
    most = longest_question(messages, tools=given_tools)
    sent = sum(len(text.encode()) for text in texts) * (2 if tools else 1)
    assert most >= sent + 4 * len(texts), "a token stands for a byte at least, and every message is framed"
