"""Deploying an agent to test or live: what the checks and its cases say, what changes, and then its addresses.

Pause, go on, go back, stop; and how it is doing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import background_tasks, ui

from app.environments import deployment_chip
from app.panel import show_panel, sure_to_stop
from app.permissions import on
from app.pieces import heading, notice
from app.schedules import ScheduleList
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
from runtime.cases import CaseResult
from runtime.deploy import CasesFailed
from runtime.environments import LIVE, TEST, TEST_PATH
from runtime.policy import Permission
from runtime.views import DeploymentInfo

Act = Callable[[], Any]


class Deploy:
    """The split button of the top bar and its dialogs."""

    def __init__(self, desk: Desk, findings: Findings) -> None:
        self.desk = desk
        self.findings = findings
        self.live: DeploymentInfo | None = None
        self.test: DeploymentInfo | None = None
        self._client = ui.context.client

    # --- the button ----------------------------------------------------------------------------------------------------

    def draw_button(self) -> None:
        """The state, the button, and what else can be done."""
        desk = self.desk
        self._chip = ui.element("button").classes("st-live af-text-button").props("type=button")
        self._chip.props["aria-label"] = "How the deployments are doing"
        self._chip.on("click", on(self.show_status)).mark("deployment-status")
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
            services, who = self.desk.factory.deployments, self.desk.editor.who
            self.live = await services.of(who, self.desk.id)
            self.test = await services.of(who, self.desk.id, TEST)
        except FactoryError:
            return
        if self._client.is_deleted:
            return
        self._chip.clear()
        with self._chip:
            deployment_chip(self.live.state if self.live else "none", LIVE)
            if self.live:
                ui.label(f"version {self.live.version}").classes("af-muted af-small st-wide")
            if self.test:
                deployment_chip(self.test.state, TEST).classes("st-wide")
        self._menu.clear()
        with self._menu:
            self._fill_menu()

    async def show_status(self) -> None:
        """The live panel of both environments."""
        with self.desk.place:
            await show_panel(self.desk.id, self.desk.blueprint.name, self.refresh)

    def _fill_menu(self) -> None:
        live, test = self.live, self.test
        if live is None and test is None:
            ui.label("Not deployed yet. Deploying gives it its addresses and schedules.").classes("st-menu-words")
        else:
            ui.menu_item("How it is doing", on(self.show_status))
        if live is not None:
            ui.menu_item("Addresses and schedules", on(self.show_addresses))
        if test is not None:
            ui.menu_item("Addresses in test", on(lambda: self.show_addresses(TEST)))
        if not self.desk.may(Permission.DEPLOY):
            return
        if live is not None:
            ui.separator()
            self._fill_actions(live)
        ui.separator()
        ui.menu_item("Deploy to test…", on(lambda: self.open(TEST), Permission.DEPLOY))

    def _fill_actions(self, live: DeploymentInfo) -> None:
        services = self.desk.factory.deployments

        def item(title: str, service: Callable[..., Any], said: str, **how: Any) -> None:
            ui.menu_item(title, on(lambda: self._act(service, said, **how), Permission.DEPLOY))

        if live.state == "active":
            item(
                "Pause: keep calls for later",
                services.pause,
                "It is paused. Calls are kept until it goes on.",
                hold=True,
            )
            item("Pause: refuse calls", services.pause, "It is paused. Runs that go on go on.")
        else:
            item("Go on: take runs again", services.resume, "It takes runs again.")
        if live.previous is not None:
            item(f"Go back to version {live.previous}", services.rollback, f"Version {live.previous} is live again.")
        ui.menu_item("Stop: give up its addresses", on(self._stop, Permission.DEPLOY))

    async def _act(self, service: Callable[..., Any], said: str, **how: Any) -> None:
        if self.live is not None:
            await service(self.desk.who, self.live.id, **how)
            tell(said, good=True)
            await self.refresh()

    async def _stop(self) -> None:
        if self.live is not None and await sure_to_stop(self.live):
            await self._act(self.desk.factory.deployments.stop, "It is stopped.", drop_held=True)

    # --- deploying -----------------------------------------------------------------------------------------------------

    async def open(self, environment: str = LIVE) -> None:
        """Show what the checks say and what changes, then deploy."""
        await current_sessions().flush(self.desk.id)
        await self.findings.ask()
        await self.refresh()
        with (
            self.desk.place,
            ui.dialog() as dialog,
            ui.card().classes("p-6 gap-2 st-dialog is-wide").mark("deploy-dialog"),
        ):
            body = ui.element("div").classes("flex flex-col gap-2 w-full")
        await self._draw_dialog(dialog, body, environment)
        dialog.on("hide", dialog.delete)
        dialog.open()

    async def _draw_dialog(self, dialog: ui.dialog, body: ui.element, environment: str) -> None:
        desk = self.desk
        blueprints = desk.factory.blueprints
        found = await blueprints.check(desk.who, desk.blueprint, id=desk.id, environment=environment)
        errors = [finding for finding in found if finding.severity == "error"]
        others = [finding for finding in found if finding.severity != "error"]
        before = await self._deployed(environment)
        cases = len(await desk.factory.cases.list(desk.who, desk.id)) if environment == LIVE else 0
        body.clear()
        with body:
            heading(f"Deploy “{desk.blueprint.name}”", 2)
            where = ui.toggle(
                {LIVE: "Live", TEST: "Test"},
                value=environment,
                on_change=on(lambda event: self._draw_dialog(dialog, body, str(event.value)), Permission.DEPLOY),
            )
            where.props('unelevated dense no-caps aria-label="Where to"').classes("st-toggle").mark("deploy-where")
            if environment == TEST:
                ui.label(
                    "In test it has addresses, variables and secrets of its own, and its schedules wait to be switched on."
                ).classes("st-help")
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
                if cases:
                    words = "Its case is" if cases == 1 else f"Its {cases} cases are"
                    ui.label(f"{words} run first; it goes live when all pass.").classes("st-help")
                self._draw_changes(before, environment)
                note = (
                    titled_input("Note for the list of versions", placeholder="What is new?")
                    .props("maxlength=500")
                    .classes("w-full")
                    .mark("deploy-note")
                )
            failed = ui.element("div").classes("flex flex-col gap-2 w-full items-start")
            with ui.element("div").classes("af-actions w-full justify-end mt-4"):
                ui.button("Cancel", on_click=dialog.close).classes("af-secondary")
                if not errors:

                    async def deploy() -> None:
                        button.props("loading")
                        try:
                            await self._deploy(dialog, str(note.value or ""), environment)
                        except CasesFailed as problem:
                            failed.clear()
                            with failed:
                                self._draw_failed(problem, dialog, note)
                        finally:
                            if not button.is_deleted:
                                button.props(remove="loading")

                    button = ui.button("Deploy now", icon="rocket_launch", on_click=on(deploy, Permission.DEPLOY)).mark(
                        "deploy-now"
                    )

    def _draw_failed(self, problem: CasesFailed, dialog: ui.dialog, note: ui.input) -> None:
        """Which cases fail and why, and for admins the way to do it anyway."""
        failing = problem.report.failing
        notice(
            f"{len(failing)} of {len(problem.report.results)} cases fail, so it stays as it is.",
            tone="bad",
            icon="rule",
        ).mark("cases-failed")
        draw_results(failing)
        if not self.desk.may(Permission.ADMIN):
            return
        why = titled_input("Deploy it anyway, because", placeholder="Why is that right?").props("maxlength=500")
        why.classes("w-full").mark("deploy-why")

        async def anyway() -> None:
            if not str(why.value or "").strip():
                tell("Say why first: it stays with the deployment.")
                return
            await self._deploy(dialog, str(note.value or ""), LIVE, str(why.value))

        ui.button("Deploy anyway", on_click=on(anyway, Permission.ADMIN)).classes("af-secondary").mark("deploy-anyway")

    def _repair_in(self, dialog: ui.dialog) -> Callable[[Any], None]:
        def repair(finding: Any) -> None:
            dialog.close()
            self.findings._repair(finding)

        return repair

    def _in(self, environment: str) -> DeploymentInfo | None:
        return self.test if environment == TEST else self.live

    async def _deployed(self, environment: str) -> Blueprint | None:
        now = self._in(environment)
        if now is None:
            return None
        return (await self.desk.factory.blueprints.version(self.desk.who, self.desk.id, now.version)).blueprint

    def _draw_changes(self, before: Blueprint | None, environment: str) -> None:
        now, where = self._in(environment), "live" if environment == LIVE else "in test"
        if before is None or now is None:
            ui.label(
                f"It goes {where} for the first time." if environment == LIVE else "It is not in test yet."
            ).classes("af-muted")
            return
        said = changes(before, self.desk.blueprint, self.desk.types)
        if not said:
            ui.label(f"Nothing changed since version {now.version}, which is {where}.").classes("af-muted")
            return
        ui.label(f"What changes against version {now.version}, which is {where}:").classes("st-title")
        draw_changes(said)

    async def _deploy(self, dialog: ui.dialog, note: str, environment: str, anyway: str = "") -> None:
        await self.desk.factory.deployments.deploy(
            self.desk.who, self.desk.id, note=note.strip(), environment=environment, anyway=anyway
        )
        dialog.close()
        await self.refresh()
        await self.show_addresses(environment)

    # --- addresses -----------------------------------------------------------------------------------------------------

    async def show_addresses(self, environment: str = LIVE) -> None:
        """Where the agent is reached, with an example to copy."""
        live = self._in(environment)
        if live is None:
            return
        version = await self.desk.factory.blueprints.version(self.desk.who, self.desk.id, live.version)
        document = version.blueprint
        with self.desk.place, ui.dialog() as dialog, ui.card().classes("p-6 gap-2 st-dialog is-wide").mark("addresses"):
            with ui.element("div").classes("flex items-center gap-2"):
                active = "live" if environment == LIVE else "in test"
                heading(f"Version {live.version} is {active if live.state == 'active' else live.state}", 2)
                deployment_chip(live.state, environment)
            if not live.addresses and not live.schedules and not live.events:
                ui.label(
                    "It has no address and no schedule: it runs when somebody presses Run, or another agent calls it."
                ).classes("af-muted")
            for address in live.addresses:
                self._draw_address(address, document)
            for words in live.events:
                with ui.element("div").classes("st-schedule"):
                    ui.icon("bolt").props("aria-hidden=true")
                    ui.label(words)
            if live.schedules:
                await ScheduleList(live.id).refresh()
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
        if isinstance(listen, Webhook) and address in (f"/hooks/{listen.path}", f"/hooks/{TEST_PATH}{listen.path}"):
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


def draw_results(results: Sequence[CaseResult]) -> None:
    """How cases went, as sentences."""
    with ui.element("div").classes("st-scroll"):
        for result in results:
            with ui.element("div").classes("st-finding" if result.passed else "st-finding is-error"):
                ui.icon("check_circle" if result.passed else "cancel").props("aria-hidden=true")
                with ui.element("div"):
                    ui.label(result.name).classes("st-finding-words")
                    ui.label(result.why or "It came to what is expected.").classes("af-muted")


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
