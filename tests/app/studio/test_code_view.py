"""The drawing as Python in the studio: everybody who may look may read it, and what has no Python is named."""

from __future__ import annotations

from tests.app.studio.conftest import Opening

READY = {
    "name": "Orders",
    "nodes": [
        {"id": "hook", "type": "trigger.webhook", "settings": {"path": "orders"}},
        {"id": "dec", "type": "validation.decide", "name": "Large?", "settings": {"condition": "total > 1000"}},
    ],
    "edges": [{"id": "e1", "source": "hook", "source_port": "body", "target": "dec", "target_port": "value"}],
}


async def test_the_drawing_is_shown_as_a_module(studio: Opening) -> None:
    open_ = await studio(READY)
    open_.user.find(marker="python").click()
    await open_.sees("This agent as Python")
    shown = next(iter(open_.user.find(marker="code-view").elements))
    code = next(one for one in shown.descendants() if type(one).__name__ == "Code")
    assert 'return compare(field(value, "total"), ">", 1000)' in str(getattr(code, "content", ""))


async def test_a_step_without_settings_is_named_instead(studio: Opening) -> None:
    open_ = await studio()
    open_.user.find(marker="python").click()
    await open_.sees("Condition: this is still empty.")


async def test_it_can_be_taken_along(studio: Opening) -> None:
    open_ = await studio(READY)
    open_.user.find(marker="python").click()
    await open_.sees("This agent as Python")
    open_.user.find(marker="download-code").click()
    found = await open_.user.download.next()
    assert b"def run(event: Any = None) -> Any:" in found.content
