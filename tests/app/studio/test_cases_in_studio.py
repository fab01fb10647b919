"""Cases and environments in the studio: an input is kept with what is expected, and a test uses the values that are chosen."""

from __future__ import annotations

from typing import Any

from tests.app.studio.conftest import Opening

DOCUMENT: dict[str, Any] = {
    "name": "Who",
    "nodes": [
        {"id": "go", "type": "trigger.manual", "x": 0, "y": 0},
        {
            "id": "say",
            "type": "context.set_values",
            "settings": {"values": [{"name": "by", "value": "{{ vars.sender }}"}]},
            "x": 300,
            "y": 0,
        },
    ],
    "edges": [{"id": "e", "source": "go", "source_port": "value", "target": "say", "target_port": "value"}],
    "variables": [{"name": "sender", "value": "nobody"}],
}


async def test_an_input_is_kept_as_a_case_run_and_forgotten(studio: Opening) -> None:
    open_ = await studio(DOCUMENT)
    cases = open_.house.factory.cases
    open_.click("drawer")
    open_.fill("test-input", '{"total": 7}')
    open_.click("cases")
    await open_.sees("No case yet")
    open_.click("add-case")
    await open_.until(lambda: open_.texts("keep-case"))
    open_.fill("case-name", "Seven")
    open_.fill("case-formula", "total == ")
    open_.click("keep-case")
    await open_.until(lambda: any(open_.texts("case-problem")))
    open_.fill("case-formula", 'total == 7 and by == "nobody"')
    open_.click("keep-case")
    await open_.until(lambda: open_.texts("case-Seven"))
    [case] = await cases.list(open_.who, open_.id)
    assert (case.name, case.input, case.trigger) == ("Seven", {"total": 7}, "go")
    open_.click("run-cases")
    await open_.sees("Passed.")
    open_.click("delete-case-Seven")
    await open_.sees("No case yet")
    assert await cases.list(open_.who, open_.id) == []


async def test_a_case_that_fails_keeps_it_from_going_live_and_says_why(studio: Opening) -> None:
    open_ = await studio(DOCUMENT)
    factory = open_.house.factory
    await factory.cases.put(open_.who, open_.id, name="Ours", input={}, formula='by == "us"')
    open_.click("deploy")
    await open_.sees("Its case is run first")
    open_.click("deploy-now")
    await open_.sees("1 of 1 cases fail")
    await open_.sees("The result is not as expected")
    assert await factory.deployments.of(open_.who, open_.id) is None
    open_.fill("deploy-why", "The words will follow")
    open_.click("deploy-anyway")
    await open_.sees("Version 1 is live")
    assert "The words will follow" in (await factory.deployments.of(open_.who, open_.id)).waiver


async def test_a_test_uses_the_values_of_the_environment_that_is_chosen(studio: Opening) -> None:
    open_ = await studio(DOCUMENT)
    for place in ("live", "test"):
        await open_.house.factory.variables.put(open_.who, "sender", f"from {place}", environment=place)
    open_.click("drawer")
    open_.click("run-all")
    await open_.sees("from live")
    await open_.sees("All went well")  # while a test goes on no other begins
    open_.fill("test-environment", "test")
    open_.click("run-all")
    await open_.sees("from test")
