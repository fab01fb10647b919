"""The story of a run for people: its steps with input, output, log and error, told from the facts."""

from typing import Any, cast

from nodes.base import Loop
from runtime.events import Fact
from runtime.limits import in_dollars
from runtime.outcomes import shown_input
from runtime.plan import Plan, Step
from runtime.prices import micro
from runtime.progress import Frame, Progress
from runtime.states import StepState
from runtime.views import RunInfo, RunView, StepView

_HELD = "is held before it runs"
_UNDECIDED = {StepState.RUNNING.value, StepState.WAITING.value, StepState.RETRYING.value}


class Story:
    """Takes in facts one by one and keeps the steps as a timeline shows them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.input: Any = None
        self.output: Any = None
        self.fork: dict[str, Any] | None = None
        """The former run that this one goes on from, and where."""
        self.effects: list[str] = []
        self.steps: dict[tuple[str, str], StepView] = {}
        self.calls: dict[tuple[str, str], tuple[int, str]] = {}
        """For each use of a tool, by its agent and iteration: in which turn, and the tool's name."""
        self._progress = Progress(plan)
        self._progress.on_skip = self._skipped
        self._at = 0.0

    def tell(self, fact: Fact) -> None:
        """Take in the next fact."""
        kind, self._at = fact["kind"], fact["at"]
        if kind == "run.accepted":
            self.input, self.fork = fact["input"], fact.get("fork")
        elif kind == "run.finished":
            self.output = fact.get("output")
            for step in self.steps.values():
                if step.state in _UNDECIDED:
                    step.state, step.finished_at = StepState.CANCELLED.value, fact["at"]
        elif kind.startswith(("step.", "loop.", "agent.")) and fact["node"] in self.plan.steps:
            self._tell_step(kind, fact)
        self._progress.apply(fact)

    def _tell_step(self, kind: str, fact: Fact) -> None:
        view = self._view(fact)
        if kind == "step.started":
            view.state, view.attempt = StepState.RUNNING.value, fact["attempt"]
            view.input = fact.get("input", view.input)
            if view.note == _HELD:
                view.note, view.started_at = "", fact["at"]
        elif kind == "step.succeeded":
            view.state, view.finished_at, view.output = StepState.SUCCEEDED.value, fact["at"], fact["output"]
            view.note = fact.get("note") or view.note
        elif kind == "step.reused":
            view.state, view.finished_at, view.output = StepState.SUCCEEDED.value, fact["at"], fact["output"]
            view.from_run, view.note = fact["from_run"], "used the result of an earlier run"
        elif kind == "step.failed":
            view.state, view.finished_at, view.error = StepState.FAILED.value, fact["at"], fact["error"]
            if fact["handled"]:
                view.note = "failed, and the run went on"
        elif kind == "step.retrying":
            view.state, view.error, view.attempt = StepState.RETRYING.value, fact["error"], fact["attempt"]
            view.note = f"tries again in {fact['after']:.0f} s"
        elif kind == "step.logged":
            view.log.append({"at": fact["at"], "message": fact["message"], "data": fact["data"]})
        elif kind == "step.waiting":
            doubt = fact["wait"] == "doubt"
            view.state = StepState.IN_DOUBT.value if doubt else StepState.WAITING.value
            view.note = _waits(fact)
        elif kind == "step.held":
            view.state, view.note = StepState.WAITING.value, _HELD
        elif kind == "step.resumed":
            view.state, view.note = StepState.RUNNING.value, ""
        elif kind == "step.simulated":
            view.note = fact["sentence"]
            self.effects.append(fact["sentence"])
        elif kind == "agent.turn":
            self._tell_turn(view, fact)
        elif kind == "loop.again":
            view.note = f"{fact['round'] + 1:,} rounds"
        elif kind == "loop.started" and cast(Loop, self.plan.steps[fact["node"]].node).rounds:
            view.note = "1 round"
        elif kind == "loop.started":
            count = len(fact["items"])
            view.note = f"goes through {count:,} item{'' if count == 1 else 's'}"

    def _tell_turn(self, view: StepView, turn: Fact) -> None:
        """What a model said in one turn of an agent."""
        view.state = StepState.RUNNING.value
        around = f"{turn['iteration']}." if turn["iteration"] else ""
        for call in turn["calls"]:
            self.calls[turn["node"], f"{around}{call['n']}"] = turn["turn"], call["name"]
        names = list(dict.fromkeys(f"“{call['name']}”" for call in turn["calls"]))
        did = (
            f"uses {', '.join(names)}"
            if names
            else "is asked to correct its answer"
            if turn.get("wrong")
            else "answers"
        )
        data: dict[str, Any] = {"said": turn["text"]} if turn["text"] else {}
        if turn["calls"]:
            data["calls"] = [
                {key: call[key] for key in ("name", "args", "error") if key in call} for call in turn["calls"]
            ]
        data |= {key: turn[key] for key in ("model", "tokens_in", "tokens_out", "cost")}
        view.log.append({"at": turn["at"], "message": f"Turn {turn['turn']}: {did}", "data": data})
        talk = self._progress.talks.get((turn["node"], turn["iteration"]))
        tokens = (talk.tokens if talk is not None else 0) + turn["tokens_in"] + turn["tokens_out"]
        turns = f"{turn['turn']} turn{'' if turn['turn'] == 1 else 's'}"
        view.note = f"{turns}, {tokens:,} tokens" if tokens else turns
        cost = sum(one["cost"] for one in talk.turns) if talk is not None else 0.0
        if cost := cost + turn["cost"]:
            view.note += f", {in_dollars(micro(cost))}"

    def _view(self, fact: Fact) -> StepView:
        key = (fact["node"], fact["iteration"])
        if (view := self.steps.get(key)) is None:
            step = self.plan.steps[fact["node"]]
            call = self.calls.get((step.scope.loop.id, fact["iteration"])) if step.scope.loop else None
            view = StepView(
                node=step.id,
                name=step.name,
                type=step.type,
                iteration=fact["iteration"],
                attempt=fact.get("attempt", 1),
                state=StepState.RUNNING.value,
                started_at=float(fact["started"] if "started" in fact else fact["at"]),
                input=self._input(fact),
                turn=call[0] if call else 0,
            )
            self.steps[key] = view
        return view

    def _input(self, fact: Fact) -> Any:
        if "input" in fact:
            return fact["input"]
        place = self._progress.place(fact["node"], fact["iteration"])
        return shown_input(place[1], self._progress.inputs(*place)) if place else None

    def _skipped(self, frame: Frame, step: Step) -> None:
        self.steps[step.id, frame.path] = StepView(
            node=step.id,
            name=step.name,
            type=step.type,
            iteration=frame.path,
            attempt=0,
            state=StepState.SKIPPED.value,
            started_at=self._at,
            finished_at=self._at,
        )

    def view(self, info: RunInfo) -> RunView:
        """The whole run as it stands."""
        steps = sorted(self.steps.values(), key=lambda step: (step.state == StepState.SKIPPED.value, step.started_at))
        return RunView(info, self.input, self.output, steps, self.plan.blueprint, self.effects, self.fork)


def _waits(fact: Fact) -> str:
    if fact["wait"] == "until":
        return "waits for its time"
    return _WAITS.get(fact["wait"], "waits for a decision")


_WAITS = {
    "consent": "waits until a person says yes",
    "turn": "waits for its turn: it may start only so often",
    "call": "waits for the agent it called",
    "start": "starts another agent",
    "run": "waits for the agent that was started",
    "event": "waits for something to happen",
}
