"""Making an agent live: what the checks say, what changes, and then its addresses; pause, go on, go back, stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import background_tasks, ui

from app.permissions import on
from app.pieces import confirm, heading, notice, status_chip
from app.studio.desk import Desk, tell, titled_input
from app.studio.findings import Findings, draw_findings
from app.studio.references import copy_button
from app.studio.rooms import current_sessions, public_address
from app.studio.words import as_json, changes
from nodes.base import Node
from nodes.blueprint import Blueprint
from nodes.catalog import BadSettings, UnknownNode
from nodes.errors import FactoryError
from nodes.listen import Webhook
from runtime.policy import Permission
from runtime.views import DeploymentInfo

Act = Callable[[], Any]


class Deploy:
    """The split button of the top bar and its dialogs."""

    def __init__(self, desk: Desk, findings: Findings) -> None:
        self.desk = desk
        self.findings = findings
        self.live: DeploymentInfo | None = None
        self._client = ui.context.client

    # --- the button ----------------------------------------------------------------------------------------------------

    def draw_button(self) -> None:
        """The state, the button, and what else can be done."""
        desk = self.desk
        self._chip = ui.element("span").classes("st-live")
        with ui.element("div").classes("st-split"):
            self._button = ui.button("Deploy", icon="rocket_launch", on_click=on(self.open, Permission.DEPLOY)).mark(
                "deploy"
            )
            self._more = (
                ui.button(icon="expand_more")
                .props('aria-label="More about the deployment"')
                .classes("st-split-more")
                .mark("deploy-more")
            )
            with self._more, ui.menu().props("anchor='bottom right' self='top right'"):
                self._menu = ui.element("div")
        if not desk.may(Permission.DEPLOY):
            self._button.set_visibility(False)
        unsubscribe = desk.factory.bus.subscribe(desk.who.tenant, ("deployments",), self._hear)
        self._client.on_delete(unsubscribe)
        self._client.on_connect(lambda: background_tasks.create(self.refresh(), name="look at the deployment"))

    def _hear(self, message: dict[str, Any]) -> None:
        if message.get("blueprint") == self.desk.id:
            background_tasks.create(self.refresh(), name="look at the deployment")

    async def refresh(self) -> None:
        """Show the present state."""
        if self._client.is_deleted:
            return
        try:
            self.live = await self.desk.factory.deployments.of(self.desk.editor.who, self.desk.id)
        except FactoryError:
            return
        if self._client.is_deleted:
            return
        self._chip.clear()
        with self._chip:
            status_chip(self.live.state if self.live else "none")
            if self.live:
                ui.label(f"version {self.live.version}").classes("af-muted af-small st-wide")
        self._menu.clear()
        with self._menu:
            self._fill_menu()

    def _fill_menu(self) -> None:
        live = self.live
        if live is None:
            ui.label("Not deployed yet. Deploying gives it its addresses and schedules.").classes("st-menu-words")
            return
        ui.menu_item("Addresses and schedules", on(self.show_addresses))
        if not self.desk.may(Permission.DEPLOY):
            return
        services = self.desk.factory.deployments
        if live.state == "active":
            ui.menu_item(
                "Pause: take no new runs",
                on(lambda: self._act(services.pause, "It is paused. Runs that go on go on."), Permission.DEPLOY),
            )
        else:
            ui.menu_item(
                "Go on: take runs again",
                on(lambda: self._act(services.resume, "It takes runs again."), Permission.DEPLOY),
            )
        if live.previous is not None:
            back = on(
                lambda: self._act(services.rollback, f"Version {live.previous} is live again."), Permission.DEPLOY
            )
            ui.menu_item(f"Go back to version {live.previous}", back)
        ui.separator()
        ui.menu_item("Stop: give up its addresses", on(self._stop, Permission.DEPLOY))

    async def _act(self, service: Callable[..., Any], said: str) -> None:
        if self.live is not None:
            await service(self.desk.who, self.live.id)
            tell(said, good=True)
            await self.refresh()

    async def _stop(self) -> None:
        sure = await confirm(
            "Stop this deployment?",
            "Its addresses then answer with “not found”, and its schedules end. The drawing and its versions stay.",
            yes="Stop it",
            no="Keep it",
        )
        if sure:
            await self._act(self.desk.factory.deployments.stop, "It is stopped.")

    # --- deploying -----------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Show what the checks say and what changes, then deploy."""
        desk = self.desk
        await current_sessions().flush(desk.id)
        found = await self.findings.ask()
        await self.refresh()
        errors = [finding for finding in found if finding.severity == "error"]
        others = [finding for finding in found if finding.severity != "error"]
        before = await self._deployed()
        with (
            self.desk.place,
            ui.dialog() as dialog,
            ui.card().classes("p-6 gap-2 st-dialog is-wide").mark("deploy-dialog"),
        ):
            heading(f"Deploy “{desk.blueprint.name}”", 2)
            if errors:
                notice(
                    f"{len(errors)} thing{'' if len(errors) == 1 else 's'} must be fixed first.",
                    tone="bad",
                    icon="error",
                )
                with ui.element("div").classes("st-scroll"):
                    draw_findings(desk, errors, dialog.close, self._repair_in(dialog))
            else:
                if others:
                    notice(
                        f"Ready. {len(others)} finding{'' if len(others) == 1 else 's'} may be worth a look first.",
                        tone="warn",
                        icon="warning",
                    )
                    with ui.expansion("Show them").classes("w-full"), ui.element("div").classes("st-scroll"):
                        draw_findings(desk, others, dialog.close, self._repair_in(dialog))
                else:
                    notice("The checks found nothing.", tone="good", icon="task_alt")
                self._draw_changes(before)
                note = (
                    titled_input("Note for the list of versions", placeholder="What is new?")
                    .props("maxlength=500")
                    .classes("w-full")
                    .mark("deploy-note")
                )
            with ui.element("div").classes("af-actions w-full justify-end mt-4"):
                ui.button("Cancel", on_click=dialog.close).classes("af-secondary")
                if not errors:
                    ui.button(
                        "Deploy now",
                        icon="rocket_launch",
                        on_click=on(lambda: self._deploy(dialog, str(note.value or "")), Permission.DEPLOY),
                    ).mark("deploy-now")
        dialog.on("hide", dialog.delete)
        dialog.open()

    def _repair_in(self, dialog: ui.dialog) -> Callable[[Any], None]:
        def repair(finding: Any) -> None:
            dialog.close()
            self.findings._repair(finding)

        return repair

    async def _deployed(self) -> Blueprint | None:
        if self.live is None:
            return None
        return (await self.desk.factory.blueprints.version(self.desk.who, self.desk.id, self.live.version)).blueprint

    def _draw_changes(self, before: Blueprint | None) -> None:
        if before is None:
            ui.label("It goes live for the first time.").classes("af-muted")
            return
        assert self.live is not None
        said = changes(before, self.desk.blueprint, self.desk.types)
        if not said:
            ui.label(f"Nothing changed since version {self.live.version}, which is live.").classes("af-muted")
            return
        ui.label(f"What changes against version {self.live.version}, which is live:").classes("st-title")
        draw_changes(said)

    async def _deploy(self, dialog: ui.dialog, note: str) -> None:
        self.live = await self.desk.factory.deployments.deploy(self.desk.who, self.desk.id, note=note.strip())
        dialog.close()
        await self.refresh()
        await self.show_addresses()

    # --- addresses -----------------------------------------------------------------------------------------------------

    async def show_addresses(self) -> None:
        """Where the agent is reached, with an example to copy."""
        live = self.live
        if live is None:
            return
        version = await self.desk.factory.blueprints.version(self.desk.who, self.desk.id, live.version)
        document = version.blueprint
        with self.desk.place, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 st-dialog is-wide").mark("addresses"):
            with ui.element("div").classes("flex items-center gap-2"):
                heading(f"Version {live.version} is {'live' if live.state == 'active' else live.state}", 2)
                status_chip(live.state)
            if not live.addresses and not live.schedules:
                ui.label(
                    "It has no address and no schedule: it runs when somebody presses Run, or another agent calls it."
                ).classes("af-muted")
            for address in live.addresses:
                self._draw_address(address, document)
            for words in live.schedules:
                with ui.element("div").classes("st-schedule"):
                    ui.icon("schedule").props("aria-hidden=true")
                    ui.label(words)
            with ui.element("div").classes("af-actions w-full justify-end mt-4"):
                ui.button("See its runs", on_click=lambda: ui.navigate.to(f"/runs?agent={self.desk.id}")).classes(
                    "af-secondary"
                )
                ui.button("Done", on_click=dialog.close).mark("addresses-done")
        dialog.on("hide", dialog.delete)
        dialog.open()

    def _draw_address(self, address: str, document: Blueprint | None) -> None:
        whole = f"{public_address()}{address}"
        with ui.element("div").classes("st-endpoint"):
            with ui.element("div").classes("st-address"):
                if address.startswith(("/forms/", "/chat/")):
                    ui.link(whole, address, new_tab=True).classes("st-address-text")
                else:
                    ui.label(whole).classes("st-address-text").mark("address")
                copy_button(whole, "Copy the address")
            hook = _hook(document, address, self.desk)
            if hook is not None:
                example = curl(whole, *hook)
                with ui.element("div").classes("st-curl"):
                    ui.label(example).classes("af-mono whitespace-pre-wrap break-words grow").mark("curl")
                    copy_button(example, "Copy the example")
                if hook[0].secret:
                    ui.label(
                        f"Callers sign with the secret “{hook[0].secret}”; the help of the webhook says how."
                    ).classes("st-help")


def _hook(document: Blueprint | None, address: str, desk: Desk) -> tuple[Webhook, Any] | None:
    """The webhook behind an address, with a believable body."""
    for placed in document.nodes if document else ():
        try:
            node: Node = desk.types.build(placed)
        except (BadSettings, UnknownNode):
            continue
        listen = node.listens()
        if isinstance(listen, Webhook) and f"/hooks/{listen.path}" == address:
            sample = node.sample()
            return listen, sample.get("body") if isinstance(sample, dict) else None
    return None


def curl(address: str, listen: Webhook, body: Any) -> str:
    """How to call it from a terminal."""
    method = "POST" if listen.method == "ANY" else listen.method
    if method in ("GET", "DELETE") or body is None:
        return f"curl -X {method} {address}"
    text = as_json(body).replace("'", "'\\''")
    return f"curl -X {method} {address} \\\n  -H 'Content-Type: application/json' \\\n  -d '{text}'"


def draw_changes(said: list[tuple[str, str]]) -> None:
    """Differences of two versions, as sentences."""
    icons = {"added": "add_circle", "removed": "remove_circle", "changed": "change_circle"}
    with ui.element("div").classes("st-changes"):
        for what, sentence in said[:60]:
            with ui.element("div").classes(f"st-change is-{what}"):
                ui.icon(icons[what]).props("aria-hidden=true")
                ui.label(sentence)
        if len(said) > 60:
            ui.label(f"and {len(said) - 60} more").classes("af-muted")
