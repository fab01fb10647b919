"""Where a run stands: which steps are ready, waiting or resolved. Pure rules over facts, no clock and no waiting.

Every edge of a frame is resolved once, with a value or as dead. A step is ready when all its edges are resolved and its
required ports got a value; otherwise it is skipped and its own edges are dead. The engine moves a `Progress` on while it
runs the steps; after a crash, and for the screens, `apply` moves one on from the facts of the journal: the same rules.
"""

from collections import deque
from collections.abc import Callable, Mapping, Set
from typing import Any, NamedTuple

from nodes.base import SKIP, Loop
from runtime.events import Fact
from runtime.plan import Link, Plan, Scope, Step
from runtime.talks import Call, Talk, result_of

_NONE: Set[int] = frozenset()
IDLE, READY, RUNNING, WAITING, DONE = range(5)
CONSENT = "consent"
"""What a step waits for whose policy is to ask a person first."""


class Answer(NamedTuple):
    """What a step waited for, and what came."""

    wait: str
    value: Any


class LoopRun:
    """A loop that is going on: what it goes through, how far it is, what came back."""

    __slots__ = ("active", "at_once", "frame", "items", "next", "node", "results", "rounds", "started", "step", "value")

    def __init__(self, frame: "Frame", step: Step, items: list[Any], started: float) -> None:
        self.frame, self.step, self.items, self.started = frame, step, items, started
        assert isinstance(step.node, Loop)
        self.node = step.node
        self.rounds, self.at_once = self.node.rounds, self.node.at_once()
        self.results: list[Any] = [SKIP] * len(items)
        self.value: Any = items[0] if items else None
        """Loops of rounds: what the last round came to."""
        self.next = 0
        self.active = 0


class Frame:
    """One execution of a scope: the whole run, or one iteration of a loop. Lists are by `Step.index`."""

    __slots__ = (
        "arrived",
        "begun",
        "call",
        "gone",
        "index",
        "item",
        "left",
        "loop",
        "named",
        "outputs",
        "parent",
        "path",
        "pending",
        "reached",
        "result",
        "scope",
        "status",
    )

    def __init__(self, scope: Scope, path: str, parent: "Frame | None") -> None:
        self.scope, self.path, self.parent = scope, path, parent
        size = len(scope.steps)
        self.pending = scope.counts.copy()
        self.arrived: list[dict[str, Any] | None] = [None] * size
        """What came in, by port: of a plain step its values, of all others each with the order of its edge."""
        self.status = bytearray(size)
        self.outputs: list[dict[str, Any] | None] = [None] * size
        self.begun: dict[int, int] = {}
        """Attempts that began and have no result, by step index: what a crash may have cut."""
        self.named: dict[str, Any] = dict(parent.named) if parent else {}
        self.left = size
        self.item: Any = None
        self.index = 0
        self.result: Any = SKIP
        self.loop: LoopRun | None = None
        self.call: Call | None = None
        """Of the steps of a tool: the use of it that they are run for."""
        self.reached: Set[int] = _NONE
        """Agents, by step index, of which a tool was given something."""
        self.gone = False

    def inside(self, which: Callable[["Frame"], bool]) -> bool:
        """Whether this frame, or one around it, is meant."""
        frame: Frame | None = self
        while frame is not None:
            if which(frame):
                return True
            frame = frame.parent
        return False


class Progress:
    """The state of one run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.input: Any = None
        self.error: dict[str, Any] | None = None
        self.ready: deque[tuple[Frame, Step]] = deque()
        self.waiting: dict[tuple[str, str], Fact] = {}
        self.resumed: dict[tuple[str, str], Answer] = {}
        """Answers that came before a crash and were not used up."""
        self.allowed: set[tuple[str, str]] = set()
        """The steps to which a person said yes before they began."""
        self.root = Frame(plan.root, "", None)
        self._frames: dict[tuple[str, str], Frame] = {("", ""): self.root}
        self._loops: dict[tuple[str, str], LoopRun] = {}
        self.talks: dict[tuple[str, str], Talk] = {}
        """The conversations of agents that are going on."""
        self.tokens = 0
        """What the models of agents took so far."""
        self._dead: deque[tuple[Frame, Step]] = deque()
        self.on_skip: Callable[[Frame, Step], None] | None = None
        self.on_loop_end: Callable[[LoopRun, dict[str, Any] | None, dict[str, Any] | None], None] | None = None
        """Called with the loop and its outputs, or its error, just before they take effect."""
        self.on_round: Callable[[LoopRun, int], bool | dict[str, Any] | None] | None = None
        """Asked after the round with this index whether another follows; an error record fails the loop, None leaves it open."""
        self.on_abandon: Callable[[], None] | None = None
        self.variables: Mapping[str, Any] = plan.variables
        """What formulas find as `vars`; never changed, only replaced."""
        self._undecided: dict[tuple[str, str], tuple[LoopRun, int]] = {}

    # --- facts -----------------------------------------------------------------------------------------------------------

    def apply(self, fact: Fact) -> None:
        """Take in one fact of the journal. Facts about what is settled already change nothing."""
        kind = fact["kind"]
        if kind == "run.accepted":
            self.open(fact["trigger"], fact["input"])
            return
        if "node" not in fact or (place := self.place(fact["node"], fact["iteration"])) is None:
            return
        frame, step = place
        if frame.status[step.index] == DONE:
            return
        if kind in ("step.started", "step.retrying"):
            frame.begun[step.index] = fact["attempt"]
            if self.resumed:
                # What it waited for before it began anew is used up; a crash after this is a matter of its own.
                self.resumed.pop((step.id, frame.path), None)
        elif kind == "step.succeeded":
            self.resolve(frame, step, fact["output"])
        elif kind == "step.reused":
            if "sets" in fact:
                self.variables = {**self.variables, **fact["sets"]}
            self.resolve(frame, step, fact["output"])
        elif kind == "step.failed":
            self._undecided.pop((step.id, frame.path), None)
            self.fall(frame, step, fact["error"])
        elif kind == "step.waiting":
            self.wait(frame, step, fact)
        elif kind == "step.resumed":
            waited = self.waiting.pop((step.id, frame.path))
            self.resumed[step.id, frame.path] = Answer(waited["wait"], fact["answer"])
            if waited["wait"] == CONSENT and fact["answer"].get("approved") is True:
                self.allowed.add((step.id, frame.path))
            frame.status[step.index] = READY
            self.ready.append((frame, step))
        elif kind == "loop.started":
            self.open_loop(frame, step, fact["items"], fact["at"])
        elif kind == "agent.started":
            self.open_talk(frame, step, fact)
        elif kind == "agent.turn":
            self.take_turn(frame, step, fact)
        elif kind == "loop.again" and (open_ := self._undecided.pop((step.id, frame.path), None)) is not None:
            loop, index = open_
            if "item" in fact:  # a person put this in the place of what the round before came to
                loop.value = fact["item"]
            self._next_round(loop, index)
            self._bury()

    def place(self, node: str, iteration: str) -> tuple[Frame, Step] | None:
        """The frame and step of a fact; None if that frame has ended."""
        step = self.plan.steps.get(node)
        if step is None:
            return None
        frame = self._frames.get((step.scope.loop.id if step.scope.loop else "", iteration))
        return (frame, step) if frame is not None else None

    # --- steps -----------------------------------------------------------------------------------------------------------

    def open(self, trigger: str | None, given: Any) -> None:
        """Begin: the trigger that fired and the steps that wait for nothing are ready, other triggers stay silent."""
        self.input = given
        for step in self.plan.root.sources:
            if step.is_trigger and trigger is not None and step.id != trigger:
                self._dead.append((self.root, step))
            else:
                self._make_ready(self.root, step)
        self._bury()

    def inputs(self, frame: Frame, step: Step) -> dict[str, Any]:
        """What the input ports of a ready step got."""
        if step.is_trigger:
            return {"event": self.input}
        arrived = frame.arrived[step.index] or {}
        if step.plain:
            return {**step.blank, **arrived} if step.blank else arrived
        values = {
            port: [value for _, value in sorted(entry, key=_order)] if type(entry) is list else entry[1]
            for port, entry in arrived.items()
        }
        return {**step.blank, **values}

    def wait(self, frame: Frame, step: Step, fact: Fact) -> None:
        """The step waits; `fact` says for what."""
        frame.status[step.index] = WAITING
        self.waiting[step.id, frame.path] = fact

    def resolve(self, frame: Frame, step: Step, outputs: dict[str, Any]) -> None:
        """A step has ended: its edges carry what it gave, or are dead."""
        self._settle(frame, step, outputs)
        if self._dead:
            self._bury()

    def fall(self, frame: Frame, step: Step, error: dict[str, Any]) -> None:
        """A step has failed for good: its policy decides, then the loop around it, then the run fails."""
        on_error = step.policy.on_error
        if on_error == "port":
            self.resolve(frame, step, {"error": error})
        elif on_error == "continue":
            self.resolve(frame, step, {step.out_ports[0]: step.policy.on_error_value} if step.out_ports else {})
        elif frame.call is not None:
            self._call_failed(frame, frame.call, error)
        elif frame.loop is None:
            self.error = self.error or error
        else:
            self._iteration_failed(frame, frame.loop, error)

    def _make_ready(self, frame: Frame, step: Step) -> None:
        frame.status[step.index] = READY
        self.ready.append((frame, step))

    def _settle(self, frame: Frame, step: Step, outputs: dict[str, Any]) -> None:
        index = step.index
        if frame.status[index] == DONE or frame.gone:
            return
        frame.status[index] = DONE
        frame.outputs[index] = outputs
        frame.left -= 1
        if self.waiting:
            self.waiting.pop((step.id, frame.path), None)
        if outputs:
            frame.named[step.key] = outputs
            if step.sets and "variable" in outputs:
                self.variables = {**self.variables, step.sets: outputs["variable"]}
        if step.body is not None:
            self._loops.pop((step.id, frame.path), None)
            self._undecided.pop((step.id, frame.path), None)
        elif step.toolbox is not None:
            self.talks.pop((step.id, frame.path), None)
        for port, links in step.out.items():
            if port == "item" and step.body is not None:
                continue
            value = outputs.get(port, SKIP)
            for link in links:
                self._arrive(frame, link, value)
        if not frame.left and frame.loop is not None:
            self._end_iteration(frame, frame.loop, frame.result)
        elif not frame.left and frame.call is not None:
            self._end_call(frame, frame.call, False, result_of(frame.call, frame))

    def _arrive(self, frame: Frame, link: Link, value: Any) -> None:
        target = link.target
        if target.scope is not frame.scope:
            # Back to the loop around this frame: the iteration's result.
            if value is not SKIP:
                frame.result = value
            return
        index, port = target.index, link.port
        live = frame.arrived[index]
        if value is not SKIP and port:
            if live is None:
                live = frame.arrived[index] = {}
            if target.plain:
                live[port] = value
            elif link.many:
                live.setdefault(port, []).append((link.order, value))
            elif port not in live or live[port][0] > link.order:
                live[port] = (link.order, value)
        elif value is not SKIP and target.toolbox is not None:
            # Nothing for the agent itself, but for one of its tools: that is reason enough to run.
            frame.reached = {*frame.reached, index}
        frame.pending[index] = left = frame.pending[index] - 1
        if frame.status[index] != IDLE:
            return
        if left == 0:
            runs = live is not None or index in frame.reached
            for port in target.required:
                if live is None or port not in live:
                    runs = False
                    break
            if runs:
                frame.status[index] = READY
                self.ready.append((frame, target))
            else:
                self._dead.append((frame, target))
        elif live and target.enough and (target.enough == 1 or _count(live) >= target.enough):
            self._make_ready(frame, target)

    def _bury(self) -> None:
        """Skipping one step may skip the next: worked off as a list, for graphs are deeper than the stack."""
        while self._dead:
            frame, step = self._dead.popleft()
            if self.on_skip is not None and frame.status[step.index] != DONE and not frame.gone:
                self.on_skip(frame, step)
            self._settle(frame, step, {})

    # --- loops -----------------------------------------------------------------------------------------------------------

    def open_loop(self, frame: Frame, step: Step, items: list[Any], started: float) -> None:
        """Go through the items: the first iterations are ready."""
        frame.status[step.index] = RUNNING
        loop = LoopRun(frame, step, items, started)
        self._loops[step.id, frame.path] = loop
        assert step.body is not None
        if not step.body.steps:
            loop.next = len(items)
            loop.results = list(items)
        self._advance(loop)
        self._bury()

    def decide_rounds(self) -> None:
        """Ask about the loops whose next round no fact has decided."""
        open_ = list(self._undecided.values())
        self._undecided.clear()
        for loop, index in open_:
            if not loop.frame.gone:
                self._end_round(loop, index)
        self._bury()

    def _end_round(self, loop: LoopRun, index: int) -> None:
        again = self.on_round(loop, index) if self.on_round is not None else None
        if again is None:
            self._undecided[loop.step.id, loop.frame.path] = (loop, index)
        elif again is True:
            self._next_round(loop, index)
        elif again is False:
            self._end_loop(loop)
        else:
            self._loop_failed(loop, again)

    def _next_round(self, loop: LoopRun, index: int) -> None:
        loop.active += 1
        self._iterate(loop, index + 1, loop.value)

    def _advance(self, loop: LoopRun) -> None:
        while loop.next < len(loop.items) and loop.active < loop.at_once:
            index = loop.next
            loop.next += 1
            loop.active += 1
            self._iterate(loop, index, loop.items[index])
        if loop.active == 0 and loop.next >= len(loop.items):
            self._end_loop(loop)

    def _iterate(self, loop: LoopRun, index: int, item: Any) -> None:
        step, around = loop.step, loop.frame
        assert step.body is not None
        frame = Frame(step.body, f"{around.path}.{index}" if around.path else str(index), around)
        frame.item, frame.index, frame.loop = item, index, loop
        self._frames[step.id, frame.path] = frame
        for link in step.out.get("item", ()):
            if link.target is not step:
                self._arrive(frame, link, frame.item)
        for source, port, link in step.body.outer:
            self._arrive(frame, link, _from_outside(around, source, port))

    def _end_iteration(self, frame: Frame, loop: LoopRun, result: Any) -> None:
        frame.gone = True
        self._frames.pop((loop.step.id, frame.path), None)
        loop.active -= 1
        if loop.rounds:
            # A round without a result leaves the value as it was.
            loop.value = loop.value if result is SKIP else result
            self._end_round(loop, frame.index)
            return
        loop.results[frame.index] = result
        self._advance(loop)

    def _end_loop(self, loop: LoopRun) -> None:
        self._loops.pop((loop.step.id, loop.frame.path), None)
        done: Any = loop.items
        if loop.node.rounds:
            done = loop.value
        elif loop.step.collects:
            done = [result for result in loop.results if result is not SKIP]
        outputs = {"done": done}
        if self.on_loop_end is not None:
            self.on_loop_end(loop, outputs, None)
        self._settle(loop.frame, loop.step, outputs)

    def _iteration_failed(self, frame: Frame, loop: LoopRun, error: dict[str, Any]) -> None:
        policy = loop.node.when_item_fails()
        if policy != "stop":
            self._abandon(lambda other: other is frame)
            self._end_iteration(frame, loop, None if policy == "continue" else SKIP)
            self._bury()
            return
        self._abandon(lambda other: other.loop is loop)
        what = "Round" if loop.node.rounds else "Item"
        whole = error | {
            "message": f"{what} {frame.index + 1} of “{loop.step.name}” failed: {error['message']}",
            "where": dict(error.get("where") or {}) | {"item": frame.index},
        }
        self._loop_failed(loop, whole)

    def _loop_failed(self, loop: LoopRun, whole: dict[str, Any]) -> None:
        self._loops.pop((loop.step.id, loop.frame.path), None)
        if self.on_loop_end is not None:
            self.on_loop_end(loop, None, whole)
        self.fall(loop.frame, loop.step, whole)

    # --- agents ----------------------------------------------------------------------------------------------------------

    def open_talk(self, frame: Frame, step: Step, fact: Fact) -> Talk:
        """An agent begins its conversation."""
        talk = self.talks[step.id, frame.path] = Talk(frame, step, fact)
        return talk

    def take_turn(self, frame: Frame, step: Step, fact: Fact) -> None:
        """The model has spoken: the tools that it calls are ready, each in a frame of its own; without any the agent goes on."""
        talk, toolbox = self.talks[step.id, frame.path], step.toolbox
        assert toolbox is not None
        talk.take(fact)
        self.tokens += fact["tokens_in"] + fact["tokens_out"]
        frame.status[step.index] = RUNNING
        frame.begun[step.index] = 1
        calls = [call for call in fact["calls"] if "error" not in call]
        talk.open = len(calls)
        for call in calls:
            self._open_call(Call(talk, toolbox.tools[call["tool"]], call["n"], call["args"]))
        if not calls:
            self._make_ready(frame, step)
        self._bury()

    def _open_call(self, call: Call) -> None:
        around, tool = call.talk.frame, call.tool
        frame = Frame(tool.scope, f"{around.path}.{call.number}" if around.path else str(call.number), around)
        frame.call, frame.index = call, call.number
        self._frames[call.talk.step.id, frame.path] = frame
        feeds = tool.arguments.feeds.items()
        given = {
            port: (-1, call.args[name] if name else call.args) for port, name in feeds if not name or name in call.args
        }
        frame.arrived[tool.head.index] = given or None
        for step in tool.scope.sources:
            self._make_ready(frame, step)
        for source, port, link in tool.scope.outer:
            self._arrive(frame, link, _from_outside(around, source, port))

    def _end_call(self, frame: Frame, call: Call, failed: bool, result: Any) -> None:
        talk = call.talk
        frame.gone = True
        self._frames.pop((talk.step.id, frame.path), None)
        talk.results[call.number] = failed, result
        talk.open -= 1
        if not talk.open and not talk.frame.gone:
            self._make_ready(talk.frame, talk.step)

    def _call_failed(self, frame: Frame, call: Call, error: dict[str, Any]) -> None:
        """A tool has failed for good: the agent is told, and decides."""
        self._abandon(lambda other: other is frame)
        fix = error.get("fix")
        said = f"{error['message']} {fix}" if fix else str(error["message"])
        self._end_call(frame, call, True, {"error": said})
        self._bury()

    def _abandon(self, which: Callable[[Frame], bool]) -> None:
        """Give up frames and all within them: nothing there goes on, and what still runs is no longer heard."""
        for key, frame in list(self._frames.items()):
            if frame.inside(which):
                frame.gone = True
                del self._frames[key]
        for key in [key for key in self.waiting if self.place(*key) is None]:
            del self.waiting[key]
        if self.on_abandon is not None:
            self.on_abandon()


def _from_outside(frame: Frame, source: Step, port: str) -> Any:
    """What a step further out gave, or the present item of a loop further out."""
    is_item = source.body is not None and port == "item"
    scope = source.body if is_item else source.scope
    while frame.scope is not scope:
        assert frame.parent is not None
        frame = frame.parent
    return frame.item if is_item else (frame.outputs[source.index] or {}).get(port, SKIP)


def _count(arrived: dict[str, Any]) -> int:
    """How many values have come in by all ports."""
    return sum(len(entry) if type(entry) is list else 1 for entry in arrived.values())


def _order(entry: tuple[int, Any]) -> int:
    return entry[0]
