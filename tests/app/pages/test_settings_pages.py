"""Settings: who sees what, what is written and never shown again, and what a person is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from nicegui import ui
from nicegui.testing import User

from runtime.ledger import Payer
from runtime.policy import Actor, Role
from runtime.preferences import ModelChoice
from tests.app.conftest import House, running
from tests.app.pages.conftest import eventually, sees
from tests.fakes.openai_server import KEY, OpenAiServer

Maker = Callable[[Role], Awaitable[User]]


@pytest.mark.parametrize("part", ["model", "secrets", "files", "limits", "people", "profile"])
async def test_a_viewer_may_look_at_what_concerns_everybody(person: Maker, part: str) -> None:
    viewer = await person(Role.VIEWER)
    await viewer.open(f"/settings/{part}")
    await viewer.should_see("Profile")
    await viewer.should_not_see("API tokens")
    for forbidden in ("Save model", "Add a secret", "Add somebody"):
        await viewer.should_not_see(forbidden)


@pytest.mark.parametrize("part", ["tokens", "system"])
async def test_what_is_for_admins_is_closed_to_others(person: Maker, part: str) -> None:
    developer = await person(Role.DEVELOPER)
    answer = await developer.http_client.get(f"/settings/{part}")
    assert answer.status_code == 403


async def test_an_unknown_part_is_not_found(admin: User) -> None:
    assert (await admin.http_client.get("/settings/nothing")).status_code == 404


async def test_without_a_model_the_page_says_so_and_trying_gives_the_fix(admin: User) -> None:
    await admin.open("/settings/model")
    await admin.should_see("No model is set up.")
    admin.find(marker="model-try").click()
    await sees(admin, "Open Settings → Model and choose one.")


async def test_the_teams_model_is_kept_and_can_be_given_up(house: House, admin: User, ada: Actor) -> None:
    await house.factory.vault.put(ada, "Model key", "k")
    await admin.open("/settings/model")
    admin.find(marker="model-name").type("openai/some-model")
    admin.find(marker="model-save").click()
    await sees(admin, "Your team's own model counts: openai/some-model.")
    assert await house.factory.preferences.model(ada) == ModelChoice("openai/some-model")
    admin.find("Use the default").click()
    await sees(admin, "No model is set up.")


async def test_trying_the_model_shows_its_answer_or_why_there_is_none(tmp_path: Path) -> None:
    async with (
        OpenAiServer() as server,
        running(
            tmp_path / "home", model="openai/tiny", model_base_url=server.base_url, model_key=KEY, pool_size=0
        ) as house,
    ):
        browser = house.browser()
        await house.set_up(browser)
        user = User(browser)
        await user.open("/settings/model")
        await user.should_see("The default of this installation counts: openai/tiny.")
        user.find(marker="model-try").click()
        await sees(user, "You said: Answer in one short sentence: what is the capital of France?", seconds=60)
        user.find(marker="model-name").type("openai/refused")
        user.find(marker="model-address").type("not an address")
        user.find(marker="model-try").click()  # what is typed is tried, not what is kept
        await sees(user, "must begin with http:// or https://")


async def test_a_secret_goes_in_and_its_value_never_comes_out(house: House, admin: User, ada: Actor) -> None:
    await admin.open("/settings/secrets")
    await admin.should_see("No secrets yet")
    admin.find(marker="add-secret").click()
    admin.find(marker="secret-name").type("Orders-key")
    admin.find(marker="secret-value").type("correct horse battery")
    admin.find(marker="secret-save").click()
    await sees(admin, "Orders-key")
    await sees(admin, "set by Ada Lovelace")
    assert [one.name for one in await house.factory.vault.names(ada)] == ["Orders-key"]
    answer = await admin.http_client.get("/settings/secrets")
    assert "correct horse" not in answer.text
    texts = [str(element.props) for element in admin.client.elements.values()]
    assert not any("correct horse" in text for text in texts)


async def test_a_secret_without_a_value_is_refused_at_the_field(house: House, admin: User, ada: Actor) -> None:
    await admin.open("/settings/secrets")
    admin.find(marker="add-secret").click()
    admin.find(marker="secret-name").type("Empty")
    admin.find(marker="secret-save").click()
    await sees(admin, "A secret has between 1 and")
    assert await house.factory.vault.names(ada) == []


async def test_deleting_a_secret_asks_first(house: House, admin: User, ada: Actor) -> None:
    await house.factory.vault.put(ada, "Old", "x")
    await admin.open("/settings/secrets")
    admin.find(marker="delete-Old").click()
    await sees(admin, "Delete “Old”?")
    assert len(await house.factory.vault.names(ada)) == 1
    admin.find(marker="yes").click()
    await sees(admin, "No secrets yet")


async def test_files_and_tables_are_listed_and_a_table_opens(house: House, admin: User, ada: Actor) -> None:
    await house.factory.shelves.put_file(ada, "prices.csv", b"a,b\n1,2\n", "text/csv")
    await house.factory.shelves.append_rows(ada.tenant, "leads", [{"name": "Bo", "points": 7}])
    await admin.open("/settings/files")
    for words in ("prices.csv", "8 bytes, from Ada Lovelace", "leads", "1 row"):
        await admin.should_see(words)
    admin.find("View").click()
    table = await eventually(lambda: [e for e in admin.client.elements.values() if e.tag.endswith("table")])
    assert any("Bo" in str(e.props.get("rows")) for e in table)


async def test_somebody_added_can_sign_in_with_the_password_that_was_shown_once(house: House, admin: User) -> None:
    await admin.open("/settings/people")
    admin.find(marker="add-person").click()
    admin.find(marker="person-name").type("Bo Brown")
    admin.find(marker="person-email").type("bo@example.com")
    admin.find(marker="person-save").click()
    await sees(admin, "Bo Brown can sign in now")
    password = admin.find(marker="once-password").elements.pop().text
    assert (await house.sign_in(house.browser(), "bo@example.com", password)).status_code == 303


async def test_an_address_that_is_none_is_refused_at_the_field(admin: User) -> None:
    await admin.open("/settings/people")
    admin.find(marker="add-person").click()
    admin.find(marker="person-name").type("Bo")
    admin.find(marker="person-email").type("nobody")
    admin.find(marker="person-save").click()
    await sees(admin, "That does not look like an e-mail address.")


async def test_a_token_is_shown_once_works_and_ends_when_taken_back(house: House, admin: User, ada: Actor) -> None:
    await admin.open("/settings/tokens")
    await admin.should_see("No tokens yet")
    admin.find(marker="add-token").click()
    admin.find(marker="token-name").type("Nightly")
    admin.find(marker="token-save").click()
    await sees(admin, "It cannot be shown again.")
    token = admin.find(marker="token").elements.pop().text
    assert await house.auth.bearer(token) is not None
    admin.find("Done").click()
    admin.find(marker="revoke-Nightly").click()
    await sees(admin, "Take back “Nightly”?")
    admin.find(marker="yes").click()
    await sees(admin, "No tokens yet")
    assert await house.auth.bearer(token) is None


async def test_a_wrong_present_password_is_said_at_the_field(admin: User) -> None:
    await admin.open("/settings/profile")
    admin.find(marker="old-password").type("not my password")
    admin.find(marker="new-password").type("four other unrelated words")
    admin.find(marker="save-password").click()
    await sees(admin, "That is not your present password.")


async def test_a_new_name_is_kept(house: House, admin: User, ada: Actor) -> None:
    await admin.open("/settings/profile")
    admin.find(marker="own-name").clear().type("Countess Lovelace")
    admin.find(marker="save-name").click()
    await eventually(lambda: "Saved." in admin.notify.messages)
    assert [one.name for one in await house.door.outer.state.people.everybody(ada)] == ["Countess Lovelace"]


async def test_the_system_page_says_what_was_found(admin: User) -> None:
    await admin.open("/settings/system")
    await sees(admin, "Database", seconds=30)
    await admin.should_see("Language model")


async def test_limits_are_said_in_words_and_an_admin_lowers_one(house: House, admin: User, ada: Actor) -> None:
    await admin.open("/settings/limits")
    await sees(admin, "15 minutes")
    await admin.should_see("Now: 0 runs.")
    await admin.should_see("The same for everybody")
    admin.find(marker="change-concurrent_runs").click()
    await sees(admin, "At most (runs)")
    admin.find(marker="limit-value").clear().type("999")
    admin.find(marker="limit-save").click()
    await sees(admin, "can be between 1 run and 200 runs")
    admin.find(marker="limit-value").clear().type("20")
    admin.find(marker="limit-save").click()
    await sees(admin, "lowered from 200 runs")
    assert house.factory.limits.of(ada.tenant, "concurrent_runs") == 20
    admin.find(marker="change-concurrent_runs").click()
    await sees(admin, "Use the product's own")
    admin.find(marker="limit-reset").click()
    await eventually(lambda: house.factory.limits.of(ada.tenant, "concurrent_runs") == 200)


async def test_an_admin_keeps_runs_for_longer(house: House, admin: User, ada: Actor) -> None:
    await admin.open("/settings/limits")
    await sees(admin, "Days that runs are kept")
    admin.find(marker="change-run_days").click()
    await sees(admin, "a team's can be up to 3,650 days")
    admin.find(marker="limit-value").clear().type("365")
    admin.find(marker="limit-save").click()
    await sees(admin, "raised from 90 days")
    assert house.factory.limits.of(ada.tenant, "run_days") == 365


async def test_an_admin_sets_a_budget_in_dollars_and_sees_what_was_spent(house: House, admin: User, ada: Actor) -> None:
    ledger = house.factory.ledger
    await admin.open("/settings/limits")
    await sees(admin, "of $50.00")
    await admin.should_see("Days and months are counted in UTC.")
    admin.find(marker="change-day_money").click()
    await sees(admin, "At most (dollars)")
    admin.find(marker="limit-value").clear().type("1.5")
    admin.find(marker="limit-save").click()
    await sees(admin, "of $1.50")
    assert house.factory.limits.of(ada.tenant, "day_money") == 1_500_000
    await ledger.pay(await ledger.hold(Payer(ada.tenant), 10), 1_230_000)
    await sees(admin, "82% of the budget for today is used up: $1.23 of $1.50.")
    await ledger.pay(await ledger.hold(Payer(ada.tenant), 10), 300_000)
    await sees(admin, "The budget for today is used up ($1.53 of $1.50): no model is asked until tomorrow, UTC.")


async def test_the_price_of_an_own_model_is_entered_and_forgotten(house: House, admin: User, ada: Actor) -> None:
    await house.factory.ledger.note(Payer(ada.tenant), priced=False)
    await admin.open("/settings/limits")
    await sees(admin, "1 answer of this month came from models whose price is not known")
    admin.find(marker="add-price").click()
    admin.find(marker="price-model").type("ollama/llama3.2")
    admin.find(marker="price-save").click()
    await sees(admin, "A million tokens: nothing")
    assert (await house.factory.preferences.prices(ada))["ollama/llama3.2"].free
    admin.find(kind=ui.button, content="Change").click()
    await sees(admin, "What does a model cost?")
    admin.find(marker="price-out").clear().type("2.5")
    admin.find(marker="price-save").click()
    await sees(admin, "A million tokens: $0 read, $2.5 written")
