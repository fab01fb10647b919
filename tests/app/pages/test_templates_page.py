"""Templates: the gallery, what one does, and making it one's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui.testing import User

from app.gallery import fresh, template, templates
from runtime.policy import Actor, Role
from tests.app.conftest import House
from tests.app.pages.conftest import eventually, sees

Maker = Callable[[Role], Awaitable[User]]


def test_every_template_of_the_index_can_be_read() -> None:
    assert len(templates()) >= 8
    assert len({one.name for one in templates()}) == len(templates())
    assert all(one.title and one.summary and one.category and one.blueprint.nodes for one in templates())


async def test_a_copy_has_addresses_of_its_own_and_the_original_keeps_its_own(house: House) -> None:
    original = template("order-desk").blueprint
    before = original.content_hash
    copy = fresh(original, house.factory.catalog, name="Mine")
    assert original.content_hash == before
    assert copy.name == "Mine"
    paths = [
        (a.settings["path"], b.settings["path"])
        for a, b in zip(original.nodes, copy.nodes, strict=True)
        if "path" in a.settings
    ]
    assert paths
    assert all(a != b for a, b in paths)


async def test_the_gallery_shows_every_template_and_search_narrows_it(admin: User) -> None:
    await admin.open("/templates")
    for one in templates():
        await admin.should_see(one.title)
    await admin.should_see("Sales")


async def test_a_preview_says_what_it_does_step_by_step(admin: User) -> None:
    one = templates()[0]
    await admin.open("/templates")
    admin.find(marker=f"preview-{one.name}").click()
    await sees(admin, f"What it does, in {len(one.blueprint.nodes)} steps")
    for node in one.blueprint.nodes:
        await admin.should_see(node.name)
    await admin.should_see("What you can try it with")


async def test_using_a_template_makes_a_draft_and_opens_it(house: House, admin: User, ada: Actor) -> None:
    one = templates()[0]
    await admin.open("/templates")
    admin.find(marker=f"use-{one.name}").click()

    await eventually(lambda: any(path.startswith("/studio/") for path in admin.back_history))
    (made,) = await house.factory.blueprints.list(ada)
    assert made.name == one.blueprint.name
    assert admin.back_history[-1] == f"/studio/{made.id}"


async def test_a_viewer_may_look_at_templates_and_not_use_them(person: Maker) -> None:
    viewer = await person(Role.VIEWER)
    await viewer.open("/templates")
    await viewer.should_see(templates()[0].title)
    await viewer.should_not_see("Use this template")
