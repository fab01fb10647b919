"""What a team sets for itself: its language model and its name for things. The model's key is a secret like any other."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nodes.base import NodeError
from nodes.errors import FactoryError
from runtime.llm import ModelSettings
from runtime.policy import Actor, Permission
from runtime.prices import Price
from runtime.vault import Vault
from storage import setting
from storage.database import Database
from storage.tenancy import TenantSession

MODEL = "model"
PRICES = "prices"
MOST_PRICES = 100
DEAREST = 100_000.0  # dollars for a million tokens


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The team's model as litellm names it; `secret` names the secret that holds its key."""

    model: str = ""
    base_url: str = ""
    secret: str = ""


class Preferences:
    """Settings of a tenant."""

    def __init__(self, db: Database, vault: Vault) -> None:
        self._db = db
        self._vault = vault

    async def model(self, who: Actor) -> ModelChoice:
        """The team's own model; empty when the operator's default counts."""
        who.require(Permission.VIEW)
        return _choice(await self._db.read(who.tenant, lambda session: setting.get(session, MODEL)))

    async def set_model(self, who: Actor, choice: ModelChoice) -> None:
        """Choose the team's model; an empty name goes back to the operator's default."""
        who.require(Permission.ADMIN)
        _check(choice)
        value = {"model": choice.model.strip(), "base_url": choice.base_url.strip(), "secret": choice.secret}
        now, by = time.time(), who.name
        await self._db.write(who.tenant, lambda session: setting.put(session, MODEL, value, at=now, by=by))

    async def prices(self, who: Actor) -> Mapping[str, Price]:
        """What models cost of which the team entered the price, by name."""
        who.require(Permission.VIEW)
        return await self.prices_of(who.tenant)

    async def set_price(self, who: Actor, model: str, price: Price | None) -> None:
        """Enter what a model costs, or with None forget it. Raises FactoryError."""
        who.require(Permission.ADMIN)
        name = model.strip()
        if not 1 <= len(name) <= 200:
            raise FactoryError("A model's name has between 1 and 200 characters.", code="price.invalid", status=422)
        if price is not None and not all(0 <= each <= DEAREST for each in (price.tokens_in, price.tokens_out)):
            raise FactoryError(
                f"A price is between $0 and ${DEAREST:,.0f} for a million tokens.",
                code="price.invalid",
                status=422,
                fix="Look it up at the model's provider; 0 for a model that runs on a machine of your own.",
            )
        now, by = time.time(), who.name

        def write(session: TenantSession) -> None:
            session.hold(PRICES)
            known = dict(setting.get(session, PRICES) or {})
            known.pop(name, None)
            if price is not None:
                if len(known) >= MOST_PRICES:
                    raise FactoryError(
                        f"{MOST_PRICES} prices are entered already.",
                        code="price.too_many",
                        status=422,
                        fix="Forget those of models that nobody asks any more.",
                    )
                known[name] = [price.tokens_in, price.tokens_out]
            setting.put(session, PRICES, known, at=now, by=by)

        await self._db.write(who.tenant, write)

    async def prices_of(self, tenant: str) -> Mapping[str, Price]:
        """The same for the door to models."""
        known = await self._db.read(tenant, lambda session: setting.get(session, PRICES))
        return {name: Price(*each) for name, each in sorted(known.items())} if known else {}

    async def model_of(self, tenant: str) -> ModelSettings | None:
        """The team's model with its key, for the door to models; None when the operator's default counts."""
        choice = _choice(await self._db.read(tenant, lambda session: setting.get(session, MODEL)))
        return await self._settings(tenant, choice) if choice.model else None

    async def trial(self, who: Actor, choice: ModelChoice) -> ModelSettings:
        """A choice with its key, to be tried before it is kept. Raises FactoryError."""
        who.require(Permission.ADMIN)
        _check(choice)
        return await self._settings(who.tenant, choice)

    async def _settings(self, tenant: str, choice: ModelChoice) -> ModelSettings:
        try:
            key = await self._vault.reveal(tenant, choice.secret) if choice.secret else ""
        except NodeError as error:
            raise NodeError(
                f"The key of the model cannot be read: {error.message}",
                category="credential",
                fix="Choose the secret again under Settings → Model.",
            ) from None
        return ModelSettings(choice.model, choice.base_url, key)


def _check(choice: ModelChoice) -> None:
    if len(choice.model) > 200 or len(choice.base_url) > 500 or len(choice.secret) > 100:
        raise FactoryError("A model's name or address is too long.", code="model.invalid", status=422)
    if choice.base_url and not choice.base_url.startswith(("http://", "https://")):
        raise FactoryError(
            "The model's address must begin with http:// or https://.",
            code="model.invalid",
            status=422,
            fix="Copy it from the provider's documentation, as in https://api.example.com/v1.",
        )


def _choice(value: Any) -> ModelChoice:
    if not isinstance(value, dict):
        return ModelChoice()
    return ModelChoice(*(str(value.get(name, "")) for name in ("model", "base_url", "secret")))
