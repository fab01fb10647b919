"""Templates: finished agents to start from."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from app import theme
from app.gallery import Template, fresh, templates
from app.permissions import Permission, current_actor, current_factory, on, page
from app.pieces import heading, json_tree
from app.sentences import count, family_of, icon_of, step_name, step_words, studio

EVERY = "All"


@page("/templates", "Templates")
def gallery() -> None:
    """Cards of all templates; one opens what it does, one click makes it yours."""
    shelf = templates()
    with theme.frame("Templates", active="templates"):
        if not shelf:
            theme.empty_state(
                "dashboard_customize",
                "No templates here",
                "Templates are finished agents to start from. This installation came without any.",
                (("Go home", "/"),),
            )
            return
        ui.label(
            "Finished agents. Each one runs as it is, with sample data and without any key: take one, try it, change it."
        ).classes("af-lead-in")
        chosen = {"category": EVERY, "text": ""}
        categories = [EVERY, *dict.fromkeys(one.category for one in shelf)]

        def pick(event: Any) -> None:
            chosen["category"] = event.value
            draw()

        def search(event: Any) -> None:
            chosen["text"] = event.value or ""
            draw()

        with ui.element("div").classes("af-toolbar"):
            ui.toggle(categories, value=EVERY, on_change=on(pick)).props("unelevated no-caps").classes("af-pills")
            ui.element("div").classes("af-space")
            ui.input(placeholder="Search", on_change=on(search)).props(
                'clearable debounce=150 aria-label="Search templates"'
            ).classes("af-find")
        grid = ui.element("div").classes("af-tiles af-templates").mark("templates")

        def draw() -> None:
            grid.clear()
            fitting = [one for one in shelf if chosen["category"] in (EVERY, one.category) and one.has(chosen["text"])]
            with grid:
                for one in fitting:
                    _card(one)
                if not fitting:
                    ui.label("No template fits that search.").classes("af-muted p-4")

        draw()


def _card(one: Template) -> None:
    with ui.element("article").classes("af-card af-template"):
        with ui.element("div").classes("af-template-icon"):
            ui.icon(one.icon).props("aria-hidden=true")
        ui.label(one.category).classes("af-overline")
        with (
            ui.element("h3"),
            ui.element("button").classes("af-stretched af-text-button").props("type=button") as opener,
        ):
            ui.label(one.title).classes("af-inline")
        opener.on("click", on(lambda: preview(one))).mark(f"preview-{one.name}")
        ui.label(one.summary).classes("af-agent-words")
        with ui.element("div").classes("af-template-foot"):
            _icons(one)
            if current_actor().may(Permission.EDIT):
                use = ui.button("Use this template", on_click=on(lambda: take(one), Permission.EDIT))
                use.classes("af-secondary af-over").mark(f"use-{one.name}")


def _icons(one: Template) -> None:
    types = current_factory().catalog
    placed = one.blueprint.nodes
    with ui.element("div").classes("af-steps-short").props("aria-hidden=true"):
        for node in placed[:5]:
            ui.icon(icon_of(node.type, types)).classes(f"af-{family_of(node.type)}")
        if len(placed) > 5:
            ui.label(f"+{len(placed) - 5}").classes("af-muted af-small")


def preview(one: Template) -> None:
    """What the template does, step by step, and what it can be tried with."""
    types = current_factory().catalog
    with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog is-wide"):
        ui.label(one.category).classes("af-overline")
        heading(one.title, 2)
        ui.label(one.blueprint.description or one.summary).classes("whitespace-pre-wrap")
        if one.teaches:
            with ui.element("div").classes("af-actions").props('aria-label="What it shows"'):
                for taught in one.teaches:
                    ui.label(taught).classes("af-chip")
        heading(f"What it does, in {count(len(one.blueprint.nodes), 'step')}", 3)
        with ui.element("ol").classes("af-steps"):
            for node in one.blueprint.nodes:
                with ui.element("li"):
                    ui.icon(icon_of(node.type, types)).classes(f"af-{family_of(node.type)}").props("aria-hidden=true")
                    with ui.element("div").classes("min-w-0"):
                        ui.label(step_name(node, types)).classes("af-strong")
                        ui.label(step_words(node, types)).classes("af-muted af-small break-words")
        sample = one.sample if one.sample is not None else _sample(one)
        if sample not in (None, {}, []):
            heading("What you can try it with", 3)
            with ui.element("div").classes("af-well w-full"):
                json_tree(sample, open_levels=2)
        with ui.element("div").classes("af-actions w-full justify-end"):
            ui.button("Close", on_click=dialog.close).classes("af-secondary")
            if current_actor().may(Permission.EDIT):
                ui.button("Use this template", on_click=on(lambda: take(one), Permission.EDIT)).mark("use")
    dialog.on("hide", dialog.delete)
    dialog.open()


def _sample(one: Template) -> Any:
    """What its first trigger would bring, as an example."""
    types = current_factory().catalog
    for placed in one.blueprint.nodes:
        if placed.type.startswith("trigger.") and placed.type in types:
            return types.build(placed).sample()
    return None


async def take(one: Template) -> None:
    """A draft of one's own, opened on the canvas."""
    factory = current_factory()
    draft = await factory.blueprints.create(current_actor(), fresh(one.blueprint, factory.catalog))
    ui.navigate.to(studio(draft.id))
