"""The panel on the right: the selected node's settings, its data in the last test, the rules by which it runs, and its help."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from app.permissions import on
from app.pieces import duration, empty_state, json_tree, notice, status_chip
from app.sentences import spoken
from app.studio.belongings import belongings
from app.studio.desk import Desk, tell
from app.studio.fields import draw_leaf
from app.studio.form import UNSET, Form
from app.studio.known import outputs_of
from app.studio.next_times import next_times
from app.studio.words import item_words
from nodes.agents import is_attachment
from nodes.base import Effect, Family, Node
from nodes.blueprint import Placed, Policy
from nodes.catalog import BadSettings, UnknownNode, describe
from runtime.policy import Permission
from runtime.views import StepView

TABS = (("settings", "Settings"), ("data", "Data"), ("errors", "Rules"), ("help", "Help"))
EFFECTS = {
    Effect.E0: "It only calculates.",
    Effect.E1: "It reads data from elsewhere, and changes nothing.",
    Effect.E2: "It changes data inside this product. In a test the change is kept to the test.",
    Effect.E3: "It changes something outside, and that can be taken back. A test only says what it would do.",
    Effect.E4: "It does something outside that cannot be taken back. A test only says what it would do.",
    Effect.E5: "It changes who may do what.",
}


def _nothing() -> None:
    return


def may_ask_first(cls: type[Node]) -> bool:
    """Whether asking a person first makes sense: for steps that do something, and do not ask by themselves."""
    return cls.family is not Family.TRIGGER and not cls.gate and not is_attachment(cls)


class Inspector:
    """Follows the selection. A form that somebody types in is left alone unless another one changed the same node."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.tab = "settings"
        self.shown: Placed | None = None
        self.form: Form | None = None
        self.policy: Form | None = None
        self._belongings = _nothing
        self._printing: tuple[ui.element, ui.label] | None = None
        self._count = 0
        self.root = ui.element("aside").classes("st-inspector").props('aria-label="Settings of the selected node"')
        desk.chosen.append(self.select)
        desk.changed.append(self.follow)
        desk.tested.append(self.tested)
        desk.printed.append(self.printed)
        desk.open_tab = self.open
        self.draw()

    # --- what to show ------------------------------------------------------------------------------------------------

    def select(self) -> None:
        """Another node is selected, or another number of them."""
        if (self.shown.id if self.shown else "") != self.desk.node or len(self.desk.selected) != self._count:
            self.draw()

    def follow(self) -> None:
        """The document changed; redraw only what this panel does not know yet."""
        node = self.desk.placed(self.desk.node) if self.desk.node else None
        if node is None or self.shown is None or node.id != self.shown.id:
            self.draw()
            return
        before, self.shown = self.shown, node
        if node.name != before.name:
            self._name.set_value(node.name)
        self._belongings()
        form_is_old = self.tab == "settings" and self.form is not None and node.settings != self.form.values
        policy_is_old = (
            self.tab == "errors" and self.policy is not None and node.policy.model_dump() != self.policy.values
        )
        switched = node.disabled != before.disabled or (node.pinned is None) is not (before.pinned is None)
        if form_is_old or policy_is_old or switched:
            self.draw()

    def tested(self) -> None:
        """There is news of a test."""
        if self.shown is not None and self.tab == "data":
            self._fill_tab()

    def printed(self) -> None:
        """Code in the test has printed more."""
        step = self.desk.steps.get(self.shown.id) if self.shown else None
        if self._printing is None or step is None or self._printing[0].is_deleted:
            return
        box, label = self._printing
        if text := self.desk.printing.get((step.node, step.iteration), ""):
            box.set_visibility(True)
            label.set_text(text)

    def open(self, tab: str) -> None:
        """Show a tab."""
        self.tab = tab
        if self.shown is not None:
            self._tabs.set_value(tab)
            self._fill_tab()

    # --- drawing -----------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        """Draw everything anew for the present selection."""
        self.form = self.policy = None
        self._count = len(self.desk.selected)
        self.root.clear()
        node = self.desk.placed(self.desk.node) if self.desk.node else None
        self.shown = node
        self.root.props(f"data-node={node.id if node else ''}")
        self.root.classes(remove="is-idle") if node else self.root.classes(add="is-idle")
        with self.root:
            if node is None:
                self._idle()
            else:
                self._draw_node(node)

    def _idle(self) -> None:
        many = len(self.desk.selected)
        with ui.element("div").classes("st-idle"):
            if many > 1:
                empty_state(
                    "select_all",
                    f"{many} things are selected",
                    "Move, copy or remove them together, or put them into a group with Ctrl+G.",
                )
            elif not self.desk.session.graph.nodes:
                empty_state(
                    "touch_app",
                    "Nothing to set up yet",
                    "Drag a trigger from the left onto the canvas: a webhook, a schedule, a form or a button. Its settings then show here.",
                )
            else:
                empty_state("touch_app", "Select a node", "Its settings, its data and its help show here.")

    def _draw_node(self, node: Placed) -> None:
        known = node.type in self.desk.types
        cls = self.desk.types.get(node.type) if known else None
        editable = self.desk.editor.may_edit()
        family = cls.family if cls else "unknown"
        with ui.element("header").classes(f"st-node-head is-{family}"):
            with ui.element("span").classes("st-tile"):
                ui.icon(cls.icon if cls else "extension_off").props("aria-hidden=true")
            with ui.element("div").classes("grow"):
                self._name = ui.input(
                    value=node.name,
                    placeholder=cls.title if cls else node.type,
                    on_change=on(lambda event: self._rename(event.value or ""), Permission.EDIT),
                )
                self._name.props('borderless dense debounce=300 maxlength=120 aria-label="Name of the node"').props(
                    remove="outlined"
                )
                self._name.classes("st-name").mark("node-name")
                if not editable:
                    self._name.props("readonly")
                ui.label(cls.title if cls else node.type).classes("st-kind")
            if editable and cls:
                switch = ui.switch(
                    value=not node.disabled, on_change=on(lambda event: self._turn(bool(event.value)), Permission.EDIT)
                )
                switch.props('dense aria-label="Switched on"').mark("node-on")
                with switch:
                    ui.tooltip("Switched off, a step passes on what it gets")
        self._tabs = ui.tabs(
            value=self.tab,  # type: ignore[arg-type]
            on_change=on(lambda event: self._turn_to(str(event.value))),
        ).classes("st-tabs")
        with self._tabs:
            for name, title in TABS:
                ui.tab(name, title).mark(f"tab-{name}")
        self._body = ui.element("div").classes("st-inspector-body")
        self._fill_tab()

    def _turn_to(self, tab: str) -> None:
        if tab != self.tab:
            self.tab = tab
            self._fill_tab()

    def _fill_tab(self) -> None:
        node = self.shown
        if node is None:
            return
        self.form = self.policy = self._printing = None
        self._belongings = _nothing
        self._body.clear()
        with self._body:
            if node.type not in self.desk.types and self.tab != "data":
                self._unknown(node)
            elif self.tab == "settings":
                self._settings(node)
            elif self.tab == "data":
                self._data(node)
            elif self.tab == "errors":
                self._errors(node)
            else:
                self._help(self.desk.types.get(node.type))

    def _unknown(self, node: Placed) -> None:
        notice(
            f"The node type “{node.type}” is not installed here. It is kept as it is; the agent cannot run until the package "
            "that brings it is installed, or the node is replaced.",
            tone="warn",
            icon="extension_off",
        )
        if node.settings:
            ui.label("Its settings").classes("st-title mt-4")
            json_tree(node.settings, open_levels=2)

    # --- settings ----------------------------------------------------------------------------------------------------

    def _settings(self, node: Placed) -> None:
        cls = self.desk.types.get(node.type)
        schema = cls.model_json_schema()
        self._belongings = belongings(self.desk, node)
        if not schema.get("properties"):
            ui.label("There is nothing to set up here.").classes("st-help")
            return

        def change(name: str, value: Any) -> None:
            op: dict[str, Any] = {"op": "set", "id": node.id}
            op |= {"unset": [name]} if value is UNSET else {"patch": {"settings": {name: value}}}
            self.desk.change(op, merge=True)
            times()

        self.form = Form(
            self.desk,
            node.id,
            schema,
            dict(node.settings),
            change,
            lambda: self._problems(node.id),
            draw_leaf,
            editable=self.desk.editor.may_edit(),
        )
        self.form.draw()
        times = next_times(self.desk, node)

    def _problems(self, id_: str) -> dict[str, str]:
        placed = self.desk.placed(id_)
        if placed is None:
            return {}
        try:
            self.desk.types.build(placed)
        except BadSettings as error:
            return error.problems
        except UnknownNode:
            return {}
        return {}

    def _rename(self, name: str) -> None:
        if self.shown and name != self.shown.name:
            self.desk.change({"op": "set", "id": self.shown.id, "patch": {"name": name}}, merge=True)

    def _turn(self, working: bool) -> None:
        if self.shown and self.shown.disabled is working:
            self.desk.change({"op": "set", "id": self.shown.id, "patch": {"disabled": not working}})

    # --- rules -------------------------------------------------------------------------------------------------------

    def _errors(self, node: Placed) -> None:
        cls = self.desk.types.get(node.type)
        schema = Policy.model_json_schema()
        if not may_ask_first(cls):
            shown = {name: raw for name, raw in schema["properties"].items() if name not in ("ask_first", "ask_hours")}
            first = next(iter(shown))
            shown[first] = shown[first] | {"section": schema["properties"]["ask_first"]["section"]}
            schema["properties"] = shown

        def change(name: str, value: Any) -> None:
            given = Policy.model_fields[name].get_default(call_default_factory=True) if value is UNSET else value
            self.desk.change({"op": "set", "id": node.id, "patch": {"policy": {name: given}}}, merge=True)

        self.policy = Form(
            self.desk,
            node.id,
            schema,
            node.policy.model_dump(),
            change,
            dict,
            draw_leaf,
            editable=self.desk.editor.may_edit(),
        )
        self.policy.draw()

    # --- data --------------------------------------------------------------------------------------------------------

    def _data(self, node: Placed) -> None:
        step = self.desk.steps.get(node.id)
        editable = self.desk.editor.may_edit()
        if node.pinned is not None:
            with ui.element("div").classes("st-pinned"):
                ui.icon("push_pin").props("aria-hidden=true")
                ui.label(
                    "Pinned: tests use this output and do not run the step. A deployed agent does run it."
                ).classes("grow")
                if editable:
                    ui.button("Unpin", on_click=on(lambda: self._pin(None), Permission.EDIT)).props("flat dense").mark(
                        "unpin"
                    )
            json_tree(node.pinned, open_levels=2)
        if editable:
            self._debug_buttons(node)
        if step is None or step.state == "skipped":
            said = (
                "The last test did not come by here." if step else "Run a test to see what comes in and what goes out."
            )
            with empty_state("science", "No data yet", said):
                if self.desk.may(Permission.RUN):
                    ui.button(
                        "Run up to here", on_click=on(lambda: self.desk.run_until(node.id), Permission.RUN)
                    ).classes("af-secondary mt-4").mark("run-here")
            return
        with ui.element("div").classes("st-data-head"):
            status_chip(step.state)
            ui.label(duration(step.seconds)).classes("af-muted af-number")
            if step.iteration:
                ui.label(item_words(step.iteration, step.turn)).classes("af-muted")
        if step.note:
            ui.label(step.note[:1].upper() + step.note[1:]).classes("st-note")
        if step.error:
            self._step_error(step)
        self._part("What came in", step.input)
        if step.state == "running":
            with ui.element("div").classes("st-part") as box:
                ui.label("What the code prints").classes("st-title")
                self._printing = box, ui.label().classes("st-output whitespace-pre-wrap af-mono").mark("printing")
            box.set_visibility(False)
            self.printed()
        output = outputs_of(step)
        if output is not None:
            with self._part("What went out", output, levels=2), ui.element("div").classes("st-part-tools"):
                if editable:
                    edit = ui.button(
                        "Edit",
                        icon="edit",
                        on_click=on(lambda: self.desk.edit_output(node.id, output), Permission.EDIT),
                    ).props("flat dense")
                    edit.classes("st-mini").mark("edit-output")
                if editable and node.pinned is None:
                    pin = ui.button(
                        "Pin", icon="push_pin", on_click=on(lambda: self._pin(output), Permission.EDIT)
                    ).props("flat dense")
                    pin.classes("st-mini").mark("pin")
                    with pin:
                        ui.tooltip("Use this output in every test, without running the step")
        if step.log:
            ui.label("Log").classes("st-title mt-4")
            for line in step.log[:100]:
                with ui.element("div").classes("st-log"):
                    ui.label(str(line.get("message", ""))).classes("break-words")
                    if line.get("data"):
                        json_tree(line["data"], open_levels=0)

    def _debug_buttons(self, node: Placed) -> None:
        set_ = self.desk.has_breakpoint(node.id)
        with ui.element("div").classes("st-part-tools"):
            for words, icon, act, mark in (
                ("Run from here", "start", self.desk.run_from, "run-from-here"),
                (
                    "Clear the breakpoint" if set_ else "Set a breakpoint",
                    "adjust",
                    self.desk.toggle_breakpoint,
                    "toggle-breakpoint",
                ),
            ):
                press = on(lambda act=act: act(node.id), Permission.RUN)
                ui.button(words, icon=icon, on_click=press).props("flat dense").classes("st-mini").mark(mark)

    def _part(self, title: str, value: Any, levels: int = 1) -> ui.element:
        with ui.element("div").classes("st-part"):
            with ui.element("div").classes("st-part-head") as head:
                ui.label(title).classes("st-title")
                ui.element("div").classes("af-space")
            json_tree(value, open_levels=levels)
        return head

    def _step_error(self, step: StepView) -> None:
        error = step.error or {}
        with notice(spoken(str(error.get("message", "It failed."))), tone="bad", icon="error"):
            pass
        if error.get("fix"):
            ui.label(spoken(str(error["fix"]))).classes("st-words")
        details = error.get("details")
        if isinstance(details, dict):
            for name in ("traceback", "stdout", "stderr"):
                if details.get(name):
                    ui.label(str(details[name])).classes("st-output whitespace-pre-wrap af-mono")

    def _pin(self, output: Any) -> None:
        if self.shown:
            self.desk.change({"op": "set", "id": self.shown.id, "patch": {"pinned": output}})
            tell("Tests now use this output." if output is not None else "The step runs in tests again.")

    # --- help ----------------------------------------------------------------------------------------------------------

    def _help(self, cls: type[Node]) -> None:
        said = describe(cls)
        with ui.element("div").classes("st-help-page"):
            ui.label(spoken(said["summary"])).classes("af-strong")
            for paragraph in said["help"].split("\n\n"):
                if paragraph.strip():
                    ui.label(spoken(" ".join(paragraph.split()))).classes("st-paragraph")
            ui.label(EFFECTS[cls.effect]).classes("st-words")
            for title, ports in (("What comes in", said["inputs"]), ("What goes out", said["outputs"])):
                if not ports:
                    continue
                ui.label(title).classes("st-title mt-4")
                for port in ports:
                    with ui.element("div").classes("st-port"):
                        ui.label(port["label"]).classes("af-strong")
                        ui.label(port["type"]).classes("st-port-type")
                        ui.label(spoken(port["help"])).classes("af-muted")
            if cls.examples:
                ui.label("Examples").classes("st-title mt-4")
            for example in cls.examples:
                with ui.element("details").classes("st-example"):
                    with ui.element("summary"):
                        ui.label(example.title)
                    for title, value in (
                        ("Settings", example.settings),
                        ("Comes in", example.inputs),
                        ("Goes out", example.out),
                    ):
                        if value:
                            ui.label(title).classes("st-optional")
                            json_tree(dict(value), open_levels=2)
                    if self.desk.editor.may_edit():
                        use = on(lambda settings=dict(example.settings): self._use(settings), Permission.EDIT)
                        ui.button("Use these settings", on_click=use).props("flat dense").classes("st-add")

    def _use(self, settings: dict[str, Any]) -> None:
        if self.shown:
            self.desk.change({"op": "set", "id": self.shown.id, "patch": {"settings": settings}})
            tell("The settings of the example are filled in. Undo takes them back.")
            self.open("settings")
