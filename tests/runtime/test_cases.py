"""Cases: kept inputs with an expectation, which an agent has to pass before it goes live."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from nodes.blueprint import Blueprint
from nodes.errors import Denied, FactoryError, NotFound
from runtime.deploy import CasesFailed
from runtime.environments import TEST
from runtime.factory import Factory
from tests.runtime.factories import ADMIN, DEVELOPER, STRANGER, VIEWER, agent, new_factory


@pytest.fixture
async def factory(tmp_path: Path) -> AsyncIterator[Factory]:
    async with new_factory(f"sqlite:///{tmp_path / 'factory.db'}") as factory:
        yield factory


def pricing(rate: float = 2.0) -> Blueprint:
    """Answers with the price; an order without a total fails. The mail is only told in the sandbox."""
    return agent(
        {
            "in": ("trigger.webhook", {"path": "orders", "respond": "end"}),
            "price": ("context.set_values", {"values": [{"name": "price", "value": f"{{{{ total * {rate} }}}}"}]}),
            "out": "action.respond",
        },
        "in.body > price.value", "price.value > out.value",
    )  # fmt: skip


def event(**body: Any) -> dict[str, Any]:
    return {"body": body, "query": {}, "headers": {}, "method": "POST"}


async def drawn(factory: Factory, blueprint: Blueprint | None = None) -> str:
    return (await factory.blueprints.create(ADMIN, blueprint or pricing())).id


async def test_a_case_passes_when_its_run_ends_as_expected_and_its_formula_holds(factory: Factory) -> None:
    id_ = await drawn(factory)
    await factory.cases.put(DEVELOPER, id_, name="Plain", input=event(total=1))
    await factory.cases.put(
        DEVELOPER, id_, name="Doubled", input=event(total=4), formula="price == input.body.total * 2"
    )
    await factory.cases.put(DEVELOPER, id_, name="No total", input=event(), expects="failed")
    report = await factory.cases.run(DEVELOPER, id_)
    assert [(one.name, one.passed, one.why) for one in report.results] == [
        ("Plain", True, ""),
        ("Doubled", True, ""),
        ("No total", True, ""),
    ]
    assert await factory.runs.list(ADMIN) == [], "nothing of it is a real run"


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ({"input": event()}, "It should go well, but it failed: "),
        ({"input": event(total=1), "expects": "failed"}, "It should fail, but it went well."),
        ({"input": event(total=1), "formula": "price > 100"}, "The result is not as expected: “price > 100”."),
        ({"input": event(total=1), "formula": "prize > 1"}, "What is expected of the result cannot be read: "),
        ({"input": event(total=1), "formula": "price"}, "The result is not as expected"),
        ({"input": event(total=1), "trigger": "gone"}, "no trigger “gone”"),
    ],
)
async def test_a_case_that_fails_says_why(factory: Factory, case: dict[str, Any], why: str) -> None:
    id_ = await drawn(factory)
    await factory.cases.put(ADMIN, id_, name="Case", **case)
    [result] = (await factory.cases.run(ADMIN, id_)).failing
    assert why in result.why


async def test_an_agent_whose_case_fails_does_not_go_live(factory: Factory) -> None:
    id_ = await drawn(factory)
    await factory.cases.put(ADMIN, id_, name="Doubled", input=event(total=4), formula="price == 8")
    await factory.deployments.deploy(DEVELOPER, id_)
    await factory.blueprints.save(ADMIN, id_, pricing(3.0), revision=1)
    with pytest.raises(CasesFailed, match=r"“Doubled” fails\. The result is not as expected") as refused:
        await factory.deployments.deploy(DEVELOPER, id_)
    assert refused.value.as_dict()["cases"][0]["passed"] is False  # type: ignore[index]
    assert (await factory.deployments.of(ADMIN, id_)).version == 1  # type: ignore[union-attr]
    assert len(await factory.blueprints.versions(ADMIN, id_)) == 1, "what is refused becomes no version"
    assert (await factory.deployments.deploy(DEVELOPER, id_, environment=TEST)).version == 2, "to test it may go"


async def test_only_an_admin_deploys_anyway_and_says_why(factory: Factory) -> None:
    id_ = await drawn(factory)
    await factory.cases.put(ADMIN, id_, name="Doubled", input=event(total=4), formula="price == 9")
    with pytest.raises(Denied):
        await factory.deployments.deploy(DEVELOPER, id_, anyway="It is urgent")
    live = await factory.deployments.deploy(ADMIN, id_, anyway="It is urgent")
    assert live.waiver == "1 of 1 cases failed. Ada: It is urgent"
    [case] = await factory.cases.list(ADMIN, id_)
    await factory.cases.put(ADMIN, id_, name="Doubled", input=event(total=4), formula="price == 8", id=case.id)
    assert (await factory.deployments.deploy(DEVELOPER, id_)).waiver == ""


async def test_going_back_asks_no_case(factory: Factory) -> None:
    id_ = await drawn(factory)
    live = await factory.deployments.deploy(ADMIN, id_)
    await factory.blueprints.save(ADMIN, id_, pricing(3.0), revision=1)
    await factory.deployments.deploy(ADMIN, id_)
    await factory.cases.put(ADMIN, id_, name="Never", input=event(total=4), formula="price == 0")
    assert (await factory.deployments.rollback(ADMIN, live.id)).version == 1


async def test_what_people_would_answer_belongs_to_a_case(factory: Factory) -> None:
    id_ = await drawn(
        factory,
        agent(
            {
                "go": "trigger.manual",
                "ask": ("validation.approve", {"question": "Go on?"}),
                "yes": ("context.set_values", {"values": [{"name": "said", "value": "yes"}]}),
                "no": ("context.set_values", {"values": [{"name": "said", "value": "no"}]}),
            },
            "go.value > ask.value", "ask.approved > yes.value", "ask.rejected > no.value",
        ),
    )  # fmt: skip
    for said, yes in (("yes", True), ("no", False)):
        await factory.cases.put(
            ADMIN, id_, name=said, input={"value": {}}, formula=f'said == "{said}"', pretend={"ask": {"approved": yes}}
        )
    assert (await factory.cases.run(ADMIN, id_)).failing == ()


async def test_cases_belong_to_their_team_and_agent(factory: Factory) -> None:
    id_, other = await drawn(factory), await drawn(factory)
    case = await factory.cases.put(ADMIN, id_, name="Mine", input=event(total=1))
    assert await factory.cases.list(STRANGER, id_) == []
    with pytest.raises(NotFound):
        await factory.cases.put(STRANGER, id_, name="Theirs", input={})
    with pytest.raises(NotFound):
        await factory.cases.put(ADMIN, other, name="Moved", input={}, id=case.id)
    with pytest.raises(NotFound):
        await factory.cases.delete(STRANGER, case.id)
    for refused in (factory.cases.put(VIEWER, id_, name="No", input={}), factory.cases.delete(VIEWER, case.id)):
        with pytest.raises(Denied):
            await refused
    await factory.cases.delete(ADMIN, case.id)
    assert await factory.cases.list(ADMIN, id_) == []


@pytest.mark.parametrize(
    "bad", [{"name": "  "}, {"name": "Case", "formula": "price =="}, {"name": "Case", "input": "x" * 300_000}]
)
async def test_a_case_that_cannot_be_kept_is_refused_in_words(factory: Factory, bad: dict[str, Any]) -> None:
    id_ = await drawn(factory)
    with pytest.raises(FactoryError) as refused:
        await factory.cases.put(ADMIN, id_, **{"input": {}} | bad)
    assert refused.value.message
