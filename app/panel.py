"""How an agent's deployments are doing, live on the page: version, state, what ran, what waits; and what can be done to each."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from nicegui import ui

from app.environments import WORDS
from app.live import Follower
from app.permissions import Permission, current_actor, current_factory, on
from app.pieces import confirm, heading, notice, relative_time, status_chip
from app.schedules import show_schedules
from app.sentences import count, spoken
from nodes.errors import NotFound
from runtime.environments import ENVIRONMENTS, TEST
from runtime.status import DeploymentStatus
from runtime.views import DeploymentInfo

PAUSE = 1.0
"""Seconds between two pictures of what changes all the time."""

Done = Callable[[], Awaitable[Any]]


async def show_panel(blueprint_id: str, name: str, done: Done | None = None) -> None:
    """A dialog with a part for each environment. `done` is called after something was changed in it."""
    with ui.context.client.content, ui.dialog() as dialog, ui.card().classes("p-6 gap-4 af-dialog is-wide"):
        with ui.element("div").classes("af-toolbar w-full").mark("deployment-panel"):
            heading(name, 2)
            ui.element("div").classes("af-space")
            ui.button(icon="close", on_click=dialog.close).props('flat dense round aria-label="Close"')
        box = ui.element("div").classes("flex flex-col flex-nowrap gap-4 w-full")
    panel = Panel(blueprint_id, box, done)
    dialog.on("hide", panel.close)
    dialog.on("hide", dialog.delete)
    await panel.refresh()
    panel.follow()
    dialog.open()


class Panel:
    """The deployments of one agent, drawn into a box and kept true from the bus."""

    def __init__(self, blueprint_id: str, box: ui.element, done: Done | None = None) -> None:
        self.blueprint_id = blueprint_id
        self._box = box
        self._done = done
        self._drawn: list[tuple[DeploymentInfo, DeploymentStatus]] | None = None
        self._stops: list[Callable[[], None]] = []

    def follow(self) -> None:
        """Draw again soon after something happened, until `close`."""
        with self._box:
            follower = Follower(self.refresh, pause=PAUSE)
        tenant, bus = current_actor().tenant, current_factory().bus

        def hear(message: dict[str, Any]) -> None:
            ours = {info.id for info, _ in self._drawn or ()}
            if message.get("blueprint") == self.blueprint_id or message.get("deployment") in ours:
                follower.nudge()

        self._stops = [bus.subscribe(tenant, (topic,), hear) for topic in ("deployments", "runs")]
        ui.context.client.on_delete(self.close)

    def close(self) -> None:
        """Follow no more."""
        while self._stops:
            self._stops.pop()()

    async def refresh(self) -> None:
        """Read, and draw if something is different."""
        factory, who = current_factory(), current_actor()
        found: list[tuple[DeploymentInfo, DeploymentStatus]] = []
        for environment in ENVIRONMENTS:
            info = await factory.deployments.of(who, self.blueprint_id, environment)
            if info is not None:
                with contextlib.suppress(NotFound):
                    found.append((info, await factory.statuses.get(who, info.id)))
        if self._drawn is not None and _same(found, self._drawn):
            return
        self._drawn = found
        self._box.clear()
        with self._box:
            if not found:
                ui.label("It is not deployed. Deploying gives it its addresses and schedules.").classes("af-muted")
            for info, status in found:
                self._draw(info, status)

    def _draw(self, info: DeploymentInfo, status: DeploymentStatus) -> None:
        title = f"{'Test' if info.environment == TEST else 'Live'} deployment"
        with ui.element("section").classes("af-deployment").props(f'aria-label="{title}"') as part:
            part.mark(f"panel-{info.environment}")
            with ui.element("div").classes("af-toolbar"):
                heading(WORDS[info.environment], 3)
                status_chip("on" if info.state == "active" else info.state)
                ui.label(f"version {info.version}").classes("af-strong").mark(f"version-{info.environment}")
                with ui.element("span").classes("af-muted af-small"):
                    ui.label(f"by {info.deployed_by} ").classes("af-inline")
                    relative_time(info.deployed_at)
            _figures(status)
            _sentences(info, status)
            if info.schedules:
                times = ui.button("When it starts", icon="schedule", on_click=on(partial(_times, info)))
                times.props("flat dense no-caps").mark(f"times-{info.environment}")
            if current_actor().may(Permission.DEPLOY):
                self._actions(info)

    def _actions(self, info: DeploymentInfo) -> None:
        services = current_factory().deployments
        with ui.element("div").classes("af-actions"):
            if info.state == "active":
                _act("Pause, keep calls", "pause", partial(self._do, services.pause, info, hold=True), "pause-hold")
                _act("Pause, refuse calls", "block", partial(self._do, services.pause, info), "pause-reject")
            else:
                _act("Resume", "play_arrow", partial(self._do, services.resume, info), "resume")
            if info.previous is not None:
                back = partial(self._do, services.rollback, info)
                _act(f"Roll back to version {info.previous}", "undo", back, "rollback")
            if info.environment == TEST and info.schedules:
                words = "Stop its schedules" if info.clocks else "Let its schedules run"
                _act(words, "schedule", partial(self._do, services.set_clocks, info, on=not info.clocks), "clocks")
            _act("Stop", "stop", partial(self._stop, info), "stop")

    async def _do(self, service: Callable[..., Awaitable[Any]], info: DeploymentInfo, **how: Any) -> None:
        await service(current_actor(), info.id, **how)
        await self.refresh()
        if self._done is not None:
            await self._done()

    async def _stop(self, info: DeploymentInfo) -> None:
        if await sure_to_stop(info):
            await self._do(current_factory().deployments.stop, info, drop_held=True)


async def sure_to_stop(info: DeploymentInfo) -> bool:
    """Ask whether to stop a deployment, and say what is lost by it."""
    lost = f" {count(info.held, 'call')} that wait for it are thrown away." if info.held else ""
    with ui.context.client.content:
        return await confirm(
            "Stop this deployment?",
            "Its addresses then answer with “not found”, and its schedules end. The drawing and its versions stay."
            + lost,
            yes="Stop it",
            no="Keep it",
        )


def _act(label: str, icon: str, does: Callable[[], Any], mark: str) -> None:
    made = ui.button(label, icon=icon, on_click=on(does, Permission.DEPLOY)).props("dense no-caps")
    made.classes("af-secondary").mark(f"panel-{mark}")


async def _times(info: DeploymentInfo) -> None:
    await show_schedules(info.id, "When it starts")


def _figures(status: DeploymentStatus) -> None:
    share = "–" if status.success_share is None else f"{status.success_share:.0%}"
    figures: Iterable[tuple[str, str, str]] = (
        (f"{status.runs:,}", "runs in the last hour", ""),
        (share, "went well", "bad" if status.success_share is not None and status.success_share < 0.8 else ""),
        (f"{status.in_flight:,}", "running now", ""),
        (f"{status.queue:,}", "in the queue", "warn" if status.queue > 100 else ""),
        (f"{status.waiting:,}", "waiting", ""),
        (f"{status.held:,}", "calls kept", "warn" if status.held else ""),
    )
    with ui.element("div").classes("af-numbers"):
        for number, words, tone in figures:
            with ui.element("div").classes(f"af-figure is-{tone or 'calm'}"):
                ui.label(number).classes("af-number")
                ui.label(words)


def _sentences(info: DeploymentInfo, status: DeploymentStatus) -> None:
    if status.next_due is not None:
        with ui.element("div").classes("af-small af-muted"):
            ui.label("Its schedule starts it next ").classes("af-inline")
            relative_time(status.next_due)
    elif info.schedules and not info.clocks:
        ui.label("Its schedules are switched off, as they are in test until somebody wants them.").classes(
            "af-small af-muted"
        )
    if info.state == "paused":
        words = "Calls are kept and run when it goes on." if info.hold else "Calls are refused until it goes on."
        notice(words, tone="warn", icon="pause")
    if info.waiver:
        notice(f"Deployed although cases failed. {info.waiver}", tone="warn", icon="rule")
    if status.last_error:
        with ui.link(target=f"/runs/{status.last_error_run}").classes("af-plain-link"):
            ui.label(f"Last error: {spoken(status.last_error)}").classes("af-small af-bad af-one-line")


def _same(
    now: list[tuple[DeploymentInfo, DeploymentStatus]], before: list[tuple[DeploymentInfo, DeploymentStatus]]
) -> bool:
    return [(info, _timeless(status)) for info, status in now] == [(info, _timeless(status)) for info, status in before]


def _timeless(status: DeploymentStatus) -> tuple[Any, ...]:
    return tuple(getattr(status, name) for name in DeploymentStatus.__slots__ if name != "at")
