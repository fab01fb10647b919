"""Settings → Model: which language model the team's agents ask, and a question to see that it answers."""

from __future__ import annotations

import time

from nicegui import app as web
from nicegui import ui

from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import duration, heading, notice
from nodes.errors import FactoryError
from runtime.preferences import ModelChoice

QUESTION = "Answer in one short sentence: what is the capital of France?"
_NO_KEY = ""


async def build() -> None:
    """The form, and what counts at the moment."""
    factory, who = current_factory(), current_actor()
    choice = await factory.preferences.model(who)
    names = list(dict.fromkeys(one.name for one in await factory.vault.names(who)))
    may = who.may(Permission.ADMIN)
    heading("Language model", 2)
    ui.label("Steps that ask a model use this one, unless the step names another.").classes("af-muted mb-4")
    now = ui.element("div").classes("mb-4").mark("model-now")

    def tell(current: ModelChoice) -> None:
        now.clear()
        with now:
            _counts(current)

    tell(choice)
    with ui.element("div").classes("af-fields"):
        model = ui.input("Model", value=choice.model, placeholder="openai/gpt-4o-mini").mark("model-name")
        model.props(
            'stack-label maxlength=200 hint="Provider and model, as in anthropic/claude-sonnet-4-5 or ollama/llama3.2"'
        )
        address = ui.input("Address", value=choice.base_url, placeholder="https://api.example.com/v1")
        address.props(
            'stack-label maxlength=500 hint="Only when the model is not at its provider, such as a server of your own"'
        )
        address.mark("model-address")
        secrets = {_NO_KEY: "No key"} | {name: name for name in names}
        if choice.secret and choice.secret not in secrets:
            secrets[choice.secret] = f"{choice.secret} (missing)"
        key = ui.select(secrets, value=choice.secret, label="Key").mark("model-key")
        key.props('hint="The name of a secret. Add the key itself under Secrets."')
    for field in (model, address, key):
        field.set_enabled(may)
    answer = ui.element("div").classes("mt-4").mark("model-answer")

    def typed() -> ModelChoice:
        return ModelChoice((model.value or "").strip(), (address.value or "").strip(), key.value or "")

    async def save() -> None:
        wanted = typed()
        await current_factory().preferences.set_model(current_actor(), wanted)
        answer.clear()
        tell(wanted)
        ui.notify("Saved.", type="positive")

    async def forget() -> None:
        await current_factory().preferences.set_model(current_actor(), ModelChoice())
        answer.clear()
        model.value, address.value, key.value = "", "", _NO_KEY
        tell(ModelChoice())
        ui.notify("Back to the default of this installation.", type="positive")

    async def ask() -> None:
        trying.props("loading")
        answer.clear()
        try:
            await _ask(answer, typed())
        finally:
            trying.props(remove="loading")

    with ui.element("div").classes("af-actions mt-6"):
        if may:
            ui.button("Save", on_click=on(save, Permission.ADMIN)).mark("model-save")
        trying = ui.button("Try it", on_click=on(ask, Permission.RUN), icon="play_arrow").classes("af-secondary")
        trying.mark("model-try").set_enabled(who.may(Permission.RUN))
        if may:
            ui.button("Use the default", on_click=on(forget, Permission.ADMIN)).props("flat").classes("af-quiet")
    if not may:
        ui.label("An admin of your team can change this.").classes("af-muted af-small mt-4")


def _counts(choice: ModelChoice) -> None:
    default = web.state.settings.model
    if choice.model:
        notice(f"Your team's own model counts: {choice.model}.", tone="good", icon="check_circle")
    elif default:
        notice(f"The default of this installation counts: {default}.", tone="info")
    else:
        notice(
            "No model is set up. Steps that ask a model say so; in the sandbox they answer with a marked sample.",
            tone="warn",
            icon="info",
        )


async def _ask(answer: ui.element, typed: ModelChoice) -> None:
    """One short question through the same door that agents use; what is typed is tried before it is kept."""
    began = time.monotonic()
    factory, who = current_factory(), current_actor()
    try:
        door = factory.llms.door(who.tenant)
        if typed.model and typed != await factory.preferences.model(who):
            door = factory.llms.trial(who.tenant, await factory.preferences.trial(who, typed))
        reply = await door.ask([{"role": "user", "content": QUESTION}], max_tokens=60, timeout=30)
    except FactoryError as problem:
        with answer, ui.element("div").classes("af-note is-bad").props("role=alert"):
            ui.icon("error").props("aria-hidden=true")
            with ui.element("div"):
                ui.label(problem.message).classes("af-strong break-words")
                if problem.fix:
                    ui.label(problem.fix).classes("break-words")
        return
    with answer, ui.element("div").classes("af-note is-good").props("role=status"):
        ui.icon("check_circle").props("aria-hidden=true")
        with ui.element("div"):
            ui.label(f"It answers, after {duration(time.monotonic() - began)}.").classes("af-strong")
            ui.label(f"Asked: {QUESTION}").classes("af-muted af-small")
            ui.label(reply.text).classes("break-words whitespace-pre-wrap")
            ui.label(f"{reply.model}, {reply.tokens_in} + {reply.tokens_out} tokens").classes("af-muted af-small")
