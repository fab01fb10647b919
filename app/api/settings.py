"""What a team sets for itself, over HTTP: its language model with prices, and lower limits; and what its models cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from app.api.contract import Admin, Listed, Posted, Shown, Viewer, refuses, resource
from app.permissions import TheFactory
from runtime.ledger import Budget, Cost
from runtime.limits import LimitInfo
from runtime.preferences import DEAREST, ModelChoice
from runtime.prices import MICRO, Price

router = resource("settings", tag="Settings")


class ModelShown(Shown):
    """The team's model. Empty: the operator's default counts, if there is one."""

    model: str = Field(examples=["openai/gpt-5-mini"])
    base_url: str
    secret: str = Field(description="The name of the secret that holds its key.")


class Model(Posted):
    """The team's model as litellm names it; an empty name goes back to the operator's default."""

    model: str = Field(default="", max_length=200, examples=["openai/gpt-5-mini"])
    base_url: str = Field(default="", max_length=500, examples=["https://api.example.com/v1"])
    secret: str = Field(default="", max_length=100, examples=["model-key"])


@router.get("/model", response_model=ModelShown, summary="Get the team's model")
async def model(who: Viewer, factory: TheFactory) -> Any:
    """Its name, its address and the name of its secret."""
    return await factory.preferences.model(who)


@router.put("/model", response_model=ModelShown, responses=refuses(415), summary="Choose the team's model")
async def set_model(who: Admin, factory: TheFactory, posted: Model) -> Any:
    """It counts from the next call on."""
    await factory.preferences.set_model(who, ModelChoice(posted.model, posted.base_url, posted.secret))
    return await factory.preferences.model(who)


class LimitShown(Shown):
    """What a team may use at most."""

    name: str = Field(examples=["concurrent_runs"])
    title: str
    unit: str = Field(examples=["runs"], description="Micro-dollars are millionths of a US dollar.")
    meaning: str = Field(description="What it holds back, in a sentence.")
    default: int = Field(description="The product's own; a team's may be lower, not higher.")
    value: int = Field(description="What holds for your team.")
    lowered: bool
    lowerable: bool = Field(description="Whether a team can lower it.")
    used: int | None = Field(description="The present use, where it is known.")


class LimitSet(Posted):
    """A lower limit for the team; null goes back to the product's own."""

    value: int | None = Field(ge=0, le=2**53, examples=[50])


@router.get("/limits", response_model=Listed[LimitShown], summary="List the limits")
async def limits(who: Viewer, factory: TheFactory) -> Any:
    """Everything has a limit; some are lower for your team."""
    return {"items": [_shown(each) for each in await factory.limits.list(who)]}


@router.put("/limits/{name}", response_model=LimitShown, responses=refuses(404, 415, 422), summary="Lower a limit")
async def set_limit(name: str, who: Admin, factory: TheFactory, posted: LimitSet) -> Any:
    """It holds from now on; what runs already runs on."""
    return _shown(await factory.limits.set(who, name, posted.value))


def _shown(info: LimitInfo) -> dict[str, Any]:
    limit = info.limit
    return {
        "name": limit.name,
        "title": limit.title,
        "unit": limit.unit,
        "meaning": limit.sentence,
        "default": limit.default,
        "value": info.value,
        "lowered": info.lowered,
        "lowerable": limit.lowerable,
        "used": info.used,
    }


class BudgetShown(Shown):
    """A budget and how much of it is gone, in US dollars."""

    period: str = Field(examples=["2026-11-21"], description="A day or a month, in UTC.")
    limit: float
    spent: float
    held: float = Field(description="Set aside for questions that are under way.")


class AgentCost(Shown):
    """What the models of an agent cost this month, in US dollars."""

    blueprint_id: str
    spent: float
    answers: int


class SpendingShown(Shown):
    """What the team's models cost."""

    today: BudgetShown
    month: BudgetShown
    agents: list[AgentCost] = Field(description="Where it went this month, the dearest first.")
    unpriced: int = Field(description="Answers of this month whose price is not known; they are in no sum.")


@router.get("/spending", response_model=SpendingShown, summary="See what models cost")
async def spending(who: Viewer, factory: TheFactory) -> Any:
    """Today and this month against the budgets, which are limits like all others, and the agents it went to."""
    found = await factory.ledger.standing(who)
    return {
        "today": _budget(found.today),
        "month": _budget(found.month),
        "agents": [_agent(each) for each in found.agents],
        "unpriced": found.unpriced,
    }


def _budget(budget: Budget) -> dict[str, Any]:
    amounts = {"limit": budget.limit, "spent": budget.spent, "held": budget.held}
    return {"period": budget.period} | {name: amount / MICRO for name, amount in amounts.items()}


def _agent(cost: Cost) -> dict[str, Any]:
    return {"blueprint_id": cost.subject, "spent": cost.spent / MICRO, "answers": cost.calls}


class PriceShown(Shown):
    """What a model costs, in US dollars for a million tokens."""

    model: str = Field(examples=["ollama/llama3.2"])
    tokens_in: float
    tokens_out: float


class PriceSet(Posted):
    """A price for a model that the price list does not know, or for one of your own; null forgets it."""

    model: str = Field(min_length=1, max_length=200, examples=["ollama/llama3.2"])
    tokens_in: float | None = Field(ge=0, le=DEAREST, examples=[0.15])
    tokens_out: float | None = Field(ge=0, le=DEAREST, examples=[0.6])


@router.get("/prices", response_model=Listed[PriceShown], summary="List your prices")
async def prices(who: Viewer, factory: TheFactory) -> Any:
    """The prices that your team entered; those of well-known models need not be."""
    return {"items": _prices(await factory.preferences.prices(who))}


@router.put("/prices", response_model=Listed[PriceShown], responses=refuses(415, 422), summary="Enter a price")
async def set_price(who: Admin, factory: TheFactory, posted: PriceSet) -> Any:
    """It counts from the next question on."""
    known = posted.tokens_in is not None and posted.tokens_out is not None
    price = Price(float(posted.tokens_in or 0), float(posted.tokens_out or 0)) if known else None
    await factory.preferences.set_price(who, posted.model, price)
    return {"items": _prices(await factory.preferences.prices(who))}


def _prices(found: Mapping[str, Price]) -> list[dict[str, Any]]:
    return [
        {"model": model, "tokens_in": price.tokens_in, "tokens_out": price.tokens_out} for model, price in found.items()
    ]
